"""Every resource fits the schema of its kind: Kubernetes' own, and those of the kinds that add-ons bring."""

import copy
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]  # it has none
import pytest
import yaml

from tests.infra.k8s import MANIFESTS, OVERLAYS, VERSION, Resource, node_modules, of_kind, overlay, the, title

_OWN = {"v1", "apps/v1", "autoscaling/v2", "policy/v1", "networking.k8s.io/v1", "rbac.authorization.k8s.io/v1"}
"""The groups of Kubernetes itself that we use."""


def custom(resources: list[Resource]) -> list[Resource]:
    """The resources whose kinds Kubernetes itself does not know."""
    return [found for found in resources if found["apiVersion"] not in _OWN]


def problems(resources: list[Resource]) -> list[str]:
    """What is wrong with custom resources. Skips the test without node, or without the packages."""
    node, packages = shutil.which("node"), node_modules()
    if node is None or not (packages / "@kubernetes-models").is_dir():
        pytest.skip("node or the npm packages @kubernetes-models are not installed: set-up brings both")
    script = Path(__file__).with_name("validate_crds.js")
    run = subprocess.run(
        [node, script, packages], input=json.dumps(resources), capture_output=True, text=True, timeout=120, check=True
    )
    found: list[dict[str, Any]] = json.loads(run.stdout)
    return [f"{title(resources[each['index']])} {each['message']}" for each in found]


def test_kubernetes_own_kinds_fit_their_schemas() -> None:
    made = [found for name in OVERLAYS for found in overlay(name) if found["apiVersion"] in _OWN]
    own = {json.dumps(found, sort_keys=True): found for found in made}

    assert len(own) > 20
    for resource in own.values():
        assert kubernetes_validate.validate(resource, VERSION, strict=True) == VERSION


def test_a_misspelt_field_of_kubernetes_does_not_fit() -> None:
    deployment = the(overlay("production"), "Deployment", "slipway-serving")
    deployment["spec"]["template"]["spec"]["terminationGracePeriod"] = 1

    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(deployment, VERSION, strict=True)


def test_custom_kinds_fit_their_schemas() -> None:
    resources = [found for name in OVERLAYS for found in custom(overlay(name))]

    assert {found["kind"] for found in resources} == {
        "AuthorizationPolicy",
        "GRPCRoute",
        "Gateway",
        "HTTPRoute",
        "PeerAuthentication",
        "PodMonitor",
        "ScaledObject",
        "TriggerAuthentication",
    }
    assert problems(resources) == []


def test_what_custom_kinds_do_not_know_is_found() -> None:
    production = overlay("production")
    gateway, route = the(production, "Gateway", "slipway"), the(production, "HTTPRoute", "slipway-serving")
    call, monitor = the(production, "GRPCRoute", "slipway-serving"), the(production, "PodMonitor", "slipway-serving")
    scaled = the(overlay("production-keda"), "ScaledObject", "slipway-serving")
    (policy,) = [
        p
        for p in of_kind(overlay("production-istio"), "AuthorizationPolicy")
        if p["metadata"]["name"] == "gateway-to-serving"
    ]
    unknown = copy.deepcopy(route) | {"kind": "HttpRoute"}
    gateway["spec"]["listeners"][0]["tls"]["option"] = {}
    route["spec"]["rules"][0]["backendRefs"][0]["weigth"] = 5
    call["spec"]["rules"][0]["matches"][0]["method"]["name"] = "ModelInfer"
    monitor["spec"]["podMetricsEndpoints"][0]["every"] = "30s"
    scaled["spec"]["maxReplicas"] = 5
    policy["spec"]["rules"][0]["to"][0]["operation"]["path"] = ["/predict"]

    said = problems([gateway, route, call, monitor, scaled, policy, unknown])

    wanted = [
        "Gateway/slipway has the field /spec/listeners/0/tls/option,",
        "HTTPRoute/slipway-serving has the field /spec/rules/0/backendRefs/0/weigth,",
        "GRPCRoute/slipway-serving has the field /spec/rules/0/matches/0/method/name,",
        "PodMonitor/slipway-serving has the field /spec/podMetricsEndpoints/0/every,",
        "ScaledObject/slipway-serving has the field /spec/maxReplicas,",
        "gateway-to-serving has the field /spec/rules/0/to/0/operation/path,",
        "no schema for gateway.networking.k8s.io/v1 HttpRoute",
    ]
    assert [word in line for word, line in zip(wanted, said, strict=True)] == [True] * len(wanted), said


def test_a_value_that_custom_kinds_do_not_allow_is_found() -> None:
    production = overlay("production")
    route, gateway = the(production, "HTTPRoute", "slipway-serving"), the(production, "Gateway", "slipway")
    route["spec"]["rules"][0]["backendRefs"][0]["weight"] = -1
    gateway["spec"]["listeners"][0]["port"] = "https"

    assert ["does not fit" in line for line in problems([route, gateway])] == [True, True]


def test_every_manifest_is_used_by_some_overlay() -> None:
    def used(folder: Path) -> set[Path]:
        config = yaml.safe_load((folder / "kustomization.yaml").read_text("utf-8"))
        files = [folder / name for name in config.get("resources", []) + config.get("components", [])]
        files += [
            folder / name
            for g in config.get("configMapGenerator", [])
            for name in g.get("files", []) + g.get("envs", [])
        ]
        inside = [f.resolve() for f in files]
        return {folder / "kustomization.yaml"} | set().union(*(used(f) if f.is_dir() else {f} for f in inside))

    roots = [
        MANIFESTS / "namespaces",
        *(MANIFESTS / "overlays" / name for name in OVERLAYS),
        MANIFESTS / "components/otlp",
        MANIFESTS / "components/tokens",
    ]

    assert set().union(*map(used, roots)) == {f for f in MANIFESTS.rglob("*") if f.suffix in {".yaml", ".env"}}
