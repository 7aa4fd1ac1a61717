"""What a Gateway is to do for an endpoint whose versions have pods of their own: its routes, made of the plan alone.

A pod gives its version all that reaches it; which version a request reaches is drawn here, by the plan's weights, each
request anew. Pure: the same plan, the same routes. It names Services and nothing of what runs behind them, so that who
may write it can move traffic and run nothing (docs/adr/0019-slots.md).
"""

from hashlib import blake2b
from typing import Any

from shared.core.errors import InvalidInputError
from shared.core.ids import endpoint_name
from shared.core.slots import Slot
from shared.routing.plan import FULL_WEIGHT_BP, RoutePlan

NAMESPACE = "slipway"
SHARED_BACKEND = "slipway-serving"
"""The Service of the pods that endpoints share."""
ENDPOINT_HEADER = "x-slipway-endpoint"
"""By it a Gateway knows whom a request is to that names its endpoint nowhere in the path, as all of gRPC's."""
VERSION_HEADER = "x-slipway-version"
HTTP_PORT, GRPC_PORT = 8080, 8081
_GATEWAY = {"name": "slipway", "namespace": "slipway-gateway"}
_API = "gateway.networking.k8s.io/v1"
_GRPC_SERVICE = "inference.GRPCInferenceService"
_REQUEST_TIMEOUT = "60s"
"""Longer than the server's own, which answers with a reason."""
_LONGEST_NAME = 63
_HASHED = 10


def backend_name(endpoint: str, slot: Slot | None) -> str:
    """The name of the Service, and of the Deployment behind it, of an endpoint's pods. None: the shared ones.

    At most 63 characters. No two endpoints' names are one: a name that does not fit is cut, and ends in a hash.
    """
    return SHARED_BACKEND if slot is None else _named(f"{SHARED_BACKEND}-{slot}-", endpoint)


def route_name(endpoint: str) -> str:
    """The name of an endpoint's HTTPRoute and GRPCRoute."""
    return _named(f"{SHARED_BACKEND}-", endpoint)


def manifest_blob_name(endpoint: str) -> str:
    """Where the routes are stored, within the manifests container: never `kustomization.yaml`, which Flux would obey.

    What is JSON is YAML as well.
    """
    return f"{endpoint}.routes.yaml"


def gateway_routes(plan: RoutePlan) -> dict[str, Any]:
    """A List of the endpoint's HTTPRoute and GRPCRoute. The weights of each one's backends sum to 10,000."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            _route(plan, "HTTPRoute", "https", _http_rules(plan)),
            _route(plan, "GRPCRoute", "grpc", _grpc(plan)),
        ],
    }


def weights_of(plan: RoutePlan) -> dict[Slot | None, int]:
    """The share of an endpoint's requests that is to reach the pods of each slot, in basis points.

    A plan without traffic sends what comes to the pods of its candidate, and one without routes to the shared ones:
    they answer why nothing serves.
    """
    weights: dict[Slot | None, int] = {}
    for route in plan.routes:
        weights[route.slot] = weights.get(route.slot, 0) + route.weight_bp
    if not any(weights.values()):
        last = plan.routes[-1].slot if plan.routes else None
        weights[last] = FULL_WEIGHT_BP
    return weights


def _route(plan: RoutePlan, kind: str, listener: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    annotations = {"slipway.dev/generation": str(plan.generation), "slipway.dev/rollout": plan.rollout_id or ""}
    return {
        "apiVersion": _API,
        "kind": kind,
        "metadata": {
            "name": route_name(plan.endpoint),
            "namespace": NAMESPACE,
            "labels": {"app.kubernetes.io/part-of": "slipway"},
            "annotations": annotations,
        },
        "spec": {"parentRefs": [_GATEWAY | {"sectionName": listener}], "rules": rules},
    }


def _http_rules(plan: RoutePlan) -> list[dict[str, Any]]:
    """Who names a version gets it; the others are drawn for by the weights."""
    rules = []
    of_endpoint = _exactly(ENDPOINT_HEADER, plan.endpoint)
    for route in plan.routes:
        of_version = _exactly(VERSION_HEADER, str(route.version))
        matches = [
            _prefix(f"/v2/models/{plan.endpoint}/versions/{route.version}"),
            _prefix(f"/v2/models/{plan.endpoint}", of_version),
            _posted("/predict", of_endpoint, of_version),
        ]
        rules.append({"matches": matches, **_to(plan, {route.slot: FULL_WEIGHT_BP}, HTTP_PORT)})
    matches = [
        _prefix(f"/v2/models/{plan.endpoint}"),
        _posted("/predict", of_endpoint),
        _posted("/feedback", of_endpoint),
    ]
    rules.append({"matches": matches, **_to(plan, weights_of(plan), HTTP_PORT)})
    return [rule | {"timeouts": {"request": _REQUEST_TIMEOUT}} for rule in rules]


def _grpc(plan: RoutePlan) -> list[dict[str, Any]]:
    """As over HTTP, by metadata."""
    method = {"type": "Exact", "service": _GRPC_SERVICE}
    of_endpoint = _exactly(ENDPOINT_HEADER, plan.endpoint)
    rules = [
        {
            "matches": [{"method": method, "headers": [of_endpoint, _exactly(VERSION_HEADER, str(route.version))]}],
            **_to(plan, {route.slot: FULL_WEIGHT_BP}, GRPC_PORT),
        }
        for route in plan.routes
    ]
    drawn = {"matches": [{"method": method, "headers": [of_endpoint]}], **_to(plan, weights_of(plan), GRPC_PORT)}
    return [*rules, drawn]


def _to(plan: RoutePlan, weights: dict[Slot | None, int], port: int) -> dict[str, Any]:
    return {
        "backendRefs": [
            {"name": backend_name(plan.endpoint, slot), "port": port, "weight": weight}
            for slot, weight in weights.items()
        ]
    }


def _prefix(path: str, *headers: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {"path": {"type": "PathPrefix", "value": path}}
    return found | {"headers": list(headers)} if headers else found


def _posted(path: str, *headers: dict[str, str]) -> dict[str, Any]:
    return {"path": {"type": "Exact", "value": path}, "method": "POST", "headers": list(headers)}


def _exactly(name: str, value: str) -> dict[str, str]:
    return {"type": "Exact", "name": name, "value": value}


def _named(prefix: str, endpoint: str) -> str:
    # A name of 63 characters always ends in a hash, a shorter one never does: none of these is one of those.
    name = f"{prefix}{endpoint}"
    if len(name) < _LONGEST_NAME and _is_label(endpoint):
        return name
    kept = "".join(c if c.isascii() and (c.islower() or c.isdigit()) else "-" for c in endpoint)
    end = blake2b(endpoint.encode("utf-8", "surrogatepass"), digest_size=_HASHED // 2).hexdigest()
    room = _LONGEST_NAME - len(prefix) - 1 - len(end)
    return f"{prefix}{kept[:room]:-<{room}}-{end}"


def _is_label(endpoint: str) -> bool:
    try:
        return bool(endpoint_name(endpoint))
    except InvalidInputError:
        return False
