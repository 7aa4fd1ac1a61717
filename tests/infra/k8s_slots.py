"""Rules for Deployments of servers side by side: the shared one, and those of endpoints' slots.

Each takes all resources of an overlay and answers what is wrong, a sentence each. What one Deployment is counted,
scaled, updated and asked by must never be another's: Kubernetes takes a selector that is too wide without a word.
"""

from collections.abc import Iterator
from pathlib import Path

import yaml

from shared.core.ids import endpoint_name
from shared.core.slots import Slot
from shared.rollout.gateway import GRPC_PORT, HTTP_PORT, SHARED_BACKEND, backend_name
from tests.infra.k8s import (
    MANIFESTS,
    Resource,
    build,
    of_kind,
    pod_of,
    selected,
    servers,
    serving,
    settings,
    the,
    title,
)

SLOT, ENDPOINT = "slipway.dev/slot", "slipway.dev/endpoint"
SHARED = "shared"


def pods_are_their_own(resources: list[Resource]) -> Iterator[str]:
    """What selects pods of servers selects one Deployment's; only policies and Prometheus, all of them."""
    for found in servers(resources):
        inside, name = found["metadata"]["namespace"], found["metadata"]["name"]
        selectors = {"its own selector": found["spec"]["selector"]}
        for spread in pod_of(found)["spec"]["topologySpreadConstraints"]:
            selectors[f"its spread over {spread['topologyKey']}"] = spread["labelSelector"]
        for kind, path in (("Service", "the Service"), ("PodDisruptionBudget", "the budget")):
            selector = the(resources, kind, name)["spec"]["selector"]
            selectors[f"{path} of its name"] = selector if kind != "Service" else {"matchLabels": selector}
        for what, selector in selectors.items():
            names = [d["metadata"]["name"] for d in selected(resources, inside, selector)]
            if names != [name]:
                yield f"{title(found)}: {what} selects the pods of {names}"
    for each in (*of_kind(resources, "NetworkPolicy"), *of_kind(resources, "PodMonitor")):
        spec = each["spec"]
        meant = selected(resources, each["metadata"]["namespace"], spec.get("podSelector", spec.get("selector")))
        left_out = [title(d) for d in servers(resources) if d not in meant]
        if any(d in meant for d in servers(resources)) and left_out:
            yield f"{title(each)} is for some servers and not for {left_out}"


def slots_are_told(resources: list[Resource]) -> Iterator[str]:
    """A pod is told the slot and endpoint by which it is asked, is called as the control plane calls it, and the shared
    ones are told none.
    """
    for found in servers(resources):
        name, labels = found["metadata"]["name"], pod_of(found)["metadata"]["labels"]
        slot, endpoint = labels.get(SLOT), labels.get(ENDPOINT)
        told = settings(resources, name)
        if slot == SHARED:
            wanted, expected = backend_name("any", None), (None, None)
        elif slot in set(Slot) and endpoint is not None:
            wanted, expected = backend_name(endpoint, Slot(slot)), (slot, endpoint)
        else:
            yield f"{title(found)} is of the slot {slot} and the endpoint {endpoint}, which no plan can name"
            continue
        if name != wanted:
            yield f"{title(found)} is asked for as {wanted}"
        if (told.get("SLIPWAY_SLOT"), told.get("SLIPWAY_ENDPOINTS")) != expected:
            yield f"{title(found)} is told the slot {told.get('SLIPWAY_SLOT')} of {told.get('SLIPWAY_ENDPOINTS')}"


def slots_come_in_pairs(resources: list[Resource]) -> Iterator[str]:
    """An endpoint has both slots, which run the shared pods' image, and each has a Service with both ports."""
    found: dict[str, set[str]] = {}
    (shared,) = [d for d in servers(resources) if pod_of(d)["metadata"]["labels"].get(SLOT) == SHARED]
    for deployment in servers(resources):
        labels = pod_of(deployment)["metadata"]["labels"]
        if labels.get(SLOT) != SHARED:
            found.setdefault(labels.get(ENDPOINT, ""), set()).add(labels.get(SLOT, ""))
        if serving(deployment)["image"] != serving(shared)["image"]:
            yield f"{title(deployment)} runs another image than the shared pods"
        ports = {p["port"] for p in the(resources, "Service", deployment["metadata"]["name"])["spec"]["ports"]}
        if ports != {HTTP_PORT, GRPC_PORT}:
            yield f"the Service of {title(deployment)} has the ports {sorted(ports)}: routes lead to others"
    for endpoint, slots in found.items():
        if slots != set(Slot):
            yield f"the endpoint {endpoint} has {sorted(slots)} alone: no version can be followed by another"


def dedicated(folder: Path, endpoint: str) -> list[Resource]:
    """What an overlay as the example makes for another endpoint: a folder for each slot, since names may be cut.

    It is written to a folder that is empty.
    """
    example = MANIFESTS / "overlays" / "production-dedicated"
    top, each = (yaml.safe_load((f / "kustomization.yaml").read_text("utf-8")) for f in (example, example / "digits"))
    each["labels"][0]["pairs"] = {ENDPOINT: endpoint_name(endpoint)}
    top["resources"] = [_relative(MANIFESTS / "overlays" / "production", folder), *map(str, Slot)]
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(top), "utf-8")
    for slot in Slot:
        (folder / slot).mkdir()
        each["nameSuffix"] = backend_name(endpoint, slot).removeprefix(f"{SHARED_BACKEND}-{slot}")
        each["resources"] = [_relative(MANIFESTS / "dedicated" / slot, folder / slot)]
        (folder / slot / "kustomization.yaml").write_text(yaml.safe_dump(each), "utf-8")
    return build(folder)


def _relative(path: Path, start: Path) -> str:
    return str(path.relative_to(start.resolve(), walk_up=True))


RULES = (pods_are_their_own, slots_are_told, slots_come_in_pairs)
