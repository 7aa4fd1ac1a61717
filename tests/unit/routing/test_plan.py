import pytest
from pydantic import ValidationError

from shared.routing.plan import Role, Route, RoutePlan, artifact_blob_name, plan_blob_name


def _route(version: int, role: Role, weight_bp: int) -> Route:
    return Route(version=version, role=role, weight_bp=weight_bp, artifact_digest="0" * 64, size_bytes=1)


def _plan(*routes: Route) -> RoutePlan:
    return RoutePlan(endpoint="churn", generation=1, salt="s", routes=routes)


@pytest.mark.parametrize(
    ("routes", "reason"),
    [
        ((_route(1, Role.STABLE, 9_000),), "sum to 9000"),
        ((_route(1, Role.STABLE, 9_000), _route(1, Role.CANDIDATE, 1_000)), "two routes"),
        ((_route(1, Role.STABLE, 9_000), _route(2, Role.STABLE, 1_000)), "more than one stable"),
        ((_route(1, Role.STABLE, 0), _route(2, Role.CANDIDATE, 0)), "sum to 0"),
        ((_route(1, Role.CANDIDATE, 10),), "sum to 10"),
    ],
)
def test_an_incoherent_plan_is_refused(routes: tuple[Route, ...], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        _plan(*routes)


def test_a_first_candidate_without_traffic_is_a_plan() -> None:
    plan = _plan(_route(1, Role.CANDIDATE, 0))
    assert plan.stable is None
    assert plan.candidate is not None


def test_a_plan_survives_its_own_json() -> None:
    plan = _plan(_route(1, Role.STABLE, 9_000), _route(2, Role.CANDIDATE, 1_000))
    assert RoutePlan.model_validate_json(plan.model_dump_json()) == plan


def test_blob_names() -> None:
    assert plan_blob_name("churn") == "churn.json"
    assert artifact_blob_name("ab") == "sha256/ab"
