"""What Flux is told: it fits its schemas, and names what there is."""

from collections.abc import Callable

import pytest

from tests.infra.k8s import ROOT, Resource, build, of_kind, overlay, the, title
from tests.infra.test_k8s_schemas import problems

ENVIRONMENTS = ("dev", "staging", "production")


def flux(environment: str) -> list[Resource]:
    """What an environment's cluster is given for Flux."""
    return build(ROOT / "aks-serving" / "gitops" / environment)


def faults(resources: list[Resource], environment: str) -> list[str]:
    """What does not hold, a sentence each."""
    found = []
    sources = {s["metadata"]["name"] for s in of_kind(resources, "GitRepository")}
    steps = {k["metadata"]["name"]: k["spec"] for k in of_kind(resources, "Kustomization")}
    if len({r["metadata"]["namespace"] for r in resources}) != 1:
        found.append("a resource names another of a namespace that is not its own: the add-on forbids that")
    if {spec["path"].rpartition("/")[2] for spec in steps.values()} != {"namespaces", environment}:
        found.append("the steps are not the namespaces and the environment's overlay")
    for name, spec in steps.items():
        folder = ROOT / spec["path"]
        if not (folder / "kustomization.yaml").is_file():
            found.append(f"{name} applies {spec['path']}, where nothing is")
        if spec["sourceRef"]["name"] not in sources:
            found.append(f"{name} takes its files from {spec['sourceRef']['name']}, which there is not")
        found += [f"{name} waits for {d['name']}" for d in spec.get("dependsOn", []) if d["name"] not in steps]
        if "serviceAccountName" not in spec:
            found.append(f"{name} is applied as nobody: the add-on gives such a step no rights")
        if folder.name == "namespaces" and spec["prune"]:
            found.append(f"{name} may delete a namespace, and all that is in it")
        if folder.name == environment:
            found += _overlay_faults(name, spec, overlay(environment))
    return found


def _overlay_faults(name: str, spec: Resource, made: list[Resource]) -> list[str]:
    found = []
    checks = {(c["kind"], c["namespace"], c["name"]) for c in spec.get("healthChecks", [])}
    deployed = {(d["kind"], d["metadata"]["namespace"], d["metadata"]["name"]) for d in of_kind(made, "Deployment")}
    if checks != deployed:
        found.append(f"{name} looks after {sorted(checks)}, and applies {sorted(deployed)}")
    if not spec["prune"]:
        found.append(f"{name} leaves in the cluster what was taken out of the repository")
    progress_s = the(made, "Deployment", "slipway-serving")["spec"]["progressDeadlineSeconds"]
    if int(spec["timeout"].removesuffix("m")) * 60 <= progress_s:
        found.append(f"{name} gives up after {spec['timeout']}, and the Deployment after {progress_s} s")
    return found


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_it_names_what_there_is(environment: str) -> None:
    assert faults(flux(environment), environment) == []


def test_it_fits_the_schemas_of_flux() -> None:
    resources = [found for environment in ENVIRONMENTS for found in flux(environment)]

    assert sorted({title(found).split("/")[1] for found in resources}) == ["GitRepository", "Kustomization"]
    assert problems(resources) == []


def test_a_misspelt_field_does_not_fit() -> None:
    resources = flux("production")
    the(resources, "Kustomization", "slipway")["spec"]["dependOn"] = []
    the(resources, "GitRepository", "slipway-manifests")["spec"]["ref"]["brunch"] = "main"

    assert [line.split(" has ")[1] for line in problems(resources)] == [
        "the field /spec/dependOn, which its schema does not know",
        "the field /spec/ref/brunch, which its schema does not know",
    ]


def test_a_namespace_that_may_be_deleted_is_seen() -> None:
    resources = flux("production")
    the(resources, "Kustomization", "slipway-namespaces")["spec"]["prune"] = True
    the(resources, "GitRepository", "slipway-manifests")["metadata"]["namespace"] = "flux-system"

    assert [line.partition(":")[0] for line in faults(resources, "production")] == [
        "a resource names another of a namespace that is not its own",
        "slipway-namespaces may delete a namespace, and all that is in it",
    ]


def test_production_does_not_follow_staging_by_itself() -> None:
    sources = {name: the(flux(name), "GitRepository", "slipway-manifests") for name in ENVIRONMENTS}

    assert {name: source["spec"]["ref"]["branch"] for name, source in sources.items()} == {
        "dev": "main",
        "staging": "main",
        "production": "production",
    }


BREAKS: list[tuple[str, Callable[[Resource], object], str]] = [
    ("another folder", lambda s: s.update(path="./aks-serving/k8s/overlays/prod"), "where nothing is"),
    ("another overlay", lambda s: s.update(path="./aks-serving/k8s/overlays/staging"), "the steps are not"),
    ("another source", lambda s: s["sourceRef"].update(name="x"), "which there is not"),
    ("another step", lambda s: s["dependsOn"][0].update(name="x"), "waits for x"),
    ("nobody", lambda s: s.pop("serviceAccountName"), "as nobody"),
    ("one check less", lambda s: s["healthChecks"].pop(), "looks after"),
    ("no pruning", lambda s: s.update(prune=False), "leaves in the cluster"),
    ("impatience", lambda s: s.update(timeout="5m"), "gives up"),
]


@pytest.mark.parametrize(("broken", "said"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS])
def test_what_is_broken_is_seen(broken: Callable[[Resource], object], said: str) -> None:
    resources = flux("production")

    broken(the(resources, "Kustomization", "slipway")["spec"])

    assert said in " | ".join(faults(resources, "production"))
