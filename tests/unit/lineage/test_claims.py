"""What an id claims against what the audit holds: a claim is borne out exactly where the plan's own rules allow it."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.audit.chain import AuditEvent, AuditHead, next_event
from shared.core.errors import ConflictError
from shared.core.ids import EndpointName
from shared.lineage.claims import CLOCK_SKEW, Publication, check_claim, promotion_of, publication_of
from shared.routing.assignment import route_for
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan
from shared.routing.prediction import PredictionId, Reason

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PUBLISHED_AT = NOW - timedelta(hours=2)
STREAM = "endpoint:churn"


def stream_of(*events: tuple[str, dict[str, Any]]) -> list[AuditEvent]:
    """A chain of events, a minute apart."""
    head, chain = AuditHead(), []
    for number, (kind, data) in enumerate(events):
        event = next_event(head, stream=STREAM, at=PUBLISHED_AT + timedelta(minutes=number), kind=kind, data=data)
        head = AuditHead(seq=event.seq, hash=event.hash)
        chain.append(event)
    return chain


def route(version: int, role: Role, weight_bp: int, mirror_bp: int = 0) -> dict[str, Any]:
    return {
        "version": version,
        "role": role.value,
        "weight_bp": weight_bp,
        "mirror_bp": mirror_bp,
        "artifact_digest": f"{version}" * 64,
    }


def plan_data(candidate_bp: int) -> dict[str, Any]:
    """Stable 1, candidate 2 and shadow 3."""
    routes = [
        route(1, Role.STABLE, FULL_WEIGHT_BP - candidate_bp),
        route(2, Role.CANDIDATE, candidate_bp),
        route(3, Role.SHADOW, 0, 500),
    ]
    return {"generation": 4, "rollout_id": "r", "routes": routes}


def published(data: dict[str, Any]) -> Publication:
    found = publication_of(stream_of(("stage_started", data)), data["generation"])
    assert found is not None
    return found


def claim(version: int, role: Role, reason: Reason, at: datetime = NOW) -> PredictionId:
    return PredictionId(
        endpoint=EndpointName("churn"),
        version=version,
        generation=4,
        role=role,
        reason=reason,
        pod="k3qx",
        at=at,
        count=0,
    )


def can_happen(data: dict[str, Any], version: int, role: Role, reason: Reason) -> bool:
    """Whether a server under this plan can give such an answer, asked of the plan itself."""
    routes = tuple(Route(**found, size_bytes=1) for found in data["routes"])
    plan = RoutePlan(endpoint="churn", generation=4, salt="s", routes=routes)
    found = next((r for r in plan.routes if r.version == version and r.role is role), None)
    if found is None:
        return False
    match reason:
        case Reason.PINNED:
            return True
        case Reason.FALLBACK:
            return found is plan.stable
        case Reason.ASSIGNED:
            # Stable also takes what a pod's guard keeps from the candidate, whatever its weight.
            drawn = {r.version for r in (route_for(plan, place) for place in range(0, FULL_WEIGHT_BP, 10)) if r}
            return found is plan.stable or version in drawn


@pytest.mark.parametrize("candidate_bp", [0, 1_000, FULL_WEIGHT_BP])
def test_a_claim_is_borne_out_exactly_where_a_server_could_have_made_it(candidate_bp: int) -> None:
    data = plan_data(candidate_bp)
    borne_out = 0
    for version, role, reason in itertools.product((1, 2, 3, 4), Role, Reason):
        asked = claim(version, role, reason)
        if can_happen(data, version, role, reason):
            check_claim(asked, published(data), NOW)
            borne_out += 1
        else:
            with pytest.raises(ConflictError, match="under generation 4 of endpoint churn"):
                check_claim(asked, published(data), NOW)
    assert borne_out == (5 if candidate_bp == 0 else 6)


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        (PUBLISHED_AT - CLOCK_SKEW, ""),
        (PUBLISHED_AT - CLOCK_SKEW - timedelta(seconds=1), "answered at 2026-02-28T21:54:59Z, and it was published at"),
        (NOW + CLOCK_SKEW, ""),
        (NOW + CLOCK_SKEW + timedelta(seconds=1), "which is still to come"),
    ],
)
def test_clocks_may_differ_by_so_much_and_no_more(at: datetime, reason: str) -> None:
    asked = claim(1, Role.STABLE, Reason.ASSIGNED, at)
    if not reason:
        check_claim(asked, published(plan_data(0)), NOW)
        return
    with pytest.raises(ConflictError, match=reason):
        check_claim(asked, published(plan_data(0)), NOW)


def test_a_refusal_says_what_the_plan_held() -> None:
    held = "version 1 as stable .9000 bp. and version 2 as candidate .1000 bp. and version 3 as shadow .0 bp."
    with pytest.raises(ConflictError, match=f"version 9 did not serve as candidate .*, which held {held}"):
        check_claim(claim(9, Role.CANDIDATE, Reason.ASSIGNED), published(plan_data(1_000)), NOW)


def test_of_an_event_without_routes_only_the_time_is_checked() -> None:
    earlier = published({"generation": 4, "rollout_id": "r"})
    assert earlier.routes == ()
    check_claim(claim(9, Role.CANDIDATE, Reason.ASSIGNED), earlier, NOW)
    with pytest.raises(ConflictError, match="still to come"):
        check_claim(claim(9, Role.CANDIDATE, Reason.ASSIGNED, NOW + timedelta(days=1)), earlier, NOW)


@given(st.lists(st.sampled_from(["step", "check_failed", "rollout_refused"]), max_size=30))
def test_each_generation_lasts_to_the_next_whatever_else_is_recorded(kinds: list[str]) -> None:
    events, generations = [], 0
    for kind in kinds:
        generations += kind == "step"
        events.append((kind, {"generation": generations} if kind == "step" else {"reason": "x"}))
    chain = stream_of(*events)
    times = [event.at for event in chain if event.kind == "step"]
    for generation in range(1, generations + 1):
        found = publication_of(chain, generation)
        assert found is not None
        assert found.event.at == times[generation - 1]
        assert found.superseded_at == (times[generation] if generation < generations else None)
    assert publication_of(chain, generations + 1) is None


def test_the_promotion_of_a_stable_version_is_the_latest_before_its_generation() -> None:
    chain = stream_of(
        ("rollout_promoted", {"generation": 1, "version": 1}),
        ("rollout_promoted", {"generation": 2, "version": 2}),
        ("rollout_promoted", {"generation": 3, "version": 1}),
        ("rollout_started", {"generation": 4, "version": 5}),
        ("rollout_promoted", {"generation": 5, "version": 5}),
    )

    def promoted(version: int, generation: int) -> int | None:
        publication = publication_of(chain, generation)
        assert publication is not None
        event = promotion_of(chain, version, publication)
        return event.seq if event else None

    assert [promoted(1, generation) for generation in range(1, 6)] == [1, None, 3, 3, None]
    assert promoted(2, 2) == 2
    assert promoted(5, 4) is None
    assert promoted(5, 5) == 5


def test_routes_that_are_none_are_no_routes() -> None:
    with pytest.raises(ValidationError):
        publication_of(stream_of(("stage_started", {"generation": 1, "routes": [{"version": 1}]})), 1)
