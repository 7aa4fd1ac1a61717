"""Dedicated pods in the manifests: apart from the shared ones in all that counts, scales, updates and asks them."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.core.slots import Slot
from shared.rollout.gateway import backend_name
from tests.infra import k8s_rules, k8s_slots
from tests.infra.k8s import MANIFESTS, OVERLAYS, ROOT, Resource, build, composed, of_kind, overlay, pod_of, serving, the

type Rule = Callable[[list[Resource]], Iterator[str]]
type Break = Callable[[list[Resource]], object]

BLUE, GREEN, SHARED = "slipway-serving-blue-digits", "slipway-serving-green-digits", "slipway-serving"


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("rule", k8s_slots.RULES, ids=lambda rule: rule.__name__)
def test_an_overlay_keeps_the_rule(name: str, rule: Rule) -> None:
    assert list(rule(overlay(name))) == []


def test_the_example_has_two_slots_beside_the_shared_pods() -> None:
    deployments = of_kind(overlay("production-dedicated"), "Deployment")

    assert {d["metadata"]["name"] for d in deployments} == {SHARED, BLUE, GREEN, "slipway-otel-collector"}


def _told() -> list[str]:
    """The blocks of YAML in the guide's chapter."""
    guide = (ROOT / "docs" / "kubernetes.md").read_text("utf-8")
    return re.findall(r"```yaml\n(.*?)```", guide.partition("\n## Dedicated pods\n")[2], re.DOTALL)


def test_the_endpoint_of_the_example_is_ten_lines_as_the_guide_has_them() -> None:
    text = (MANIFESTS / "overlays/production-dedicated/digits/kustomization.yaml").read_text("utf-8")

    assert _told()[0].partition("\n")[2] == text
    assert len(text.splitlines()) == 11


def test_the_guides_patch_gives_both_slots_of_an_endpoint_another_least_number_of_pods(tmp_path: Path) -> None:
    example = MANIFESTS / "overlays/production-dedicated/digits"
    folder = Path(shutil.copytree(MANIFESTS, tmp_path / "k8s")) / example.relative_to(MANIFESTS)
    (folder / "kustomization.yaml").write_text(_told()[0] + _told()[1], "utf-8")

    scalers = of_kind(build(folder.parent), "HorizontalPodAutoscaler")

    least = {each["metadata"]["name"]: each["spec"]["minReplicas"] for each in scalers}
    assert least == {SHARED: 2, BLUE: 1, GREEN: 1}


@pytest.mark.parametrize("endpoint", ["a", "digits-2", "e" * 41, "e" * 42, "e" * 63])
def test_an_endpoint_of_any_name_has_slots_that_keep_the_rules(endpoint: str, tmp_path: Path) -> None:
    """Also one whose Services' names are cut and end in a hash, and which takes a folder for each slot."""
    made = k8s_slots.dedicated(tmp_path, endpoint)

    assert {d["metadata"]["name"] for d in of_kind(made, "Deployment")} >= {backend_name(endpoint, s) for s in Slot}
    for rule in (*k8s_slots.RULES, k8s_rules.one_scaler, k8s_rules.disruptions_are_bounded):
        assert list(rule(made)) == []


@pytest.mark.parametrize("component", ["istio", "keda", "small"])
def test_what_is_added_to_all_servers_is_added_to_slots(component: str, tmp_path: Path) -> None:
    made = composed(tmp_path, "overlays/production-dedicated", f"components/{component}")
    slots = [the(made, "Deployment", name) for name in (SHARED, BLUE, GREEN)]

    for rule in (*k8s_slots.RULES, k8s_rules.one_scaler):
        assert list(rule(made)) == []
    injected = ["sidecar.istio.io/inject" in pod_of(one)["metadata"]["labels"] for one in slots]
    assert injected == [component == "istio"] * 3
    kinds = {s["kind"] for s in of_kind(made, "HorizontalPodAutoscaler", "ScaledObject")}
    assert ("ScaledObject" in kinds) is (component == "keda")


def test_keda_counts_the_requests_of_shared_pods_alone() -> None:
    (scaled,) = of_kind(overlay("production-keda"), "ScaledObject")
    (query,) = [t["metadata"]["query"] for t in scaled["spec"]["triggers"] if t["type"] == "prometheus"]

    assert 'pod!~"slipway-serving-(blue|green)-.*"' in query
    assert set(Slot) == {"blue", "green"}


