"""Who may ask whom: exactly the connections that Slipway makes, out of all that there could be."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.infra.k8s import OVERLAYS, Resource, composed, of_kind, overlay, pod_of, the
from tests.infra.k8s_network import Address, End, Node, Pod, may_ask, may_be_asked

_NAME, _GATEWAY_NAME = "app.kubernetes.io/name", "gateway.networking.k8s.io/gateway-name"

# Ours, as the cluster labels them, and what might come to stand beside them.
SERVING = Pod(namespace="slipway", label=(_NAME, "slipway-serving"))
COLLECTOR = Pod(namespace="slipway", label=(_NAME, "slipway-otel-collector"))
NEIGHBOUR = Pod(namespace="slipway", label=(_NAME, "something"))
GATEWAY = Pod(namespace="slipway-gateway", label=(_GATEWAY_NAME, "slipway"))
OTHER_GATEWAY = Pod(namespace="slipway-gateway", label=(_GATEWAY_NAME, "other"))
OURS = (SERVING, COLLECTOR, NEIGHBOUR, GATEWAY, OTHER_GATEWAY)

# The cluster's, each with one that is in its place and is not it, and one that calls itself so elsewhere.
DNS = Pod(namespace="kube-system", label=("k8s-app", "kube-dns"))
PROMETHEUS = Pod(namespace="kube-system", label=("rsName", "ama-metrics"))
ISTIOD = Pod(namespace="aks-istio-system", label=("app", "istiod"))
JAEGER = Pod(namespace="observability", label=("app", "jaeger"))
CLUSTERS = (DNS, PROMETHEUS, ISTIOD, JAEGER)
STRANGERS = (
    Pod(namespace="kube-system", label=("app", "anything")),
    Pod(namespace="aks-istio-system", label=("app", "anything")),
    *(Pod(namespace="default", label=one.label) for one in (SERVING, COLLECTOR, GATEWAY, DNS, PROMETHEUS, ISTIOD)),
)

STORAGE, FUNCTIONS, API_SERVER = Address(ip="10.20.1.4"), Address(ip="10.20.0.4"), Address(ip="10.0.0.1")
"""In the subnet of the private endpoints, in that of the functions app, and Kubernetes' own."""
ENTRA = Address(ip="20.190.151.7")
METADATA, WIRE_SERVER = Address(ip="169.254.169.254"), Address(ip="168.63.129.16")
"""What tells a machine who it is, and what tells it its secrets."""
INGESTION, CLIENT = Address(ip="51.140.60.1"), Address(ip="203.0.113.9")
ADDRESSES = (STORAGE, FUNCTIONS, API_SERVER, ENTRA, METADATA, WIRE_SERVER, INGESTION, CLIENT)
PUBLIC = (ENTRA, INGESTION, CLIENT)

EVERYBODY: tuple[End, ...] = (*OURS, *CLUSTERS, *STRANGERS, *ADDRESSES, Node())
_DNS_PORT = 53
PORTS = (22, 53, 80, 443, 4317, 4318, 8080, 8081, 13133, 15000, 15012, 15020, 15021)

type Side = tuple[End, int]
type Table = Mapping[Pod, frozenset[Side]]


def asking(*, mesh: bool = False, jaeger: bool = False) -> Table:
    """Whom each of ours may ask."""
    of_all: list[Side] = [(DNS, 53), *([(ISTIOD, 15012)] if mesh else [])]
    collector: list[Side] = [*((end, 443) for end in PUBLIC), *([(JAEGER, 4317)] if jaeger else [])]
    return {
        SERVING: frozenset([(STORAGE, 443), (ENTRA, 443), (COLLECTOR, 4318), *of_all]),
        COLLECTOR: frozenset([*collector, *of_all]),
        NEIGHBOUR: frozenset(of_all),
        GATEWAY: frozenset([(SERVING, 8080), (SERVING, 8081), (ISTIOD, 15012), (DNS, 53)]),
        OTHER_GATEWAY: frozenset([(DNS, 53)]),
    }


def asked(*, mesh: bool = False) -> Table:
    """Who may ask each of ours."""
    return {
        SERVING: frozenset({(GATEWAY, 8080), (GATEWAY, 8081), (PROMETHEUS, 15020 if mesh else 8080)}),
        COLLECTOR: frozenset({(SERVING, 4318)}),
        NEIGHBOUR: frozenset(),
        GATEWAY: frozenset((end, port) for end in EVERYBODY if end != GATEWAY for port in (443, 15021)),
        OTHER_GATEWAY: frozenset(),
    }


def told(resources: list[Resource]) -> tuple[Table, Table]:
    """The same two tables, as the policies have them."""
    out, into = (
        {
            pod: frozenset(
                (end, port)
                for end in EVERYBODY
                for port in PORTS
                if end != pod and lets(end, port, "UDP" if port == _DNS_PORT else "TCP")
            )
            for pod, lets in ((pod, side(resources, pod)) for pod in OURS)
        }
        for side in (may_ask, may_be_asked)
    )
    return out, into


@pytest.mark.parametrize("name", OVERLAYS)
def test_exactly_the_connections_that_are_made_are_allowed(name: str) -> None:
    mesh = name == "production-istio"

    out, into = told(overlay(name))

    assert out == asking(mesh=mesh)
    assert into == asked(mesh=mesh)


def test_names_are_asked_over_tcp_too() -> None:
    for pod in OURS:
        assert may_ask(overlay("production"), pod)(DNS, _DNS_PORT, "TCP")


def test_spans_reach_jaeger_with_the_component_alone(tmp_path: Path) -> None:
    out, into = told(composed(tmp_path, "overlays/production", "components/otlp"))

    assert out == asking(jaeger=True)
    assert into == asked()


def test_each_policy_is_needed_and_none_says_too_little() -> None:
    """Without any one policy, and without any one thing that it says, others may speak to each other."""
    resources = overlay("production-istio")
    policies = of_kind(resources, "NetworkPolicy")
    right = told(policies)
    for policy in policies:
        others = [found for found in policies if found is not policy]
        changed = [("gone", others), *((how, [*others, wider]) for how, wider in _wider(policy))]
        unseen = [how for how, left in changed if told(left) == right]
        assert unseen == [], f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


def _wider(policy: Resource) -> Iterator[tuple[str, Resource]]:
    """A policy with one thing less that it says: of a rule its ports or its peers, of a peer one of its parts."""
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for number, rule in enumerate(policy["spec"].get(direction, [])):
            for part in rule:
                made = copy.deepcopy(policy)
                del made["spec"][direction][number][part]
                yield f"{direction} {number} without {part}", made
            for place, peer in enumerate(rule.get(peers, [])):
                for part in peer if len(peer) > 1 else ():
                    made = copy.deepcopy(policy)
                    del made["spec"][direction][number][peers][place][part]
                    yield f"{direction} {number} without {part}", made
    if policy["spec"]["podSelector"]:
        yield "for all pods", policy | {"spec": policy["spec"] | {"podSelector": {}}}


def test_the_pods_of_the_list_are_those_of_the_manifests() -> None:
    resources = overlay("production")

    for name, pod in (("slipway-serving", SERVING), ("slipway-otel-collector", COLLECTOR)):
        found = the(resources, "Deployment", name)
        assert found["metadata"]["namespace"] == pod.namespace
        assert pod.label in pod_of(found)["metadata"]["labels"].items()
    gateway = the(resources, "Gateway", "slipway")["metadata"]
    assert (gateway["namespace"], gateway["name"]) == (GATEWAY.namespace, GATEWAY.label[1])
