"""What a policy's rules measure beside traffic: drift by the latest report, and how the rollout goes on."""

from datetime import timedelta
from functools import partial
from typing import Any

import numpy as np
import pytest

from shared.alerts.beside import measured_beside
from shared.alerts.rules import Judged, judge
from shared.drift.distances import psi, psi_noise
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
    far = far.model_copy(update={"psi_noise": {"age": 0.0, "income": 0.0, "city": 0.0}})
    told = one.model_copy(update={"latest": far})
    over = judged(rule(AlertMetric.DRIFT_PSI, above=0.5), Endpoint(endpoint="m"), told)
    assert over.is_broken
    assert (
        "(of income, the farthest of 3 in 500 rows of version 3, less 0 for noise: `slipway drift m`), above 0.5"
        in over.sentence
    )
    assert judged(rule(AlertMetric.DRIFT_PSI, above=0.8), Endpoint(endpoint="m"), told).is_broken is False
    # Too few rows, or a report of nothing: nothing is said.
    few = rule(AlertMetric.DRIFT_PSI, above=0.5, min_count=501)
    assert judged(few, Endpoint(endpoint="m"), told).is_broken is None
    nothing = one.model_copy(update={"latest": far.model_copy(update={"psi": {}, "psi_noise": {}})})
    assert judged(rule(AlertMetric.DRIFT_PSI, above=0.5), Endpoint(endpoint="m"), nothing).is_broken is None


def test_without_a_report_of_the_last_day_on_the_stable_version_none_drifts() -> None:
    one = report()
    assert one.latest is not None
    old = one.model_copy(update={"latest": one.latest.model_copy(update={"until": NOW - timedelta(hours=25)})})
    serving = endpoint(RolloutState.PROGRESSING)
    for nothing in (None, report(latest=None), old):
        found = judged(rule(AlertMetric.DRIFT_PSI, above=0.001), serving, nothing)
        assert (found.is_broken, "no report of the last day on version 1" in found.sentence) == (False, True)
        assert judged(rule(AlertMetric.DRIFT_PSI, below=0.1), serving, nothing).is_broken is None
    assert "nothing serves" in judged(rule(AlertMetric.DRIFT_PSI, above=0.1), Endpoint(endpoint="m")).sentence


@pytest.mark.parametrize("rows", [20, 50, 100, 300])
def test_reports_of_few_rows_without_drift_break_no_rule_and_drift_does(rows: int) -> None:
    draws = np.random.default_rng(8)
    reference = draws.multinomial(10_000, [0.1] * 10).astype(float)
    far = np.array([0.01] * 5 + [0.19] * 5)
    broken = {0.0: 0, 1.0: 0}
    for shift in broken:
        share = (1 - shift) * np.full(10, 0.1) + shift * far
        for _ in range(100):
            counts = {f"f{number}": draws.multinomial(rows, share).astype(float) for number in range(10)}
            summary = report().latest
            assert summary is not None
            found = {
                "rows": rows,
                "psi": {name: psi(reference, one) for name, one in counts.items()},
                "psi_noise": {name: psi_noise(reference, one) for name, one in counts.items()},
            }
            told = report(latest=summary.model_copy(update=found))
            broken[shift] += bool(
                judged(rule(AlertMetric.DRIFT_PSI, above=0.2), Endpoint(endpoint="m"), told).is_broken
            )
    assert broken[0.0] <= 5
    assert broken[1.0] >= 60


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
    found = measured_beside(rule(AlertMetric.DECISION_LAG_S, above=0.0), early, None, NOW)
    assert found is not None
    assert found.value == 0


def test_what_is_measured_beside_traffic_needs_no_windows() -> None:
    assert {metric for metric in AlertMetric if not metric.is_of_traffic} == {
        AlertMetric.DRIFT_PSI,
        AlertMetric.STAGE_AGE_S,
        AlertMetric.DECISION_LAG_S,
    }