def test_flux_waits_for_the_shared_pods_and_not_for_an_idle_slot() -> None:
    """A slot without a version is never ready: neither a health check nor a drain may wait for it."""
    steps = build(MANIFESTS.parent / "gitops" / "production")
    checks = the(steps, "Kustomization", "slipway")["spec"]["healthChecks"]

    assert {c["name"] for c in checks}.isdisjoint({BLUE, GREEN})
    assert not the(steps, "Kustomization", "slipway")["spec"].get("wait", False)
    for name in (BLUE, GREEN):
        budget = the(overlay("production-dedicated"), "PodDisruptionBudget", name)
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def _pod(resources: list[Resource], name: str) -> Resource:
    found: Resource = pod_of(the(resources, "Deployment", name))
    return found


def _env(resources: list[Resource], name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = serving(the(resources, "Deployment", name))["env"]
    return found


def _without(selector: dict[str, str]) -> None:
    for label in (k8s_slots.SLOT, k8s_slots.ENDPOINT):
        selector.pop(label, None)


BREAKS: list[tuple[str, Rule, Break, str]] = [
    (
        "the shared Deployment counts all",
        k8s_slots.pods_are_their_own,
        lambda r: _without(the(r, "Deployment", SHARED)["spec"]["selector"]["matchLabels"]),
        "its own selector selects",
    ),
    (
        "the shared Service asks all",
        k8s_slots.pods_are_their_own,
        lambda r: _without(the(r, "Service", SHARED)["spec"]["selector"]),
        "the Service of its name selects",
    ),
    (
        "a budget of all",
        k8s_slots.pods_are_their_own,
        lambda r: _without(the(r, "PodDisruptionBudget", BLUE)["spec"]["selector"]["matchLabels"]),
        "the budget of its name selects",
    ),
    (
        "spread among all",
        k8s_slots.pods_are_their_own,
        lambda r: _without(_pod(r, GREEN)["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]),
        "its spread over",
    ),
    (
        "two slots of one label",
        k8s_slots.pods_are_their_own,
        lambda r: _pod(r, GREEN)["metadata"]["labels"].update({k8s_slots.SLOT: "blue"}),
        "selects the pods of",
    ),
    (
        "metrics of the shared pods alone",
        k8s_slots.pods_are_their_own,
        lambda r: of_kind(r, "PodMonitor")[0]["spec"]["selector"]["matchLabels"].update({k8s_slots.SLOT: "shared"}),
        "is for some servers",
    ),
    (
        "a policy for a slot alone",
        k8s_slots.pods_are_their_own,
        lambda r: the(r, "NetworkPolicy", "serving-to-storage")["spec"]["podSelector"]["matchLabels"].update(
            {k8s_slots.SLOT: "blue"}
        ),
        "is for some servers",
    ),
    (
        "no slot told",
        k8s_slots.slots_are_told,
        lambda r: _env(r, BLUE).pop(1),
        "is told the slot None",
    ),
    (
        "another endpoint told",
        k8s_slots.slots_are_told,
        lambda r: _env(r, BLUE).append({"name": "SLIPWAY_ENDPOINTS", "value": "other"}),
        "of other",
    ),
    (
        "a slot for the shared pods",
        k8s_slots.slots_are_told,
        lambda r: _env(r, SHARED).append({"name": "SLIPWAY_SLOT", "value": "blue"}),
        "is told the slot blue",
    ),
    (
        "another name",
        k8s_slots.slots_are_told,
        lambda r: _pod(r, BLUE)["metadata"]["labels"].update({k8s_slots.ENDPOINT: "numbers"}),
        "is asked for as slipway-serving-blue-numbers",
    ),
    (
        "a slot that there is not",
        k8s_slots.slots_are_told,
        lambda r: _pod(r, BLUE)["metadata"]["labels"].update({k8s_slots.SLOT: "red"}),
        "no plan can name",
    ),
    (
        "one slot",
        k8s_slots.slots_come_in_pairs,
        lambda r: r.remove(the(r, "Deployment", GREEN)),
        "has ['blue'] alone",
    ),
    (
        "another image",
        k8s_slots.slots_come_in_pairs,
        lambda r: serving(the(r, "Deployment", BLUE)).update(image="other"),
        "another image",
    ),
    (
        "no gRPC",
        k8s_slots.slots_come_in_pairs,
        lambda r: the(r, "Service", BLUE)["spec"]["ports"].pop(),
        "has the ports [8080]",
    ),
    (
        "a slot without a scaler",
        k8s_rules.one_scaler,
        lambda r: r.remove(the(r, "HorizontalPodAutoscaler", BLUE)),
        f"0 resources say how many pods slipway/Deployment/{BLUE}",
    ),
]


@pytest.mark.parametrize(("rule", "broken", "said"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS])
def test_a_rule_sees_what_breaks_it(rule: Rule, broken: Break, said: str) -> None:
    resources = overlay("production-dedicated")

    broken(resources)

    assert said in " | ".join(rule(resources))


def test_each_rule_is_broken_once() -> None:
    assert {case[1] for case in BREAKS} >= set(k8s_slots.RULES)
