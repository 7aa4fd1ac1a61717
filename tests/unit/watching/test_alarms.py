"""When an alarm ends: by reports that find nothing, and not by those that only prove less."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.core.verdict import Outcome, Verdict
from shared.watching.alarms import CALM_REPORTS, settle
from shared.watching.documents import Alarm, DriftReport, ReportSummary, drift_report_id

BEGUN = datetime(2026, 11, 21, tzinfo=UTC)
BESIDE = Alarm.CONCURRENT_DRIFT


def summary(until: datetime) -> ReportSummary:
    return ReportSummary(
        report_id="r",
        since=BEGUN,
        until=until,
        made_at=until,
        rows=1_000,
        outcome=Outcome.PASS,
        findings=(),
        most_to_blame=(),
        sentences=(),
        report_blob="r",
        page_blob="p",
    )


def hour(report: DriftReport, at: int, outcome: Outcome, *, is_unsure: bool = False) -> None:
    until = BEGUN + timedelta(hours=at)
    verdict = Verdict(check=BESIDE.value, outcome=outcome, sentence=outcome.value)
    settle(
        report, summary(until), {BESIDE: verdict}, {}, until, is_hourly=True, unsure={BESIDE} if is_unsure else set()
    )


def alarmed() -> DriftReport:
    report = DriftReport(id=drift_report_id(2, "candidate"), model="m", endpoint="m", version=2, role="candidate")
    hour(report, 1, Outcome.FAIL)
    return report


@pytest.mark.parametrize(("is_unsure", "stands"), [(True, True), (False, False)])
def test_passes_that_only_prove_less_end_no_alarm(*, is_unsure: bool, stands: bool) -> None:
    report = alarmed()
    for at in range(CALM_REPORTS):
        assert BESIDE in report.alarms
        hour(report, 2 + at, Outcome.PASS, is_unsure=is_unsure)
    assert (BESIDE in report.alarms, report.is_alarming) == (stands, stands)


def test_what_only_proves_less_begins_no_alarm_and_counts_for_no_calm() -> None:
    fresh = alarmed()
    fresh.alarms = {}
    hour(fresh, 2, Outcome.PASS, is_unsure=True)
    assert fresh.alarms == {}
    report = alarmed()
    hour(report, 2, Outcome.PASS)
    hour(report, 3, Outcome.PASS, is_unsure=True)
    assert report.alarms[BESIDE].passes == 1
