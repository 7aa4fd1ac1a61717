"""The Gateway's routes: whose they are, what they match, and that with the pods they come to the plan's weights."""

import json
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from shared.core.slots import Slot
from shared.rollout.gateway import backend_name, gateway_routes, manifest_blob_name, route_name, weights_of
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan

SLOTS: tuple[Slot | None, ...] = (None, *Slot)
LABEL = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


def _plan(*given: tuple[int, Role, int, Slot | None], endpoint: str = "churn") -> RoutePlan:
    routes = tuple(
        Route(version=version, role=role, weight_bp=weight_bp, artifact_digest="0" * 64, size_bytes=1, slot=slot)
        for version, role, weight_bp, slot in given
    )
    return RoutePlan(endpoint=endpoint, generation=7, rollout_id="rollout-2", salt="s", routes=routes)


@st.composite
def plans(draw: st.DrawFn) -> RoutePlan:
    """Every form of plan: nothing, one version with or without traffic, two in any pods, shadows beside stable."""
    stable, candidate = draw(st.sampled_from(SLOTS)), draw(st.sampled_from(SLOTS))
    weight_bp = draw(st.integers(0, FULL_WEIGHT_BP))
    form = draw(st.sampled_from(["none", "first", "stable", "both", "shadows"]))
    match form:
        case "none":
            return _plan()
        case "first":
            return _plan((1, Role.CANDIDATE, draw(st.sampled_from([0, FULL_WEIGHT_BP])), candidate))
        case "stable":
            return _plan((1, Role.STABLE, FULL_WEIGHT_BP, stable))
        case "shadows":
            shadows = [(n, Role.SHADOW, 0, None) for n in range(2, 2 + draw(st.integers(1, 11)))]
            return _plan((1, Role.STABLE, FULL_WEIGHT_BP, None), *shadows)
        case _:
            assume(stable is None or stable is not candidate)
            both = (1, Role.STABLE, FULL_WEIGHT_BP - weight_bp, stable), (2, Role.CANDIDATE, weight_bp, candidate)
            return _plan(*both)


def _item(plan: RoutePlan, kind: str) -> dict[str, Any]:
    (found,) = [item for item in gateway_routes(plan)["items"] if item["kind"] == kind]
    return dict(found)


def _drawn(plan: RoutePlan, kind: str) -> dict[str, int]:
    """The backends of the rule that takes who names no version."""
    return {ref["name"]: ref["weight"] for ref in _item(plan, kind)["spec"]["rules"][-1]["backendRefs"]}


@settings(max_examples=60)
@given(plan=plans(), kind=st.sampled_from(["HTTPRoute", "GRPCRoute"]))
def test_the_gateway_s_share_of_a_version_s_pods_times_its_share_there_is_the_plan_s_weight(
    plan: RoutePlan, kind: str
) -> None:
    backends = _drawn(plan, kind)
    assert sum(backends.values()) == FULL_WEIGHT_BP
    reached = {backend_name(plan.endpoint, slot): slot for slot in SLOTS}
    assert backends.keys() <= reached.keys()
    shares: dict[int, Fraction] = {}
    for name, weight in backends.items():
        for route in plan.for_slot(reached[name]).routes:
            shares[route.version] = Fraction(weight * route.weight_bp, FULL_WEIGHT_BP)
    assert shares == {route.version: route.weight_bp for route in plan.routes}


@settings(max_examples=60)
@given(plan=plans())
def test_who_names_a_version_reaches_pods_that_have_it_and_no_others(plan: RoutePlan) -> None:
    for kind in ("HTTPRoute", "GRPCRoute"):
        *pinned, _ = _item(plan, kind)["spec"]["rules"]
        assert len(pinned) == len(plan.routes) <= 15, "the Gateway API allows 16 rules"
        for rule, route in zip(pinned, plan.routes, strict=True):
            (backend,) = rule["backendRefs"]
            assert backend["name"] == backend_name(plan.endpoint, route.slot)
            assert backend["weight"] > 0
            headers = rule["matches"][-1]["headers"]
            assert {h["name"]: h["value"] for h in headers} == {
                "x-slipway-endpoint": plan.endpoint,
                "x-slipway-version": str(route.version),
            }


