"""What a policy's rules measure beside traffic: drift by the latest report, and how the rollout goes on."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from shared.alerts.beside import measured_beside
from shared.alerts.rules import Judged, judge
from shared.registry.alert_policy import AlertMetric, AlertRulePolicy
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.watching.documents import DriftReport
from tests.unit.functions.test_rollout_metrics import NOW, endpoint
from tests.unit.observing.test_metrics import report


def rule(metric: AlertMetric, **given: Any) -> AlertRulePolicy:
    return AlertRulePolicy(name="own", metric=metric, **given)


def judged(own: AlertRulePolicy, of: Endpoint, told: DriftReport | None = None) -> Judged:
    beside = partial(measured_beside, endpoint=of, report=told, now=NOW)
    found = {one.subject: one for one in judge("m", None, [own], NOW, beside=beside)}
    return found["endpoint:m:own"]


def test_drift_is_that_of_the_feature_that_lies_farthest() -> None:
    one = report()
    assert one.latest is not None
    far = one.latest.model_copy(update={"psi": {"age": 0.31, "income": 0.7, "city": 0.0}, "rows": 500})
    told = one.model_copy(update={"latest": far})
    over = judged(rule(AlertMetric.DRIFT_PSI, above=0.5), Endpoint(endpoint="m"), told)
    assert over.is_broken
    assert "drift_psi is 0.7 (of income, the farthest of 3 in 500 rows of version 3: `slipway drift m`), above 0.5" in (
        over.sentence
    )
    assert judged(rule(AlertMetric.DRIFT_PSI, above=0.8), Endpoint(endpoint="m"), told).is_broken is False
    # Too few rows, no report, or one of nothing: nothing is said.
    few = rule(AlertMetric.DRIFT_PSI, above=0.5, min_count=501)
    assert judged(few, Endpoint(endpoint="m"), told).is_broken is None
    for nothing in (None, report(latest=None), one.model_copy(update={"latest": far.model_copy(update={"psi": {}})})):
        assert judged(rule(AlertMetric.DRIFT_PSI, above=0.5), Endpoint(endpoint="m"), nothing).is_broken is None


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        (AlertMetric.STAGE_AGE_S, 400.0, "of rollout rollout-1, which is progressing"),
        (AlertMetric.DECISION_LAG_S, 90.0, "since the next look at rollout rollout-1 was due"),
    ],
)
def test_a_rollout_under_way_has_an_age_and_a_lag_and_none_has_neither(
    metric: AlertMetric, value: float, said: str
) -> None:
    under_way = endpoint(RolloutState.PROGRESSING)
    assert judged(rule(metric, above=value + 1), under_way).is_broken is False
    over = judged(rule(metric, above=value - 1), under_way)
    assert over.is_broken
    assert f"{metric} is {value:g} s ({said})" in over.sentence
    assert judged(rule(metric, above=0.0), Endpoint(endpoint="m")).is_broken is False


def test_a_look_that_is_still_to_come_is_not_overdue() -> None:
    early = endpoint(RolloutState.PROGRESSING)
    assert early.rollout is not None
    early.rollout = early.rollout.model_copy(update={"next_tick_at": NOW + timedelta(seconds=30)})
    assert judged(rule(AlertMetric.DECISION_LAG_S, above=0.0), early).is_broken is False


def test_what_is_measured_beside_traffic_needs_no_windows() -> None:
    assert {metric for metric in AlertMetric if not metric.is_of_traffic} == {
        AlertMetric.DRIFT_PSI,
        AlertMetric.STAGE_AGE_S,
        AlertMetric.DECISION_LAG_S,
    }
