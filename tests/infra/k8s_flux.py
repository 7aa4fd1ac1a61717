"""What Flux makes of the blobs in the container of manifests, done by `kubectl kustomize`.

Its kustomize-controller takes a source without a kustomization.yaml for a list of all files in it that end in .yaml or
.yml, in the order of their names, and puts each resource into `targetNamespace`
(fluxcd/pkg/kustomize/kustomize_generator.go). Its source-controller leaves out what `ignore` says. Neither runs here.
"""

import subprocess
from collections.abc import Mapping
from pathlib import Path

import yaml

from tests.infra.k8s import ROOT, Resource, build, of_kind, the

STEP = "slipway-routes"


def step() -> tuple[Resource, Resource]:
    """What the Bucket and the Kustomization of production say, their `spec`."""
    told = build(ROOT / "aks-serving" / "gitops" / "production")
    (bucket,) = of_kind(told, "Bucket")
    return bucket["spec"], the(told, "Kustomization", STEP)["spec"]


def taken(blobs: Mapping[str, bytes], folder: Path) -> dict[str, bytes]:
    """The blobs that the source keeps, by git's own rules of what is ignored."""
    bucket, _ = step()
    repository = folder / "ignored"
    repository.mkdir(parents=True, exist_ok=True)
    run = ["git", "-C", str(repository)]
    subprocess.run([*run, "init", "-q"], check=True)
    (repository / ".git" / "info" / "exclude").write_text(bucket["ignore"], "utf-8")
    command = [*run, "check-ignore", "--no-index", "--stdin"]
    asked = subprocess.run(command, input="\n".join(blobs), capture_output=True, text=True, check=False)
    ignored = asked.stdout.splitlines()
    return {name: data for name, data in blobs.items() if name not in ignored}


def applied(blobs: Mapping[str, bytes], folder: Path) -> list[Resource]:
    """The resources that Flux applies of some blobs. The folder is its own, and empty."""
    _, told = step()
    folder.mkdir(parents=True)
    for name, data in blobs.items():
        (folder / name).write_bytes(data)
    files = [f"./{name}" for name in sorted(blobs) if name.endswith((".yaml", ".yml"))]
    made = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": files,
        "namespace": told["targetNamespace"],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(made), "utf-8")
    return build(folder)
