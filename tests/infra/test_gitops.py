"""What Flux is told: it fits its schemas, and names what there is."""

from collections.abc import Callable

import pytest

from shared.core.slots import Slot
from shared.rollout.gateway import NAMESPACE
from shared.store.ports import BlobContainer
from tests.infra.k8s import ROOT, Resource, build, of_kind, overlay, pod_of, the, title
from tests.infra.k8s_slots import SLOT
from tests.infra.test_k8s_schemas import problems

ENVIRONMENTS = ("dev", "staging", "production")


def flux(environment: str) -> list[Resource]:
    """What an environment's cluster is given for Flux."""
    return build(ROOT / "aks-serving" / "gitops" / environment)


def faults(resources: list[Resource], environment: str) -> list[str]:
    """What does not hold, a sentence each."""
    found = []
    sources = {s["metadata"]["name"] for s in of_kind(resources, "GitRepository")}
    every = {k["metadata"]["name"]: k["spec"] for k in of_kind(resources, "Kustomization")}
    steps = {name: spec for name, spec in every.items() if spec["sourceRef"]["kind"] == "GitRepository"}
    for name in every.keys() - steps.keys():
        found += _routes_faults(name, every[name], resources)
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


def _routes_faults(name: str, spec: Resource, resources: list[Resource]) -> list[str]:
    """What is wrong with the step that applies what the control plane wrote."""
    found = []
    (bucket,) = [b["spec"] for b in of_kind(resources, "Bucket") if b["metadata"]["name"] == spec["sourceRef"]["name"]]
    accounts = {a["metadata"]["name"] for a in of_kind(resources, "ServiceAccount")}
    if bucket["bucketName"] != BlobContainer.MANIFESTS:
        found.append(f"{name} takes what is in {bucket['bucketName']}, where no routes are written")
    if bucket["provider"] != "azure" or "secretRef" in bucket:
        found.append(f"{name} reads its source otherwise than by an identity")
    if "/kustomization.yaml" not in bucket["ignore"].splitlines()[1:]:
        found.append(f"{name} would obey a blob called kustomization.yaml")
    if spec.get("serviceAccountName") not in accounts:
        found.append(f"{name} applies what is in storage as {spec.get('serviceAccountName')}, who may do more")
    if spec.get("targetNamespace") != NAMESPACE:
        found.append(f"{name} applies what is in storage to any namespace")
    if spec["prune"]:
        found.append(f"{name} may delete routes that requests come by")
    if spec.get("dependsOn") or spec.get("wait") or spec.get("healthChecks"):
        found.append(f"{name} waits for others while a version is to be taken out of traffic")
    if spec.get("postBuild") or spec.get("decryption"):
        found.append(f"{name} does more with what is in storage than apply it")
    if bucket["interval"] != "1m":
        found.append(f"{name} hears of a version that is taken back after {bucket['interval']}")
    return found


def _overlay_faults(name: str, spec: Resource, made: list[Resource]) -> list[str]:
    found = []
    checks = {(c["kind"], c["namespace"], c["name"]) for c in spec.get("healthChecks", [])}
    # Pods of a slot without a version are never ready: nobody waits for them.
    awaited = [d for d in of_kind(made, "Deployment") if pod_of(d)["metadata"]["labels"].get(SLOT) not in set(Slot)]
    deployed = {(d["kind"], d["metadata"]["namespace"], d["metadata"]["name"]) for d in awaited}
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

    kinds = {"Bucket", "GitRepository", "Kustomization", "ServiceAccount"}
    assert {title(found).split("/")[1] for found in resources} == kinds
    assert problems([found for found in resources if found["kind"] != "ServiceAccount"]) == []


def test_a_misspelt_field_does_not_fit() -> None:
    resources = flux("production")
    the(resources, "Kustomization", "slipway")["spec"]["dependOn"] = []
    the(resources, "GitRepository", "slipway-manifests")["spec"]["ref"]["brunch"] = "main"
    the(resources, "Bucket", "slipway-routes")["spec"]["container"] = "manifests"
    custom = [found for found in resources if found["kind"] != "ServiceAccount"]

    assert sorted(line.split(" has ")[1] for line in problems(custom)) == [
        "the field /spec/container, which its schema does not know",
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


def _step(resources: list[Resource]) -> Resource:
    found: Resource = the(resources, "Kustomization", "slipway-routes")["spec"]
    return found


def _bucket(resources: list[Resource]) -> Resource:
    found: Resource = the(resources, "Bucket", "slipway-routes")["spec"]
    return found


ROUTES_BREAKS: list[tuple[str, Callable[[list[Resource]], object], str]] = [
    ("another container", lambda r: _bucket(r).update(bucketName="routes"), "where no routes are"),
    ("a secret", lambda r: _bucket(r).update(secretRef={"name": "key"}), "otherwise than by an identity"),
    ("orders in storage", lambda r: _bucket(r).update(ignore="/*\n!/*.yaml\n"), "would obey"),
    ("orders let in again", lambda r: _bucket(r).update(ignore="/kustomization.yaml"), "would obey"),
    ("the cluster's ruler", lambda r: _step(r).update(serviceAccountName="flux-applier"), "may do more"),
    ("any namespace", lambda r: _step(r).pop("targetNamespace"), "any namespace"),
    ("pruning", lambda r: _step(r).update(prune=True), "may delete routes"),
    ("a wait for servers", lambda r: _step(r).update(dependsOn=[{"name": "slipway"}]), "waits for others"),
    ("a wait for health", lambda r: _step(r).update(wait=True), "waits for others"),
    ("substitution", lambda r: _step(r).update(postBuild={}, decryption={"provider": "sops"}), "does more"),
    ("late news", lambda r: _bucket(r).update(interval="10m"), "after 10m"),
]


@pytest.mark.parametrize(("broken", "said"), [c[1:] for c in ROUTES_BREAKS], ids=[c[0] for c in ROUTES_BREAKS])
def test_a_step_that_could_do_more_than_move_traffic_is_seen(
    broken: Callable[[list[Resource]], object], said: str
) -> None:
    resources = flux("production")

    broken(resources)

    assert said in " | ".join(faults(resources, "production"))


def test_who_applies_routes_may_do_that_and_nothing_else() -> None:
    resources = overlay("production")
    roles = {(r["metadata"]["namespace"], r["metadata"]["name"]): r["rules"] for r in of_kind(resources, "Role")}
    (binding,) = of_kind(resources, "RoleBinding")

    assert of_kind(resources, "ClusterRole", "ClusterRoleBinding") == []
    assert roles == {
        (NAMESPACE, "slipway-routes"): [
            {
                "apiGroups": ["gateway.networking.k8s.io"],
                "resources": ["httproutes", "grpcroutes"],
                "verbs": ["get", "create", "patch"],
            }
        ]
    }
    assert (binding["metadata"]["namespace"], binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (
        NAMESPACE,
        "Role",
        "slipway-routes",
    )
    (account,) = of_kind(flux("production"), "ServiceAccount")
    assert binding["subjects"] == [
        {
            "kind": "ServiceAccount",
            "name": account["metadata"]["name"],
            "namespace": account["metadata"]["namespace"],
        }
    ]
