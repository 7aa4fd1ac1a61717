"""What the control plane tells beside its rollouts: from documents, and read by a scrape."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions.metrics import readable, rendered
from shared.budgets.sums import HourSum, RequestSums
from shared.core.messages import RolloutTick
from shared.core.verdict import Outcome
from shared.observing import metrics as observed
from shared.observing.metrics import Budgeted, Undelivered
from shared.observing.performance import estimates
from shared.registry.documents import Model
from shared.registry.rollout_policy import ErrorBudget
from shared.rollout.metrics import Family
from shared.store.aggregate import waiting_since
from shared.watching.documents import Alarm, DriftReport, Episode, EstimateSummary, Measure, ReportSummary

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def values(*found: Family) -> dict[str, float]:
    lines = [line for line in rendered(found).splitlines() if not line.startswith("#")]
    return {sample: float(value) for sample, value in (line.rsplit(" ", 1) for line in lines)}


def report(**fields: Any) -> DriftReport:
    latest = ReportSummary(
        report_id="r",
        since=ago(7_200),
        until=ago(3_600),
        made_at=ago(90),
        rows=1_000,
        outcome=Outcome.FAIL,
        findings=(),
        most_to_blame=(),
        sentences=(),
        psi={"age": 0.31, "income": 0.02},
        psi_noise={"age": 0.0, "income": 0.0},
        report_blob="r.json",
        page_blob="r.html",
    )
    known = {"id": "d", "model": "m", "endpoint": "m", "version": 3, "role": "stable", "latest": latest}
    return DriftReport(**(known | fields))


def test_the_latest_report_of_a_version_is_told_by_feature() -> None:
    episode = Episode(since=ago(90), seen=ago(90), sentence="it drifted", report_id="r")
    found = values(*observed.drift([report(alarms={Alarm.DATA_DRIFT: episode})], NOW))
    of = 'model="m",version="3",variant="stable"'
    assert found[f'model_feature_drift_psi{{{of},feature="age"}}'] == 0.31
    assert found[f'model_feature_drift_psi{{{of},feature="income"}}'] == 0.02
    assert found[f'model_drift_alarm{{{of},alarm="data_drift"}}'] == 1
    assert found[f'model_drift_alarm{{{of},alarm="slow_drift"}}'] == 0
    assert found[f"model_drift_rows{{{of}}}"] == 1_000
    assert found[f"model_drift_report_age_seconds{{{of}}}"] == 90


@pytest.mark.parametrize(("role", "former"), [("stable", "candidate"), ("candidate", "stable")])
def test_a_version_is_told_of_as_what_it_is_and_not_as_what_it_was(role: str, former: str) -> None:
    now = report(role=role, id="now")
    assert now.latest is not None
    estimate = EstimateSummary(measure=Measure.ACCURACY, value=0.9, may_gate=True)
    latest = now.latest.model_copy(update={"estimate": estimate})
    before = report(role=former, id="before", latest=latest.model_copy(update={"made_at": ago(9_000)}))
    reports = [before, report(role=role, id="now", latest=latest), report(role=former, id="other", version=4)]
    for found in (values(*observed.drift(reports, NOW)), values(*estimates(reports))):
        assert found
        assert not [name for name in found if f'version="3",variant="{former}"' in name]
        assert [name for name in found if f'version="3",variant="{role}"' in name]
    assert any(f'version="4",variant="{former}"' in name for name in values(*observed.drift(reports, NOW)))


def test_a_version_without_a_report_is_not_told_of() -> None:
    assert values(*observed.drift([report(latest=None)], NOW)) == {}


def test_alerts_are_counted_and_with_none_there_is_a_zero() -> None:
    alert = {"model": "m", "rule": "slow", "severity": "critical", "state": "firing"}
    found = values(observed.alerts([alert, alert, alert | {"state": "pending"}]))
    assert found['slipway_alerts{model="m",rule="slow",severity="critical",state="firing"}'] == 2
    assert found['slipway_alerts{model="m",rule="slow",severity="critical",state="pending"}'] == 1
    assert found['slipway_alerts{model="-",rule="-",severity="critical",state="firing"}'] == 0


def test_dead_letters_are_told_of_each_queue() -> None:
    found = values(observed.dead_letters(["a", "b"], [{"queue": "b"}, {"queue": "b"}, {"queue": "old"}]))
    assert found == {
        'slipway_dead_letters{queue="a"}': 0,
        'slipway_dead_letters{queue="b"}': 2,
        'slipway_dead_letters{queue="old"}': 1,
    }


@pytest.mark.parametrize(("failed", "left"), [(0, 1.0), (5, 0.5), (10, 0.0), (30, -2.0)])
def test_a_budget_is_what_of_the_allowed_failures_is_left(failed: int, left: float) -> None:
    hours = {"2026-11-21T08": HourSum(requests=1_000, failed=failed), "2026-11-01T08": HourSum(requests=9, failed=9)}
    sums = RequestSums(endpoint="m", hours=hours, since=ago(10), whole_at=ago(60))
    one = Budgeted(endpoint="m", budget=ErrorBudget(objective=0.99, hours=24), sums=sums)
    found = values(*observed.budgets([one], NOW))
    assert found['slipway_error_budget_left{endpoint="m"}'] == pytest.approx(left)
    assert found['slipway_error_budget_counted_seconds{endpoint="m"}'] == 60


def test_a_budget_of_no_requests_is_whole_and_may_never_have_been_counted() -> None:
    one = Budgeted(endpoint="m", budget=ErrorBudget(), sums=RequestSums(endpoint="m", since=ago(10)))
    assert values(*observed.budgets([one], NOW)) == {'slipway_error_budget_left{endpoint="m"}': 1}


def test_an_outbox_is_as_old_as_its_oldest_event() -> None:
    model = Model(model="m")
    assert waiting_since(model.to_body()) is None
    model.record("policy_changed", ago(600))
    model.record("policy_changed", ago(60))
    since = waiting_since(model.to_body())
    assert since == ago(600)
    outboxes = {"models": Undelivered(count=1, since=since), "endpoints": Undelivered(count=0, since=None)}
    assert values(observed.outbox_ages(outboxes, NOW)) == {
        'slipway_outbox_age_seconds{container="endpoints"}': 0,
        'slipway_outbox_age_seconds{container="models"}': 600,
    }


def test_a_document_that_cannot_be_read_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    bodies = [{"id": "broken"}, report().to_body()]
    assert [one.id for one in readable(DriftReport, bodies)] == ["d"]
    assert "document broken is not in the metrics" in caplog.text


def test_an_outbox_of_an_earlier_release_that_tells_no_time_is_not_said_to_be_empty() -> None:
    one = report()
    one.send(RolloutTick(endpoint="m", rollout_id="r", tick=1))
    assert waiting_since(one.to_body()) is None
    assert values(observed.outbox_ages({"reports": Undelivered(count=1, since=None)}, NOW)) == {}
    one.send(RolloutTick(endpoint="m", rollout_id="r", tick=2), not_before=ago(40))
    assert waiting_since(one.to_body()) == ago(40)


def test_an_outbox_of_messages_alone_is_as_old_as_the_first_save_of_the_oldest() -> None:
    one = report()
    one.send(RolloutTick(endpoint="m", rollout_id="r", tick=1), not_before=NOW)
    one.stamp(ago(700))
    one.send(RolloutTick(endpoint="m", rollout_id="r", tick=2))
    one.stamp(ago(20))
    assert waiting_since(one.to_body()) == ago(700)
    one.strike({1})
    assert waiting_since(one.to_body()) == ago(20)


def test_a_dead_letter_waits_since_it_was_seen_first() -> None:
    bodies = [{"queue": "q", "first_seen_at": ago(seconds).isoformat()} for seconds in (5, 90, 60)]
    assert values(observed.dead_letter_ages(["p", "q"], bodies, NOW)) == {
        'slipway_dead_letter_age_seconds{queue="p"}': 0,
        'slipway_dead_letter_age_seconds{queue="q"}': 90,
    }
