"""Where a rollout stands: what it waits for in each state, and the least time that is left."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.alerts.documents import AlertRule
from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import Otherwise, RolloutPolicy, Stage, Strategy
from shared.rollout.alerting import troubles
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.rollbacks import Rollback, Trigger
from shared.rollout.standing import Standing, Waiting, standing

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
STAGES = (Stage(weight_bp=1_000, duration_s=300), Stage(weight_bp=5_000, duration_s=600, max_duration_s=900))
UNSURE = Verdict(check="error_rate", outcome=Outcome.INCONCLUSIVE, sentence="12 of 100 requests seen")
PASSES = Verdict(check="error_rate", outcome=Outcome.PASS, sentence="no proven harm")
FAILS = Verdict(check="p99_ms", outcome=Outcome.FAIL, sentence="too slow")
S = RolloutState


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def target(version: int) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


def stands(state: RolloutState, **more: Any) -> Standing:
    """How the rollout of `endpoint_in` stands."""
    endpoint = endpoint_in(state, **more)
    assert endpoint.rollout is not None
    return standing(endpoint, endpoint.rollout, NOW)


def endpoint_in(
    state: RolloutState, *, policy: RolloutPolicy | None = None, rolls_back: bool = False, **more: Any
) -> Endpoint:
    """The endpoint of a canary that is 100 s into its first stage, or into what `more` says."""
    given: dict[str, Any] = {
        "rollout_id": "r",
        "command_id": "c",
        "candidate": target(2),
        "stable": target(1),
        "policy": policy or RolloutPolicy(stages=STAGES, watch_s=200, load_timeout_s=50),
        "state": state,
        "stage": 0,
        "started_at": ago(500),
        "published_at": ago(120),
        "stage_started_at": ago(100),
        "next_tick_at": NOW,
        "requested_by": "ann",
        "progress": Progress(generation=7, pods={"p": PodSeen(sequence=1, generation=7, at=NOW, loaded=(1, 2))}),
    }
    rollout = Rollout.model_validate(given | more)
    rollback = Rollback(
        rollback_id="b",
        rollout_id="r",
        trigger=Trigger.LATENCY,
        from_version=2,
        to_version=1,
        generation=8,
        fault_at=NOW,
        detected_at=NOW,
        by="slipway",
        reason="slow",
    )
    return Endpoint(
        endpoint="m",
        stable=rollout.stable,
        rollout=rollout,
        generation=8 if rolls_back else 7,
        rollback=rollback if rolls_back else None,
    )


@pytest.mark.parametrize(
    ("state", "more", "waiting", "said"),
    [
        (S.LOADING, {"stage": None, "stage_started_at": None}, Waiting.PODS, "1 of 1 pods that report"),
        (S.PROGRESSING, {"stage_started_at": None}, Waiting.PODS, "the pods to apply the plan"),
        (S.PROGRESSING, {"verdicts": [PASSES]}, Waiting.TIME, "its stage's least time, 200 s more"),
        (S.PROGRESSING, {"verdicts": [PASSES, UNSURE]}, Waiting.EVIDENCE, "every gate to pass: 12 of 100"),
        (S.PROGRESSING, {"verdicts": [UNSURE, FAILS]}, Waiting.EVIDENCE, "every gate to pass: too slow"),
        (
            S.PROGRESSING,
            {"verdicts": [PASSES, UNSURE.model_copy(update={"advisory": True})]},
            Waiting.TIME,
            "its stage's least time",
        ),
        (
            S.PROGRESSING,
            {"stage_started_at": ago(301), "verdicts": [PASSES], "reason": "all gates pass; freeze window w is on"},
            Waiting.TICK,
            "the next tick; all gates pass; freeze window w is on",
        ),
        (S.PAUSED, {}, Waiting.PERSON, "slipway rollout resume m"),
        (S.HELD, {}, Waiting.PERSON, "slipway rollout resume, skip or abort m"),
        (S.AWAITING, {}, Waiting.APPROVAL, "somebody to approve of stage 2 of 2"),
        (S.AWAITING, {"stage": 1}, Waiting.APPROVAL, "the switch to all traffic"),
        (S.WATCHING, {"stage": 1, "verdicts": [PASSES]}, Waiting.TIME, "its watch period's least time, 100 s more"),
        (S.PROMOTED, {"ended_at": NOW}, Waiting.NOTHING, "nothing: it is promoted"),
        (S.ROLLED_BACK, {"ended_at": NOW, "rolls_back": True}, Waiting.PODS, "apply the rollback: 0 of 1 pods"),
    ],
)
def test_each_state_says_what_it_waits_for(state: S, more: dict[str, Any], waiting: Waiting, said: str) -> None:
    found = stands(state, **more)
    assert found.waiting is waiting
    assert said in found.sentence


ERRS = Verdict(check="revenue", outcome=Outcome.ERROR, sentence="the query could not be asked")
HOLD = RolloutPolicy(stages=STAGES, watch_s=200, max_stage_s=1_000, on_inconclusive=Otherwise.HOLD)


@pytest.mark.parametrize(
    ("more", "is_stuck"),
    [
        ({"verdicts": [ERRS], "errored_checks": 4}, False),
        ({"verdicts": [ERRS], "errored_checks": 5}, True),
        ({"verdicts": [UNSURE], "policy": HOLD, "stage_started_at": ago(1_000)}, False),
        ({"verdicts": [UNSURE], "policy": HOLD, "stage_started_at": ago(1_001)}, True),
        ({"verdicts": [PASSES], "policy": HOLD, "stage_started_at": ago(1_001)}, False),
        ({"verdicts": [UNSURE], "stage_started_at": ago(9_999)}, False),
        ({"state": S.PROGRESSING, "verdicts": [ERRS], "errored_checks": 5}, False),
    ],
)
def test_a_watch_that_comes_to_no_conclusion_waits_for_a_person_and_an_alert_says_so(
    more: dict[str, Any], *, is_stuck: bool
) -> None:
    given = {"state": S.WATCHING, "stage": 1, **more}
    assert (stands(**given).waiting is Waiting.PERSON) is is_stuck
    rules = [found.rule for found in troubles(endpoint_in(**given), NOW)]
    assert rules == ([AlertRule.ROLLOUT_HELD] if is_stuck else [])


@pytest.mark.parametrize(
    ("state", "more", "stage_left_s", "left_s"),
    [
        (S.LOADING, {"stage": None, "stage_started_at": None}, None, 300 + 600 + 200),
        (S.PROGRESSING, {}, 200, 200 + 600 + 200),
        (S.PROGRESSING, {"stage_started_at": None}, 300, 300 + 600 + 200),
        (S.PROGRESSING, {"stage": 1, "stage_started_at": ago(700)}, 0, 200),
        (S.WATCHING, {"stage": 1}, 100, 100),
        (S.PAUSED, {}, None, None),
        (S.AWAITING, {}, None, None),
        (S.ABORTED, {"ended_at": NOW}, None, None),
        (S.LOADING, {"stage": None, "stage_started_at": None, "stable": None}, None, 0),
    ],
)
def test_the_time_left_is_the_least_that_is_still_to_come(
    state: S, more: dict[str, Any], stage_left_s: float | None, left_s: float | None
) -> None:
    found = stands(state, **more)
    assert (found.stage_left_s, found.left_s) == (stage_left_s, left_s)


def test_a_shadow_alone_has_no_watch_period_to_come_and_a_split_no_end() -> None:
    shadow = RolloutPolicy(strategy=Strategy.SHADOW, shadow_s=150, watch_s=200)
    assert stands(S.PROGRESSING, policy=shadow).left_s == 50
    split = stands(S.PROGRESSING, policy=RolloutPolicy(strategy=Strategy.SPLIT, stages=STAGES))
    assert (split.waiting, split.left_s, split.stage_limit_s) == (Waiting.PERSON, None, None)


@pytest.mark.parametrize(
    ("state", "more", "age_s", "limit_s"),
    [
        (S.LOADING, {"stage": None, "stage_started_at": None}, 120, 50),
        (S.LOADING, {"stage": None, "stage_started_at": None, "resumed_at": ago(30)}, 30, 50),
        (S.PROGRESSING, {}, 100, 3_600),
        (S.PROGRESSING, {"stage": 1}, 100, 900),
        (S.WATCHING, {"stage": 1}, 100, 3_600),
        (S.HELD, {}, 100, None),
        (S.PROMOTED, {"ended_at": NOW}, None, None),
    ],
)
def test_a_stage_has_an_age_and_a_limit_where_something_bounds_it(
    state: S, more: dict[str, Any], age_s: float | None, limit_s: float | None
) -> None:
    found = stands(state, **more)
    assert (found.stage_age_s, found.stage_limit_s) == (age_s, limit_s)


BLOCKED: dict[str, Any] = {"blocked": "freeze window w is on", "verdicts": [PASSES]}
LOADED = Progress(generation=7, pods={"p": PodSeen(sequence=1, generation=7, at=NOW, loaded=(1, 2))})
UNLOADED = Progress(generation=7, pods={"p": PodSeen(sequence=1, generation=7, at=NOW, loaded=(1,))})


@pytest.mark.parametrize(
    ("state", "more", "limit_s"),
    [
        # It is never held for being blocked, however long that lasts.
        (S.PROGRESSING, BLOCKED, None),
        (S.LOADING, {**BLOCKED, "stage": None, "stage_started_at": None, "progress": LOADED}, None),
        # What a block does not keep up is bounded.
        (S.PROGRESSING, {**BLOCKED, "blocked": ""}, 3_600),
        (S.PROGRESSING, {**BLOCKED, "verdicts": [PASSES, UNSURE]}, 3_600),
        (S.PROGRESSING, {**BLOCKED, "stage_started_at": None}, 50),
        (S.LOADING, {**BLOCKED, "stage": None, "stage_started_at": None, "progress": UNLOADED}, 50),
        (S.WATCHING, {**BLOCKED, "stage": 1}, 3_600),
    ],
)
def test_a_stage_that_passes_and_is_blocked_has_no_limit(state: S, more: dict[str, Any], limit_s: float | None) -> None:
    assert stands(state, **more).stage_limit_s == limit_s


def test_the_pods_matter_while_it_is_under_way_and_until_its_rollback_is_applied() -> None:
    found = stands(S.PROGRESSING).convergence
    assert found is not None
    assert (found.ready, found.versions) == (("p",), (2,))
    back = stands(S.ROLLED_BACK, ended_at=NOW, rolls_back=True).convergence
    assert back is not None
    assert (back.ready, back.versions) == ((), ())
    assert stands(S.ABORTED, ended_at=NOW).convergence is None
