"""The manifests under aks-serving/, made as `kubectl kustomize` makes them, and the questions that tests ask of them.

Each call answers with resources of its own, so that a test may break them.
"""

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

type Resource = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = ROOT / "aks-serving" / "k8s"
OVERLAYS = ("dev", "staging", "production", "production-keda", "production-istio", "production-dedicated")
VERSION = "1.36"
"""Of Kubernetes, as the cluster's template has it."""


def overlay(name: str) -> list[Resource]:
    """What an overlay makes, with the namespaces that it goes into. Skips the test where there is no kubectl."""
    return build(MANIFESTS / "namespaces") + build(MANIFESTS / "overlays" / name)


def build(folder: Path) -> list[Resource]:
    """What `kubectl kustomize` makes of a folder. Skips the test where there is no kubectl."""
    return [found for found in yaml.load_all(_built(folder), yaml.CSafeLoader) if found is not None]


def composed(folder: Path, *parts: str) -> list[Resource]:
    """What an overlay of one's own makes of parts of the manifests, `overlays/...` and `components/...`.

    It is written to a folder that is empty.
    """
    paths: dict[str, list[str]] = {"resources": [], "components": []}
    for part in parts:
        paths["components" if part.startswith("components/") else "resources"].append(
            os.path.relpath(MANIFESTS / part, folder.resolve())
        )
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(paths), "utf-8")
    return build(folder)


@functools.cache
def _built(folder: Path) -> str:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed, and the manifests are made with it")
    run = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, f"kubectl kustomize {folder}: {run.stderr}"
    return run.stdout


def node_modules() -> Path:
    """Where the npm packages are, as the emulators' tests find them."""
    return Path(os.environ.get("SLIPWAY_NODE_MODULES", ROOT / "node_modules"))


def of_kind(resources: list[Resource], *kinds: str) -> list[Resource]:
    """All of some kinds."""
    return [found for found in resources if found["kind"] in kinds]


def the(resources: list[Resource], kind: str, name: str) -> Resource:
    """The one of a kind and name."""
    (found,) = [r for r in of_kind(resources, kind) if r["metadata"]["name"] == name]
    return found


def title(resource: Resource) -> str:
    """How a problem names a resource."""
    metadata = resource["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), resource["kind"], metadata["name"])))


def pod_of(resource: Resource) -> Resource:
    """The pod template of a Deployment."""
    template: Resource = resource["spec"]["template"]
    return template


def containers(resources: list[Resource]) -> Iterator[tuple[str, Resource]]:
    """All containers of all Deployments, each with how a problem names it."""
    for found in of_kind(resources, "Deployment"):
        for container in pod_of(found)["spec"]["containers"]:
            yield f"{title(found)}, container {container['name']}", container


def selects(selector: Resource, labels: dict[str, str]) -> bool:
    """Whether a label selector, of `matchLabels` alone, selects these labels. One that is empty selects all."""
    assert selector.keys() <= {"matchLabels"}, f"selectors are read by matchLabels alone: {selector}"
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()


def selected(resources: list[Resource], namespace: str, selector: Resource) -> list[Resource]:
    """The Deployments of a namespace whose pods a selector selects."""
    return [
        found
        for found in of_kind(resources, "Deployment")
        if found["metadata"]["namespace"] == namespace and selects(selector, pod_of(found)["metadata"]["labels"])
    ]


def servers(resources: list[Resource]) -> list[Resource]:
    """The Deployments of model servers: the shared one, and those of slots."""
    return selected(resources, "slipway", {"matchLabels": {"app.kubernetes.io/name": "slipway-serving"}})


def serving(deployment: Resource) -> Resource:
    """The container of a server's Deployment that the server runs in."""
    (found,) = [c for c in pod_of(deployment)["spec"]["containers"] if c["name"] == "serving"]
    container: Resource = found
    return container


def settings(resources: list[Resource], name: str = "slipway-serving") -> dict[str, str]:
    """The settings of a Deployment of servers as its pods get them, less what only a running pod knows."""
    deployment = the(resources, "Deployment", name)
    labels = pod_of(deployment)["metadata"]["labels"]
    found: dict[str, str] = {}
    for source in serving(deployment).get("envFrom", []):
        found |= the(resources, "ConfigMap", source["configMapRef"]["name"])["data"]
    for entry in serving(deployment).get("env", []):
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        elif label := _LABEL.fullmatch(entry["valueFrom"].get("fieldRef", {}).get("fieldPath", "")):
            found[entry["name"]] = labels[label[1]]
    return found


_LABEL = re.compile(r"metadata\.labels\['([^']+)'\]")
_UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def quantity(text: str | float) -> float:
    """A Kubernetes quantity, in cores or bytes."""
    number = str(text).rstrip("mKMGi")
    return float(number) * _UNITS[str(text)[len(number) :]]
