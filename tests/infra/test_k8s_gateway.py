"""What the add-on is told of the Gateway's proxies: it allows each field, and they stand as the servers do."""

from typing import Any

import pytest
import yaml

from tests.infra.k8s import OVERLAYS, Resource, overlay, selects, the
from tests.infra.test_k8s_network import GATEWAY

ALLOWED = {
    "deployment": {"spec.template.spec.topologySpreadConstraints"},
    "horizontalPodAutoscaler": {"spec.minReplicas", "spec.maxReplicas"},
    "podDisruptionBudget": {"spec.minAvailable", "spec.unhealthyPodEvictionPolicy"},
}
"""Of the add-on's list of fields (AKS, "Resource customization allowlist"), those that we use."""


def told(resources: list[Resource]) -> dict[str, Any]:
    """What the ConfigMap that the Gateway names says, read."""
    gateway = the(resources, "Gateway", "slipway")
    found = gateway["spec"]["infrastructure"]["parametersRef"]
    assert (found["group"], found["kind"]) == ("", "ConfigMap")
    config = the(resources, "ConfigMap", found["name"])
    assert config["metadata"]["namespace"] == gateway["metadata"]["namespace"], (
        "a Gateway names one of its own namespace"
    )
    return {kind: yaml.safe_load(text) for kind, text in config["data"].items()}


def _fields(value: Any, where: str = "") -> set[str]:
    if not isinstance(value, dict):
        return {where}
    return set().union(*(_fields(inner, f"{where}.{key}" if where else key) for key, inner in value.items()))


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_addon_allows_each_field(name: str) -> None:
    assert {kind: _fields(value) for kind, value in told(overlay(name)).items()} == ALLOWED


def test_proxies_are_spread_among_themselves_over_zones_and_nodes() -> None:
    spread = told(overlay("production"))["deployment"]["spec"]["template"]["spec"]["topologySpreadConstraints"]

    assert [(each["topologyKey"], each["whenUnsatisfiable"]) for each in spread] == [
        ("topology.kubernetes.io/zone", "ScheduleAnyway"),
        ("kubernetes.io/hostname", "ScheduleAnyway"),
    ]
    assert all(selects(each["labelSelector"], dict([GATEWAY.label])) for each in spread)


def test_one_of_them_may_go() -> None:
    found = told(overlay("production"))

    assert (
        found["horizontalPodAutoscaler"]["spec"]["minReplicas"] > found["podDisruptionBudget"]["spec"]["minAvailable"]
    )


def test_the_way_in_is_of_the_network_unless_an_overlay_opens_it() -> None:
    annotations = the(overlay("production"), "Gateway", "slipway")["spec"]["infrastructure"]["annotations"]

    assert annotations == {"service.beta.kubernetes.io/azure-load-balancer-internal": "true"}
