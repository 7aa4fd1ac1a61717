"""Each connection that Slipway makes is allowed by the NetworkPolicies, and others are not."""

from pathlib import Path

import pytest

from tests.infra.k8s import OVERLAYS, Resource, composed, of_kind, overlay, pod_of, the
from tests.infra.k8s_network import Address, Connection, End, Node, Pod, allowed

# As the cluster labels them; the tests below hold that our own are labelled so.
SERVING = Pod(namespace="slipway", labels={"app.kubernetes.io/name": "slipway-serving"})
COLLECTOR = Pod(namespace="slipway", labels={"app.kubernetes.io/name": "slipway-otel-collector"})
GATEWAY = Pod(namespace="slipway-gateway", labels={"gateway.networking.k8s.io/gateway-name": "slipway"})
OTHER_GATEWAY = Pod(namespace="slipway-gateway", labels={"gateway.networking.k8s.io/gateway-name": "other"})
DNS = Pod(namespace="kube-system", labels={"k8s-app": "kube-dns"})
PROMETHEUS = Pod(namespace="kube-system", labels={"rsName": "ama-metrics"})
ISTIOD = Pod(namespace="aks-istio-system", labels={"app": "istiod"})
JAEGER = Pod(namespace="observability", labels={"app": "jaeger"})
API_SERVER = Address(ip="10.0.0.1")
STRANGER = Pod(namespace="default", labels={"app.kubernetes.io/name": "slipway-serving"})
NEIGHBOUR = Pod(namespace="slipway", labels={"app.kubernetes.io/name": "something"})
STORAGE = Address(ip="10.20.1.4")
"""In the subnet of the private endpoints."""
ENTRA = Address(ip="20.190.151.7")
INGESTION = Address(ip="51.140.60.1")
METADATA, WIRE_SERVER = Address(ip="169.254.169.254"), Address(ip="168.63.129.16")
"""What tells a machine its identity, and what tells it its secrets."""
FUNCTIONS = Address(ip="10.20.0.4")
CLIENT, INTERNET = Address(ip="203.0.113.9"), Address(ip="93.184.215.14")

type Wanted = tuple[End, End, int]

EVERYWHERE: list[Wanted] = [
    (GATEWAY, SERVING, 8080),
    (GATEWAY, SERVING, 8081),
    (GATEWAY, ISTIOD, 15012),
    (SERVING, STORAGE, 443),
    (SERVING, ENTRA, 443),
    (SERVING, COLLECTOR, 4318),
    (COLLECTOR, ENTRA, 443),
    (COLLECTOR, INGESTION, 443),
    (CLIENT, GATEWAY, 443),
    (Node(), GATEWAY, 443),
    (Node(), GATEWAY, 15021),
    (SERVING, DNS, 53),
    (COLLECTOR, DNS, 53),
    (GATEWAY, DNS, 53),
]
WITHOUT_MESH: list[Wanted] = [(PROMETHEUS, SERVING, 8080)]
IN_MESH: list[Wanted] = [(PROMETHEUS, SERVING, 15020), (SERVING, ISTIOD, 15012), (COLLECTOR, ISTIOD, 15012)]
NEVER: list[Wanted] = [
    (STRANGER, SERVING, 8080),
    (NEIGHBOUR, SERVING, 8080),
    (OTHER_GATEWAY, SERVING, 8080),
    (COLLECTOR, SERVING, 8080),
    (SERVING, SERVING, 8080),
    (CLIENT, SERVING, 8080),
    (GATEWAY, SERVING, 22),
    (GATEWAY, COLLECTOR, 4318),
    (PROMETHEUS, SERVING, 8081),
    (STRANGER, COLLECTOR, 4318),
    (CLIENT, GATEWAY, 80),
    (CLIENT, GATEWAY, 15000),
    (SERVING, STORAGE, 80),
    (SERVING, FUNCTIONS, 443),
    (SERVING, INGESTION, 443),
    (SERVING, INTERNET, 443),
    (SERVING, METADATA, 80),
    (SERVING, METADATA, 443),
    (SERVING, API_SERVER, 443),
    (SERVING, GATEWAY, 443),
    (COLLECTOR, STORAGE, 443),
    (COLLECTOR, METADATA, 443),
    (COLLECTOR, WIRE_SERVER, 443),
    (COLLECTOR, API_SERVER, 443),
    (COLLECTOR, JAEGER, 4317),
    (GATEWAY, STORAGE, 443),
    (GATEWAY, INTERNET, 443),
    (GATEWAY, METADATA, 80),
    (NEIGHBOUR, INTERNET, 443),
    (STRANGER, NEIGHBOUR, 8080),
    (OTHER_GATEWAY, INTERNET, 443),
    (STRANGER, OTHER_GATEWAY, 443),
]


def _all(resources: list[Resource], wanted: list[Wanted]) -> list[bool]:
    return [allowed(resources, Connection(source=source, target=target, port=port)) for source, target, port in wanted]


def _wanted(name: str) -> list[Wanted]:
    return EVERYWHERE + (IN_MESH if name == "production-istio" else WITHOUT_MESH)


@pytest.mark.parametrize("name", OVERLAYS)
def test_each_real_connection_is_allowed(name: str) -> None:
    wanted = _wanted(name)

    assert list(zip(wanted, _all(overlay(name), wanted), strict=True)) == [(each, True) for each in wanted]


@pytest.mark.parametrize("name", OVERLAYS)
def test_no_other_connection_is_allowed(name: str) -> None:
    never = NEVER + (WITHOUT_MESH if name == "production-istio" else IN_MESH)

    assert list(zip(never, _all(overlay(name), never), strict=True)) == [(each, False) for each in never]


def test_names_are_asked_over_both_protocols() -> None:
    for protocol in ("UDP", "TCP"):
        asked = Connection(source=SERVING, target=DNS, port=53, protocol=protocol)
        assert allowed(overlay("production"), asked)


def test_each_policy_is_needed() -> None:
    """Without any one of them something that is wanted is refused, or something that is not is allowed."""
    wanted = _wanted("production-istio")
    never = NEVER + WITHOUT_MESH
    resources = overlay("production-istio")
    for policy in of_kind(resources, "NetworkPolicy"):
        left = [found for found in resources if found is not policy]
        assert not all(_all(left, wanted)) or any(_all(left, never)), policy["metadata"]


def test_spans_reach_jaeger_with_the_component_alone(tmp_path: Path) -> None:
    with_jaeger = composed(tmp_path, "overlays/production", "components/otlp")

    assert _all(overlay("production"), [(COLLECTOR, JAEGER, 4317)]) == [False]
    assert _all(with_jaeger, [(COLLECTOR, JAEGER, 4317), (SERVING, JAEGER, 4317), (COLLECTOR, JAEGER, 22)]) == [
        True,
        False,
        False,
    ]


def test_the_pods_of_the_list_are_those_of_the_manifests() -> None:
    resources = overlay("production")

    for name, pod in (("slipway-serving", SERVING), ("slipway-otel-collector", COLLECTOR)):
        found = the(resources, "Deployment", name)
        assert found["metadata"]["namespace"] == pod.namespace
        assert pod.labels.items() <= pod_of(found)["metadata"]["labels"].items()
    gateway = the(resources, "Gateway", "slipway")["metadata"]
    assert (gateway["namespace"], gateway["name"]) == (GATEWAY.namespace, *GATEWAY.labels.values())
