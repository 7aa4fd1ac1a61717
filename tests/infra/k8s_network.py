"""What NetworkPolicies allow, as Kubernetes defines it and Cilium keeps it.

A pod that some policy selects for a direction may speak in it only as one of these allows. A connection is allowed
where both ends allow it; an answer to one always is. Cilium's is that an `ipBlock` never selects a pod or a node. Left
out, as no policy can forbid it: a node reaches its own pods, which is how probes work.
"""

import ipaddress
from dataclasses import dataclass, field

from tests.infra.k8s import Resource, of_kind, selects

_KNOWN = {"podSelector", "policyTypes", "ingress", "egress"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod, by what policies see of it."""

    namespace: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Something outside the cluster."""

    ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster: where a load balancer's traffic seems to come from."""


type End = Pod | Address | Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Who asks whom, where."""

    source: End
    target: End
    port: int
    protocol: str = "TCP"


def allowed(resources: list[Resource], connection: Connection) -> bool:
    """Whether the policies let a connection be made."""
    policies = of_kind(resources, "NetworkPolicy")
    return _lets(policies, connection, "Egress") and _lets(policies, connection, "Ingress")


def _lets(policies: list[Resource], connection: Connection, direction: str) -> bool:
    outward = direction == "Egress"
    pod, other = (connection.source, connection.target) if outward else (connection.target, connection.source)
    if not isinstance(pod, Pod):
        return True
    policed = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"]
        and policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], pod.labels)
    ]
    if not policed:
        return True
    for spec in policed:
        assert spec.keys() <= _KNOWN, spec
        for rule in spec.get(direction.lower(), []):
            peers = rule.get("to" if outward else "from")
            if _of_port(rule, connection) and (peers is None or any(_is(peer, other, pod.namespace) for peer in peers)):
                return True
    return False


def _of_port(rule: Resource, connection: Connection) -> bool:
    ports = rule.get("ports")
    return ports is None or any((p["protocol"], p["port"]) == (connection.protocol, connection.port) for p in ports)


def _is(peer: Resource, end: End, namespace: str) -> bool:
    if "ipBlock" in peer:
        if not isinstance(end, Address):
            return False
        ip, block = ipaddress.ip_address(end.ip), peer["ipBlock"]
        inside = ip in ipaddress.ip_network(block["cidr"])
        return inside and not any(ip in ipaddress.ip_network(cidr) for cidr in block.get("except", []))
    if not isinstance(end, Pod):
        return False
    if "namespaceSelector" in peer:
        here = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": end.namespace})
    else:
        here = end.namespace == namespace
    return here and selects(peer.get("podSelector", {}), end.labels)
