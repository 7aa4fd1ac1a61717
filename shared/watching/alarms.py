"""Which alarms of a version stand: a pure function of the document and of what a report found.

An alarm begins with the report that fails, and is over once several hourly reports in a row found nothing: a measure
that hovers about its limit is one alarm. Of slow drift it is over when its detector, begun anew, has found nothing for
a week. What cannot be told neither begins an alarm nor ends it; nor does a drift beside stable end where it is as far
as before, and only the evidence is less.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta

from shared.core.verdict import Outcome, Verdict
from shared.watching.documents import Alarm, DriftReport, Episode, ReportSummary, Span
from shared.watching.rollups import HOUR, hour_of

CALM_REPORTS = 3
CALM_SLOW = timedelta(days=7)
_KEPT_SPANS = 50
_OWN = frozenset({Alarm.DATA_DRIFT, Alarm.SLOW_DRIFT, Alarm.PERFORMANCE_DROP})
"""The hours of a report that fails by one of them teach nothing about what is usual. Those after it do while its alarm
stands: slow drift is looked for in them anew."""


def settle(
    report: DriftReport,
    summary: ReportSummary,
    verdicts: Mapping[Alarm, Verdict],
    features: Mapping[Alarm, Sequence[str]],
    now: datetime,
    *,
    is_hourly: bool,
    may_follow: bool = False,
    unsure: Collection[Alarm] = (),
) -> None:
    """Begin, keep and end the alarms of a version, by what a report found. `unsure` are those that it cannot end."""
    alarms = dict(report.alarms)
    for alarm, verdict in verdicts.items():
        episode = alarms.get(alarm)
        if verdict.outcome is Outcome.FAIL:
            failed = _failed(report, alarm, episode, verdict, features.get(alarm, ()), summary, now)
            follows = may_follow and alarm is Alarm.CONCURRENT_DRIFT
            alarms[alarm] = failed.model_copy(update={"may_follow": follows})
        elif episode is None or alarm in unsure:
            continue
        elif _is_over(alarm, episode, verdict, summary.until, is_hourly=is_hourly):
            del alarms[alarm]
            _ended(report, alarm, verdict.sentence, now)
        elif verdict.outcome is Outcome.PASS and is_hourly:
            alarms[alarm] = episode.model_copy(update={"passes": episode.passes + 1})
    for alarm in [alarm for alarm in alarms if alarm not in verdicts and alarm is Alarm.CONCURRENT_DRIFT]:
        del alarms[alarm]
        _ended(report, alarm, "there is no stable version beside it any more", now)
    if any(verdict.outcome is Outcome.FAIL for alarm, verdict in verdicts.items() if alarm in _OWN):
        report.alarmed = _joined([*report.alarmed, Span(since=summary.since, until=summary.until)])
    report.alarms, report.is_alarming = alarms, bool(alarms)


def end_all(report: DriftReport, why: str, now: datetime) -> bool:
    """End all alarms. Whether there were any."""
    for alarm in report.alarms:
        _ended(report, alarm, why, now)
    had = bool(report.alarms)
    report.alarms, report.is_alarming = {}, False
    return had


def is_of_earlier(report: DriftReport, started_at: datetime) -> bool:
    """Whether what a document says is of an earlier rollout than the one that began then."""
    return report.counts_from is None or report.counts_from < started_at


def begin(report: DriftReport, started_at: datetime, now: datetime) -> bool:
    """Begin anew for a rollout. Whether it is another one than before.

    Counts are by the hour: those of the hour in which a version is rolled out again may be of its earlier rollout, and
    it is looked at from the next one on.
    """
    if not is_of_earlier(report, started_at):
        return False
    end_all(report, "another rollout of the version began", now)
    hour = hour_of(started_at)
    report.counts_from = started_at if hour == started_at else hour + HOUR
    return True


def is_alarmed(spans: Sequence[Span], since: datetime, until: datetime) -> bool:
    """Whether an alarm stood at any time of some hours."""
    return any(span.since < until and since < span.until for span in spans)


def _failed(
    report: DriftReport,
    alarm: Alarm,
    episode: Episode | None,
    verdict: Verdict,
    features: Sequence[str],
    summary: ReportSummary,
    now: datetime,
) -> Episode:
    if episode is not None:
        return episode.model_copy(update={"seen": summary.until, "passes": 0})
    report.record(
        "alarm_raised",
        now,
        alarm=alarm,
        sentence=verdict.sentence,
        features=list(features),
        report_id=summary.report_id,
    )
    return Episode(
        since=summary.until,
        seen=summary.until,
        sentence=verdict.sentence,
        features=tuple(features),
        report_id=summary.report_id,
    )


def _is_over(alarm: Alarm, episode: Episode, verdict: Verdict, until: datetime, *, is_hourly: bool) -> bool:
    if verdict.outcome is not Outcome.PASS or not is_hourly:
        return False
    if alarm is Alarm.SLOW_DRIFT:
        return until - episode.seen >= CALM_SLOW
    return episode.passes + 1 >= CALM_REPORTS


def _ended(report: DriftReport, alarm: Alarm, sentence: str, now: datetime) -> None:
    report.record("alarm_over", now, alarm=alarm, sentence=sentence)


def _joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    found: list[Span] = []
    for span in sorted(spans, key=lambda one: one.since):
        if found and span.since <= found[-1].until:
            found[-1] = Span(since=found[-1].since, until=max(found[-1].until, span.until))
        else:
            found.append(span)
    return tuple(found[-_KEPT_SPANS:])
