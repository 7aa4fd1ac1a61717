"""Where a Gateway sends a request, by the rules of precedence of the Gateway API, over all routes of a listener.

A rule of one route may stand before another's of the same path: which, is decided by the whole, and not by who was
written first. Read here are the parts that our routes have: paths, methods, headers by exact value, gRPC's service.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.infra.k8s import Resource

_PARTS = {"path", "method", "headers"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One match of a route's rule, and the rule."""

    match: dict[str, Any]
    rule: dict[str, Any]
    rank: tuple[Any, ...]
    """The lower, the earlier it is looked at."""


def ways(routes: list[Resource]) -> list[Way]:
    """All matches of routes of one kind and listener, the one that is looked at first first.

    What ties is settled by age and name: routes are given the oldest first.
    """
    found = []
    for age, route in enumerate(routes):
        hosts = route["spec"].get("hostnames", [])
        named = (-max((len(host) for host in hosts), default=0),)
        for number, rule in enumerate(route["spec"]["rules"]):
            for place, match in enumerate(rule.get("matches", [{}])):
                assert match.keys() <= _PARTS, f"matches are read by {sorted(_PARTS)}: {match}"
                weight = _of_call(match) if route["kind"] == "GRPCRoute" else _of_request(match)
                rank = (*named, *weight, age, number, place)
                found.append(Way(match=match, rule=rule, rank=rank))
    return sorted(found, key=lambda way: way.rank)


def _of_request(match: dict[str, Any]) -> tuple[int, ...]:
    """Exact before a prefix, the longer before the shorter, a method before none, more headers before fewer."""
    path = match.get("path", {"type": "PathPrefix", "value": "/"})
    return (
        0 if path["type"] == "Exact" else 1,
        -len(path["value"]),
        0 if "method" in match else 1,
        -len(match.get("headers", [])),
    )


def _of_call(match: dict[str, Any]) -> tuple[int, ...]:
    method = match.get("method", {})
    return (-len(method.get("service", "")), -len(method.get("method", "")), -len(match.get("headers", [])))


def chosen(routes: list[Resource], method: str, path: str, headers: Mapping[str, str]) -> dict[str, int] | None:
    """The weights of the backends that a request is sent to by HTTPRoutes; None: 404."""
    for way in ways(routes):
        if "method" in way.match and way.match["method"] != method:
            continue
        if re.fullmatch(path_pattern(way.match), path) and _has(way.match, headers):
            return weights(way.rule)
    return None


def called(routes: list[Resource], service: str, metadata: Mapping[str, str]) -> dict[str, int] | None:
    """The weights of the backends that a call is sent to by GRPCRoutes; None: unimplemented."""
    for way in ways(routes):
        if way.match.get("method", {}).get("service", service) == service and _has(way.match, metadata):
            return weights(way.rule)
    return None


def weights(rule: dict[str, Any]) -> dict[str, int]:
    """The backends of a rule that have a share, and it."""
    return {each["name"]: each.get("weight", 1) for each in rule["backendRefs"] if each.get("weight", 1)}


def path_pattern(match: dict[str, Any]) -> str:
    """A regular expression for the paths of a match. A prefix is of whole segments."""
    path = match.get("path", {"type": "PathPrefix", "value": "/"})
    value = re.escape(path["value"].rstrip("/"))
    return re.escape(path["value"]) if path["type"] == "Exact" else rf"{value}(/[^|]*)?"


def headers_of(routes: list[Resource]) -> list[str]:
    """The names of all headers that some match looks at, in lower case."""
    return sorted({name for way in ways(routes) for name, _ in _wanted(way.match)})


def _wanted(match: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for header in match.get("headers", []):
        assert header.get("type", "Exact") == "Exact", f"headers are read by their exact value: {header}"
        yield header["name"].lower(), header["value"]


def _has(match: dict[str, Any], headers: Mapping[str, str]) -> bool:
    found = {name.lower(): value for name, value in headers.items()}
    return all(found.get(name) == value for name, value in _wanted(match))


def wanted_headers(match: dict[str, Any]) -> dict[str, str]:
    """What a match wants of headers, by their names in lower case."""
    return dict(_wanted(match))
