"""The routes that the control plane writes, applied beside those of the manifests: they fit, and lead right."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.core.slots import Slot
from shared.rollout.gateway import (
    ENDPOINT_HEADER,
    VERSION_HEADER,
    backend_name,
    gateway_routes,
    manifest_blob_name,
)
from shared.routing.plan import Role, RoutePlan
from tests.infra import k8s_flux, k8s_rules
from tests.infra.k8s import Resource, of_kind, overlay
from tests.infra.k8s_routing import called, chosen
from tests.infra.test_k8s_mesh import GATEWAY, lets
from tests.infra.test_k8s_schemas import problems
from tests.serving import models

SHARED, BLUE, GREEN = (backend_name("digits", slot) for slot in (None, Slot.BLUE, Slot.GREEN))
GRPC = "inference.GRPCInferenceService"


def plan(*routes: tuple[int, int, Slot | None], endpoint: str = "digits") -> RoutePlan:
    """A plan of versions by their number, weight and slot: the first stable, the second the candidate."""
    data = models.scaler(1.0)
    roles = (Role.STABLE, Role.CANDIDATE)
    made = [
        models.route(number, data, role=role, weight=weight, slot=slot)
        for (number, weight, slot), role in zip(routes, roles, strict=False)
    ]
    return models.plan(7, *made).model_copy(update={"endpoint": endpoint})


def blobs(*plans: RoutePlan) -> dict[str, bytes]:
    """What the control plane writes for some plans."""
    return {manifest_blob_name(each.endpoint): json.dumps(gateway_routes(each)).encode() for each in plans}


CANARY = plan((1, 8_000, None), (2, 2_000, Slot.BLUE))
NEXT = plan((2, 5_000, Slot.BLUE), (3, 5_000, Slot.GREEN))
PROMOTED = plan((2, 10_000, Slot.BLUE))
BACK = plan((4, 10_000, None))
PLANS = (CANARY, NEXT, PROMOTED, BACK)


def routes(given: RoutePlan) -> list[Resource]:
    """All routes in the cluster: the manifests', which are there first, and a plan's."""
    written: list[Resource] = gateway_routes(given)["items"]
    return of_kind(overlay("production-dedicated"), "HTTPRoute", "GRPCRoute") + written


@pytest.mark.parametrize("given", PLANS, ids=["canary", "next", "promoted", "back"])
def test_flux_applies_what_was_written_unchanged(given: RoutePlan, tmp_path: Path) -> None:
    others = [plan((9, 10_000, Slot.GREEN), endpoint=name) for name in ("a", "e" * 63)]
    written = blobs(given, *others)

    made = k8s_flux.applied(k8s_flux.taken(written, tmp_path), tmp_path / "applied")

    def by_name(items: list[Resource]) -> list[Resource]:
        return sorted(items, key=lambda item: (item["kind"], item["metadata"]["name"]))

    assert by_name(made) == by_name([item for each in (given, *others) for item in gateway_routes(each)["items"]])


def test_flux_takes_no_orders_from_a_blob_and_nothing_but_blobs_of_endpoints(tmp_path: Path) -> None:
    """One called kustomization.yaml would be obeyed: it might name files of the internet, or no route at all."""
    written = blobs(CANARY) | {"kustomization.yaml": b"{}", "x/y.yaml": b"{}", "notes.txt": b"", ".sourceignore": b""}

    assert k8s_flux.taken(written, tmp_path).keys() == {"digits.routes.yaml"}


@pytest.mark.parametrize("given", PLANS, ids=["canary", "next", "promoted", "back"])
def test_they_fit_their_schemas_and_keep_the_rules(given: RoutePlan) -> None:
    made = overlay("production-dedicated") + gateway_routes(given)["items"]

    assert problems(gateway_routes(given)["items"]) == []
    for rule in (k8s_rules.references_hold, k8s_rules.only_predictions_are_public):
        assert list(rule(made)) == []


def test_routes_to_pods_that_were_never_made_are_found() -> None:
    made = overlay("production") + gateway_routes(CANARY)["items"]

    assert f"leads to {BLUE}:8080, which there is not" in " | ".join(k8s_rules.references_hold(made))


def asked(given: RoutePlan, method: str, path: str, **headers: str) -> dict[str, int] | None:
    found = of_kind(routes(given), "HTTPRoute")
    return chosen(found, method, path, {name.replace("_", "-"): value for name, value in headers.items()})


OF_ENDPOINT = {ENDPOINT_HEADER.replace("-", "_"): "digits"}
OF_VERSION = OF_ENDPOINT | {VERSION_HEADER.replace("-", "_"): "2"}
DRAWN = {SHARED: 8_000, BLUE: 2_000}
REQUESTS: list[tuple[str, str, dict[str, str], dict[str, int] | None]] = [
    ("POST", "/v2/models/digits/infer", {}, DRAWN),
    ("GET", "/v2/models/digits", {}, DRAWN),
    ("POST", "/predict", OF_ENDPOINT, DRAWN),
    ("POST", "/feedback", OF_ENDPOINT, DRAWN),
    ("POST", "/v2/models/digits/versions/2/infer", {}, {BLUE: 10_000}),
    ("POST", "/v2/models/digits/versions/1/infer", {}, {SHARED: 10_000}),
    ("POST", "/predict", OF_VERSION, {BLUE: 10_000}),
    ("POST", "/v2/models/digits/infer", {"x_slipway_version": "2"}, {BLUE: 10_000}),
    ("GET", "/v2/models/digits", {"x_slipway_version": "1"}, {SHARED: 10_000}),
    # The path goes first: pods of version 1 say that the two do not agree.
    ("POST", "/v2/models/digits/versions/1/infer", {"x_slipway_version": "2"}, {SHARED: 10_000}),
    # Feedback is taken by any pod, and on any version.
    ("POST", "/feedback", OF_VERSION, DRAWN),
    # A version of an earlier day, or one that only begins alike: wherever the draw leads.
    ("POST", "/v2/models/digits/versions/22/infer", {}, DRAWN),
    ("POST", "/v2/models/digits/infer", {"x_slipway_version": "22"}, DRAWN),
    # Nothing of another endpoint's, and nobody's who names none.
    ("POST", "/predict", {}, {SHARED: 1}),
    ("POST", "/predict", {"x_slipway_version": "2"}, {SHARED: 1}),
    ("POST", "/predict", {"x_slipway_endpoint": "other"}, {SHARED: 1}),
    ("POST", "/v2/models/digits-2/infer", {}, {SHARED: 1}),
    ("POST", "/v2/models/digits-2/infer", {"x_slipway_version": "2"}, {SHARED: 1}),
    ("GET", "/v2/health/ready", {}, {SHARED: 1}),
    ("GET", "/openapi.json", {}, {SHARED: 1}),
    ("GET", "/predict", OF_ENDPOINT, None),
    ("GET", "/metrics", OF_ENDPOINT, None),
    ("POST", "/models/reload", OF_ENDPOINT, None),
]


@pytest.mark.parametrize(("method", "path", "headers", "wanted"), REQUESTS)
def test_a_request_is_led_where_the_plan_says(
    method: str, path: str, headers: dict[str, str], wanted: dict[str, int] | None
) -> None:
    assert asked(CANARY, method, path, **headers) == wanted


def test_a_call_is_led_where_the_plan_says() -> None:
    found = of_kind(routes(CANARY), "GRPCRoute")

    assert called(found, GRPC, {ENDPOINT_HEADER: "digits"}) == DRAWN
    assert called(found, GRPC, {ENDPOINT_HEADER: "digits", VERSION_HEADER: "2"}) == {BLUE: 10_000}
    assert called(found, GRPC, {}) == {SHARED: 1}
    assert called(found, "grpc.reflection.v1.ServerReflection", {ENDPOINT_HEADER: "digits"}) is None


@pytest.mark.parametrize(
    ("given", "wanted"),
    [(NEXT, {BLUE: 5_000, GREEN: 5_000}), (PROMOTED, {BLUE: 10_000}), (BACK, {SHARED: 10_000})],
)
def test_each_plan_has_its_shares(given: RoutePlan, wanted: dict[str, int]) -> None:
    assert asked(given, "POST", "/v2/models/digits/infer") == wanted
    assert asked(given, "POST", "/predict", **OF_ENDPOINT) == wanted


def test_a_route_that_names_its_host_would_go_before_all() -> None:
    """Why those of the manifests name none."""
    found = of_kind(routes(CANARY), "HTTPRoute")
    found[0]["spec"]["hostnames"] = ["predict.example.com"]

    assert chosen(found, "POST", "/v2/models/digits/infer", {}) == {SHARED: 1}


def test_the_mesh_lets_the_gateway_ask_what_they_lead_to() -> None:
    made = overlay("production-istio")
    rules = gateway_routes(CANARY)["items"][0]["spec"]["rules"]
    matches: list[dict[str, Any]] = [match for rule in rules for match in rule["matches"]]

    assert len(matches) > 4
    for match in matches:
        path = match["path"]["value"]
        assert lets(made, SHARED, by=GATEWAY, port=8080, method=match.get("method", "POST"), path=path)
