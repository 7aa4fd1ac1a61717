"""Makes the report of one version in one role, and stores it: its blobs, and then the document that names them.

The blobs lie under names made of their content, and are stored first; one conditional change of the document makes the
report the latest, settles the alarms and archives its record. A process that dies before it leaves blobs that nothing
names; one that comes second finds the change made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Protocol

from shared.budgets.labels import LabelSum, label_key
from shared.core.canonical import digest_of_bytes
from shared.core.verdict import Outcome
from shared.drift.scoring import FeatureScore
from shared.registry.documents import ModelVersion
from shared.registry.drift_policy import DriftPolicy
from shared.registry.manifest import Task
from shared.rollout.endpoint import Endpoint
from shared.routing.plan import Role, Route
from shared.store.ports import BlobContainer, BlobStore
from shared.store.repository import Repository
from shared.watching.alarms import settle
from shared.watching.assessing import (
    Assessment,
    assess,
)
from shared.watching.documents import (
    Against,
    Alarm,
    DriftedFeature,
    DriftFinding,
    DriftRecord,
    DriftReport,
    EstimateSummary,
    ReportSummary,
    drift_report_id,
)
from shared.watching.gathering import LEARNED_DAYS, History, Profiles, read_history, span_of
from shared.watching.page import render_html
from shared.watching.performing import Performing
from shared.watching.report import Performance
from shared.watching.rollups import DAY, day_of
from shared.watching.seeing import seen_of
from shared.watching.slowly import look_for_slow, store_state

_SHOWN = 10
AGAINST = {Alarm.DATA_DRIFT: Against.REFERENCE, Alarm.CONCURRENT_DRIFT: Against.CONCURRENT}


class Known(Protocol):
    """What is known of versions and their labels."""

    def version(self, model: str, version: int) -> ModelVersion | None:
        """A version, or None."""
        ...

    def labels(self, endpoint: str) -> Mapping[str, LabelSum]:
        """The labels that came, by version and day (shared.budgets.labels)."""
        ...


class Writer:
    """Makes and stores reports."""

    def __init__(self, *, reports: Repository[DriftReport], blobs: BlobStore, known: Known) -> None:
        self._reports = reports
        self._blobs = blobs
        self._known = known
        self.profiles = Profiles(blobs)

    def history(self, endpoint: Endpoint, policy: DriftPolicy, until: datetime) -> History:
        """What the endpoint's reports up to `until` stand on."""
        return read_history(self._blobs, endpoint.endpoint, span_of(policy.span_h), until)

    def finds_else(
        self, report: DriftReport, endpoint: Endpoint, route: Route, policy: DriftPolicy, history: History
    ) -> bool:
        """Whether another outcome is found now than the latest report has, or one that no alarm stands for."""
        found = assess(seen_of(endpoint, route, history, self.profiles, report), policy).alarms
        before = {finding.against: finding.outcome for finding in report.latest.findings} if report.latest else {}
        now = {alarm: verdict.outcome for alarm, verdict in found.items() if alarm in AGAINST}
        # An alarm that was ended with a failing report as the latest begins anew by the same outcome.
        untold = any(outcome is Outcome.FAIL and alarm not in report.alarms for alarm, outcome in now.items())
        return untold or {AGAINST[alarm]: outcome for alarm, outcome in now.items()} != before

    def write(
        self,
        endpoint: Endpoint,
        route: Route,
        policy: DriftPolicy,
        history: History,
        now: datetime,
        *,
        is_hourly: bool,
    ) -> DriftReport:
        """Report on a version that serves. An hourly report that another writer made already is left as it is."""
        report = self._reports.find_or_create(_fresh(endpoint, route))
        until = history.until
        if is_hourly and report.hourly_until is not None and report.hourly_until >= until:
            return report
        seen = seen_of(endpoint, route, history, self.profiles, report)
        seen = replace(seen, performing=self._performing(endpoint, route, history))
        slow = look_for_slow(self._blobs, report, seen, policy, history) if is_hourly and seen.profile else None
        assessment = assess(seen, policy, slow=slow.told if slow else None)
        summary = self._stored(assessment, policy, now)
        slow_blob = store_state(self._blobs, report, slow) if slow else None

        def take(current: DriftReport) -> bool:
            if is_hourly and (current.hourly_until, current.slow_until) != (report.hourly_until, report.slow_until):
                return False
            if current.counts_from != report.counts_from:
                # Another rollout of the version began since: what was found is of the one before.
                return False
            if current.latest is not None and current.latest.report_id == summary.report_id and not is_hourly:
                return False
            # One that was asked for after the hour reaches farther than the hour's own.
            if current.latest is None or summary.until >= current.latest.until:
                current.latest = summary
            settle(
                current,
                summary,
                assessment.alarms,
                _named(assessment),
                now,
                is_hourly=is_hourly,
                may_follow=assessment.may_follow,
                unsure=assessment.unsure,
            )
            if is_hourly:
                current.hourly_until = until
            if slow:
                current.slow_until, current.slow_blob = slow.until, slow_blob
            record = DriftRecord(
                id=summary.report_id,
                model=current.model,
                endpoint=current.endpoint,
                version=current.version,
                role=current.role,
                report=summary,
            )
            current.archive(current.container, record.model_dump(mode="json"))
            return True

        return self._reports.change(report.partition, report.id, take)

    def _performing(self, endpoint: Endpoint, route: Route, history: History) -> Performing | None:
        version = self._known.version(endpoint.endpoint, route.version)
        if version is None:
            return None
        is_regression = version.manifest.task is Task.REGRESSION
        model = self.profiles.performance(version.performance_digest)
        metrics = version.validation.metrics if version.validation else {}
        level = model.level if model else metrics.get("mae" if is_regression else "accuracy")
        last = day_of(history.until)
        days = [last - DAY * number for number in range(LEARNED_DAYS + 1)]
        sums = self._known.labels(endpoint.endpoint)
        return Performing(
            is_regression=is_regression,
            level=level,
            model=model,
            labels={day: sums[key] for day in days if (key := label_key(route.version, day)) in sums},
            days=history.days(f"{route.version}:{route.role}"),
            labels_since=day_of(history.since),
        )

    def _stored(self, assessment: Assessment, policy: DriftPolicy, now: datetime) -> ReportSummary:
        details = assessment.details
        data = details.model_dump_json().encode()
        page = render_html(details, limit=policy.psi).encode()
        digest = digest_of_bytes(data)[:12]
        report_id = f"{drift_report_id(details.version, details.role)}-{details.until:%Y%m%dT%H%M}-{digest}"
        folder = f"{details.model}/drift/{details.until:%Y-%m-%d}"
        names = f"{folder}/{report_id}.json", f"{folder}/{report_id}.html"
        for name, body in zip(names, (data, page), strict=True):
            self._blobs.create(BlobContainer.REPORTS, name, body)
        return ReportSummary(
            report_id=report_id,
            since=details.since,
            until=details.until,
            made_at=now,
            rows=details.rows,
            asked=details.quality.asked,
            outcome=details.outcome,
            findings=tuple(_findings(assessment, report_id, now)),
            most_to_blame=tuple(_drifted(score) for score in assessment.ranked[:_SHOWN]),
            sentences=tuple(verdict.sentence for verdict in details.verdicts),
            psi={score.feature.name: score.psi for score in assessment.scores},
            psi_noise={score.feature.name: score.psi_noise for score in assessment.scores},
            estimate=_estimate(details.performance),
            report_blob=names[0],
            page_blob=names[1],
        )


