"""The mesh lets in what the routes lead to, from the Gateway alone, and nothing that stays inside."""

from collections.abc import Callable

import pytest

from tests.infra.k8s import Resource, of_kind, overlay, pod_of, selects, the

GATEWAY = "cluster.local/ns/slipway-gateway/sa/slipway-istio"
"""The account that the add-on makes for a Gateway: its name and its class's."""
SERVING = "cluster.local/ns/slipway/sa/slipway-serving"


def lets(resources: list[Resource], to: str, *, by: str, port: int, method: str, path: str) -> bool:
    """Whether the policies of the mesh let a request to a Deployment's pods through, as Istio reads them.

    A pod that some ALLOW policy selects is asked only as one of these allows. What has no field of a policy is refused
    here, so that no test rests on a field that it does not read.
    """
    labels = pod_of(the(resources, "Deployment", to))["metadata"]["labels"]
    policies = [p["spec"] for p in of_kind(resources, "AuthorizationPolicy")]
    policing = [p for p in policies if selects(p.get("selector", {}), labels)]
    for policy in policing:
        assert policy.get("action", "ALLOW") == "ALLOW"
        for rule in policy.get("rules", []):
            sources = [source["source"]["principals"] for source in rule["from"]]
            operations = [operation["operation"] for operation in rule["to"]]
            if any(by in principals for principals in sources) and any(
                _is(operation, port, method, path) for operation in operations
            ):
                return True
    return not policing


def _is(operation: Resource, port: int, method: str, path: str) -> bool:
    assert operation.keys() <= {"ports", "methods", "paths"}
    return (
        str(port) in operation["ports"]
        and method in operation.get("methods", [method])
        and any(path.startswith(p[:-1]) if p.endswith("*") else path == p for p in operation["paths"])
    )


def _routed(resources: list[Resource]) -> list[tuple[int, str, str]]:
    """What the routes lead to: a port, a method and a path, one for each match."""
    matches = [m for rule in the(resources, "HTTPRoute", "slipway-serving")["spec"]["rules"] for m in rule["matches"]]
    (call,) = the(resources, "GRPCRoute", "slipway-serving")["spec"]["rules"][0]["matches"]
    found = [(8080, match.get("method", "GET"), match["path"]["value"]) for match in matches]
    found += [
        (8080, "POST", f"{m['path']['value']}/models/churn/infer") for m in matches if m["path"]["type"] != "Exact"
    ]
    return [*found, (8081, "POST", f"/{call['method']['service']}/ModelInfer")]


def _let(resources: list[Resource], by: str) -> list[bool]:
    return [
        lets(resources, "slipway-serving", by=by, port=port, method=method, path=path)
        for port, method, path in _routed(resources)
    ]


def test_the_gateway_may_ask_what_is_routed_and_nobody_else_may() -> None:
    resources = overlay("production-istio")

    assert len(_routed(resources)) == 6
    assert all(_let(resources, GATEWAY))
    assert not any(_let(resources, SERVING))
    assert not any(_let(resources, "cluster.local/ns/default/sa/default"))


@pytest.mark.parametrize(
    ("port", "method", "path"),
    [
        (8080, "POST", "/models/reload"),
        (8080, "GET", "/metrics"),
        (8080, "GET", "/ab-test/stats"),
        (8080, "GET", "/predict"),
        (8080, "GET", "/v2x"),
        (8081, "POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        (9999, "POST", "/predict"),
    ],
)
def test_the_gateway_may_not_ask_what_stays_inside(port: int, method: str, path: str) -> None:
    resources = overlay("production-istio")

    assert not lets(resources, "slipway-serving", by=GATEWAY, port=port, method=method, path=path)


def test_only_servers_send_spans() -> None:
    resources = overlay("production-istio")

    for sender, may in ((SERVING, True), (GATEWAY, False)):
        assert lets(resources, "slipway-otel-collector", by=sender, port=4318, method="POST", path="/v1/traces") is may


def test_every_pod_is_in_the_mesh_and_takes_mutual_tls_alone() -> None:
    resources = overlay("production-istio")

    assert the(resources, "PeerAuthentication", "default")["spec"] == {"mtls": {"mode": "STRICT"}}
    for deployment in of_kind(resources, "Deployment"):
        labels = pod_of(deployment)["metadata"]["labels"]
        assert labels["sidecar.istio.io/inject"] == "true"
        assert labels["istio.io/rev"].startswith("asm-")
    assert the(resources, "Gateway", "slipway")["spec"]["gatewayClassName"] == "istio"


def test_metrics_are_asked_of_the_sidecar_which_asks_the_server() -> None:
    resources = overlay("production-istio")
    (endpoint,) = the(resources, "PodMonitor", "slipway-serving")["spec"]["podMetricsEndpoints"]
    annotations = pod_of(the(resources, "Deployment", "slipway-serving"))["metadata"]["annotations"]
    (plain,) = the(overlay("production"), "PodMonitor", "slipway-serving")["spec"]["podMetricsEndpoints"]

    assert annotations == {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": "8080",
        "prometheus.io/path": plain["path"],
    }
    assert (endpoint["path"], endpoint["relabelings"][0]["replacement"]) == ("/stats/prometheus", "$1:15020")


BREAKS: list[tuple[str, Callable[[list[Resource]], object]]] = [
    ("another account", lambda r: _rule(r)["from"][0]["source"].update(principals=[SERVING])),
    ("a path less", lambda r: _rule(r)["to"][1]["operation"]["paths"].remove("/v2/*")),
    ("a method less", lambda r: _rule(r)["to"][0]["operation"].update(methods=["GET"])),
    ("a port less", lambda r: _rule(r)["to"].pop()),
    ("no policy but the denial", lambda r: r.remove(the(r, "AuthorizationPolicy", "gateway-to-serving"))),
]


def _rule(resources: list[Resource]) -> Resource:
    found: Resource = the(resources, "AuthorizationPolicy", "gateway-to-serving")["spec"]["rules"][0]
    return found


@pytest.mark.parametrize("broken", [case[1] for case in BREAKS], ids=[case[0] for case in BREAKS])
def test_what_is_broken_is_seen(broken: Callable[[list[Resource]], object]) -> None:
    resources = overlay("production-istio")

    broken(resources)

    assert not all(_let(resources, GATEWAY))