def test_the_routes_of_a_canary_in_pods_of_its_own() -> None:
    plan = _plan((1, Role.STABLE, 9_000, None), (2, Role.CANDIDATE, 1_000, Slot.BLUE))
    http, grpc = gateway_routes(plan)["items"]
    assert http["metadata"] == {
        "name": "slipway-serving-churn",
        "namespace": "slipway",
        "labels": {"app.kubernetes.io/part-of": "slipway"},
        "annotations": {"slipway.dev/generation": "7", "slipway.dev/rollout": "rollout-2"},
    }
    assert http["spec"]["parentRefs"] == [
        {"name": "slipway", "namespace": "slipway-gateway", "sectionName": "https"},
    ]
    assert grpc["metadata"] == http["metadata"]
    assert grpc["spec"]["parentRefs"][0]["sectionName"] == "grpc"
    first, second, drawn = http["spec"]["rules"]
    by_header = {
        "path": {"type": "PathPrefix", "value": "/v2/models/churn"},
        "headers": [{"type": "Exact", "name": "x-slipway-version", "value": "2"}],
    }
    assert by_header in second["matches"]
    assert first["matches"][0]["path"] == {"type": "PathPrefix", "value": "/v2/models/churn/versions/1"}
    assert second["backendRefs"] == [{"name": "slipway-serving-blue-churn", "port": 8080, "weight": 10_000}]
    named = [{"type": "Exact", "name": "x-slipway-endpoint", "value": "churn"}]
    assert drawn == {
        "matches": [
            {"path": {"type": "PathPrefix", "value": "/v2/models/churn"}},
            {"path": {"type": "Exact", "value": "/predict"}, "method": "POST", "headers": named},
            {"path": {"type": "Exact", "value": "/feedback"}, "method": "POST", "headers": named},
        ],
        "backendRefs": [
            {"name": "slipway-serving", "port": 8080, "weight": 9_000},
            {"name": "slipway-serving-blue-churn", "port": 8080, "weight": 1_000},
        ],
        "timeouts": {"request": "60s"},
    }
    assert grpc["spec"]["rules"][-1] == {
        "matches": [
            {"method": {"type": "Exact", "service": "inference.GRPCInferenceService"}, "headers": named},
        ],
        "backendRefs": [
            {"name": "slipway-serving", "port": 8081, "weight": 9_000},
            {"name": "slipway-serving-blue-churn", "port": 8081, "weight": 1_000},
        ],
    }
    assert json.loads(json.dumps(gateway_routes(plan))) == gateway_routes(plan)


def test_a_candidate_without_traffic_has_a_backend_of_weight_0_and_what_nothing_serves_says_so_itself() -> None:
    warm = _plan((1, Role.STABLE, 10_000, Slot.GREEN), (2, Role.CANDIDATE, 0, Slot.BLUE))
    assert weights_of(warm) == {Slot.GREEN: 10_000, Slot.BLUE: 0}
    assert weights_of(_plan((1, Role.CANDIDATE, 0, Slot.BLUE))) == {Slot.BLUE: 10_000}
    assert weights_of(_plan()) == {None: 10_000}


@settings(max_examples=30)
@given(names=st.sets(LABEL | st.text(max_size=80), min_size=2, max_size=6))
def test_names_are_dns_labels_and_no_two_endpoints_share_one(names: set[str]) -> None:
    made = [make(name) for name in names for make in (route_name, _blue, _green)]
    assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name) for name in made)
    for make in (route_name, _blue, _green):
        assert len({make(name) for name in names}) == len(names)


@pytest.mark.parametrize("make", [route_name, lambda name: backend_name(name, Slot.GREEN)])
def test_a_name_that_was_cut_is_never_another_endpoint_s_whole_name(make: Any) -> None:
    cut = make("e" * 63)
    assert len(cut) == 63
    prefix = make("x").removesuffix("x")
    assert make(cut.removeprefix(prefix)) != cut


def test_where_they_are_stored() -> None:
    assert manifest_blob_name("churn") == "churn.routes.yaml"
    assert manifest_blob_name("kustomization") != "kustomization.yaml"
    assert backend_name("churn", None) == "slipway-serving"


def _blue(name: str) -> str:
    return backend_name(name, Slot.BLUE)


def _green(name: str) -> str:
    return backend_name(name, Slot.GREEN)