def _fresh(endpoint: Endpoint, route: Route) -> DriftReport:
    return DriftReport(
        id=drift_report_id(route.version, route.role.value),
        model=endpoint.endpoint,
        endpoint=endpoint.endpoint,
        version=route.version,
        role=route.role.value,
        counts_from=endpoint.active.started_at if endpoint.active and route.role is not Role.STABLE else None,
    )


def _estimate(figures: Performance | None) -> EstimateSummary | None:
    if figures is None or figures.estimate is None:
        return None
    return EstimateSummary(
        measure=figures.measure, value=figures.estimate, may_gate=figures.may_gate, miss=figures.miss
    )


def _findings(assessment: Assessment, report_id: str, now: datetime) -> list[DriftFinding]:
    details = assessment.details
    named = {Alarm.DATA_DRIFT: assessment.scores, Alarm.CONCURRENT_DRIFT: assessment.concurrent}
    return [
        DriftFinding(
            model=details.model,
            endpoint=details.endpoint,
            version=details.version,
            role=details.role,
            against=against,
            outcome=assessment.alarms[alarm].outcome,
            sentence=assessment.alarms[alarm].sentence,
            features=tuple(_drifted(score) for score in _by_blame(named[alarm])),
            rows=assessment.alarms[alarm].n or 0,
            report_id=report_id,
            at=now,
        )
        for alarm, against in AGAINST.items()
        if alarm in assessment.alarms
    ]


def _named(assessment: Assessment) -> dict[Alarm, list[str]]:
    slow = assessment.details.slow
    return {
        Alarm.DATA_DRIFT: [score.feature.name for score in _by_blame(assessment.scores)],
        Alarm.CONCURRENT_DRIFT: [score.feature.name for score in _by_blame(assessment.concurrent)],
        Alarm.SLOW_DRIFT: list(slow.features) if slow else [],
    }


def _by_blame(scores: Sequence[FeatureScore]) -> list[FeatureScore]:
    """Those that drifted, inputs before what follows from them, each by its effect."""
    drifted = [score for score in scores if score.drifted]
    return sorted(drifted, key=lambda score: (score.feature.source.kind in {"answer", "reconstruction"}, -score.effect))


def _drifted(score: FeatureScore) -> DriftedFeature:
    return DriftedFeature(name=score.feature.name, psi=score.psi, q_value=score.q_value, effect=score.effect)
