"""What NetworkPolicies allow, as Kubernetes defines it and Cilium keeps it.

A pod that some policy selects for a direction may speak in it only as one of these allows. A connection is allowed
where both ends allow it; an answer to one always is. Cilium's is that an `ipBlock` never selects a pod or a node. Left
out, as no policy can forbid it: a node reaches its own pods, which is how probes work.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from tests.infra.k8s import Resource, of_kind, selects

_KNOWN = {"podSelector", "policyTypes", "ingress", "egress"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod, by what policies see of it: its namespace, and one label."""

    namespace: str
    label: tuple[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Something outside the cluster."""

    ip: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A machine of the cluster: where a load balancer's traffic seems to come from."""


type End = Pod | Address | Node


type Lets = Callable[[End, int, str], bool]
"""Whether a pod may speak with an end, at a port (the asked one's), over a protocol."""


def may_ask(resources: list[Resource], pod: Pod) -> Lets:
    """What the policies let out of a pod. The other end may still refuse it."""
    return _lets(resources, pod, "Egress", "to")


def may_be_asked(resources: list[Resource], pod: Pod) -> Lets:
    """What the policies let into a pod. The other end may not be let out."""
    return _lets(resources, pod, "Ingress", "from")


def _lets(resources: list[Resource], pod: Pod, direction: str, peers: str) -> Lets:
    policing = [
        policy["spec"]
        for policy in of_kind(resources, "NetworkPolicy")
        if direction in policy["spec"]["policyTypes"]
        and policy["metadata"]["namespace"] == pod.namespace
        and selects(policy["spec"]["podSelector"], dict([pod.label]))
    ]
    assert all(spec.keys() <= _KNOWN for spec in policing), policing
    rules = [rule for spec in policing for rule in spec.get(direction.lower(), [])]

    def lets(end: End, port: int, protocol: str) -> bool:
        return not policing or any(
            _of_port(rule, port, protocol)
            and (peers not in rule or any(_is(peer, end, pod.namespace) for peer in rule[peers]))
            for rule in rules
        )

    return lets


def _of_port(rule: Resource, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    assert all(each.keys() == {"protocol", "port"} for each in ports or []), f"ports are read by number alone: {ports}"
    return ports is None or any((each["protocol"], each["port"]) == (protocol, port) for each in ports)


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
    return here and selects(peer.get("podSelector", {}), dict([end.label]))
