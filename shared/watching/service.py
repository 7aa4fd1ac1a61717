"""Watching: rolls up what the pods counted, reports on every serving version, and sees to what follows.

Called by timer. Each call rolls up the feature windows that came; once an hour, shortly after it is over, each version
in a role gets a report of its policy's span. While a rollout is under way its candidate is looked at in every call: a
report is written as soon as what is found changes. Alerts and requests for retraining follow from the documents, anew
in each call, so that a crash between a finding and what follows from it is made good by the next one. Several calls at
once do no harm. What is wrong with one endpoint keeps no other from being watched, and is raised at the end. A call
takes a bounded time, and who had no turn in it has it in the next.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING

from shared.alerts.documents import AlertRule
from shared.alerts.service import AlertService
from shared.budgets.labels import LabelSum
from shared.budgets.sums import SUMS_ID, RequestSums
from shared.core import tracing
from shared.core.clock import Clock
from shared.core.errors import NotFoundError
from shared.core.ids import ModelName, VersionNumber
from shared.registry.documents import ModelVersion
from shared.registry.drift_policy import DriftPolicy
from shared.registry.service import RegistryService
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.routing.plan import Role, Route
from shared.store.ports import BlobStore, Container, DocumentStore
from shared.store.repository import Repository
from shared.store.unreadable import Unreadable
from shared.watching import retraining
from shared.watching.alarms import begin, end_all, is_of_earlier
from shared.watching.documents import (
    RETRAINING_ID,
    Alarm,
    DriftReport,
    Retraining,
    RetrainingRequest,
    RetrainingState,
    drift_report_id,
)
from shared.watching.history import Reports
from shared.watching.rolling import SETTLE, Rolling
from shared.watching.rollups import hour_of
from shared.watching.turns import Turns

if TYPE_CHECKING:
    from shared.watching.writing import Writer

_RULES = {alarm: AlertRule(alarm.value) for alarm in Alarm}

_log = logging.getLogger(__name__)


class WatchService:
    """Watches the endpoints."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        reports: Repository[DriftReport],
        retraining: Repository[Retraining],
        registry: RegistryService,
        alerts: AlertService,
        documents: DocumentStore,
        blobs: BlobStore,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoints = endpoints
        self._documents = reports
        self._retraining = retraining
        self._store = documents
        self._registry = registry
        self._alerts = alerts
        self._blobs = blobs
        self._clock = clock
        self.rolling = Rolling(blobs=blobs)
        self.turns = Turns(blobs=blobs, monotonic=monotonic)
        self.reports = Reports(reports=reports, documents=documents, blobs=blobs)

    def watch(self) -> None:
        """Look at every endpoint once, as far as there is time; the next call carries on with those behind.

        Raises what went wrong, together, at the end.
        """
        failures: list[Exception] = []
        names = [endpoint.endpoint for endpoint in self._endpoints.readable()]
        waiting = set(names)
        for name in self.turns.of(names):
            waiting.discard(name)
            with tracing.within(None, {"endpoint": name}):
                try:
                    # As it stands now: its turn may be minutes after the call began.
                    endpoint = self._endpoints.find(name, ENDPOINT_ID)
                    if endpoint is not None:
                        self._watch(endpoint)
                except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others go on
                    _log.exception("endpoint %s is not watched", name)
                    failures.append(error)
        if waiting:
            _log.warning("there was no time for %d of %d endpoints: they are next", len(waiting), len(names))
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others go on
            _log.exception("what follows from reports is not seen to")
            failures.append(error)
        if failures:
            raise ExceptionGroup("not all could be watched", failures)

    def report_now(self, model: ModelName) -> list[DriftReport]:
        """Report on each serving version of a model as of now. Raises NotFoundError."""
        endpoint = self._endpoint(model)
        now = self._clock.now()
        policy = self._policy(endpoint)
        self._roll_up(endpoint, now)
        self._begin(endpoint, list(self._documents.where(partition=model)), now)
        history = self._writer.history(endpoint, policy, now)
        found = [
            self._writer.write(endpoint, route, policy, history, now, is_hourly=False) for route in _served(endpoint)
        ]
        self._follow()
        return found

    def requests(self, model: ModelName) -> Retraining:
        """The requests for retraining of a model. Raises NotFoundError where there is no such model."""
        self._registry.model(model)
        return self._retraining.find(model, RETRAINING_ID) or Retraining(model=model)

    def mark_request(
        self, model: ModelName, identity: str, state: RetrainingState, *, by: str, reason: str
    ) -> RetrainingRequest:
        """Say how a request for retraining stands. Raises NotFoundError, ConflictError."""
        now = self._clock.now()
        if self._retraining.find(model, RETRAINING_ID) is None:
            raise NotFoundError(f"the request {identity[:100]} for retraining of {model}")
        book = self._retraining.change(
            model, RETRAINING_ID, lambda book: retraining.mark(book, identity, state, now, by=by, reason=reason)
        )
        return next(request for request in book.requests if request.request_id == identity)

    def serving(self, model: ModelName, unreadable: list[Unreadable] | None = None) -> list[DriftReport]:
        """How each version that serves stands, as far as there are reports. Raises NotFoundError.

        What cannot be read is left out and added to `unreadable`, where that is given, and is an error elsewhere.
        """
        served = {_id_of(route) for route in _served(self._endpoint(model))}
        return [report for report in self.reports.latest(model, unreadable) if report.id in served]

    def _watch(self, endpoint: Endpoint) -> None:
        served = _served(endpoint)
        if not served:
            return
        now = self._clock.now()
        is_counted = any(route.profile_digest for route in served)
        added = self._roll_up(endpoint, now) if is_counted else 0
        policy, until = self._policy(endpoint), hour_of(now - SETTLE)
        known = {
            report.id: report
            for report in self._documents.where(partition=endpoint.endpoint)
            if report.endpoint == endpoint.endpoint
        }
        self._begin(endpoint, list(known.values()), now)
        due = [route for route in served if _is_due(known.get(_id_of(route)), route, until)]
        if due:
            history = self._writer.history(endpoint, policy, until)
            for route in due:
                self._writer.write(endpoint, route, policy, history, now, is_hourly=True)
        if added and endpoint.active:
            self._look(endpoint, [route for route in served if route.role is not Role.STABLE], policy, now)
        for gone in [report for name, report in known.items() if name not in map(_id_of, served)]:
            if gone.is_alarming:
                self._documents.change(
                    gone.partition, gone.id, lambda report: end_all(report, "it does not serve as that any more", now)
                )

    def _begin(self, endpoint: Endpoint, known: Sequence[DriftReport], now: datetime) -> None:
        """Have the documents of what a rollout serves be of that rollout, and not of an earlier one of the version."""
        if endpoint.active is None:
            return
        started_at = endpoint.active.started_at
        ids = {_id_of(route) for route in _served(endpoint) if route.role is not Role.STABLE}
        for report in known:
            if report.id in ids and report.endpoint == endpoint.endpoint and is_of_earlier(report, started_at):
                self._documents.change(report.partition, report.id, lambda one: begin(one, started_at, now))

    def _look(self, endpoint: Endpoint, routes: Sequence[Route], policy: DriftPolicy, now: datetime) -> None:
        """Look at the candidate and the shadows of a rollout, and report where something else is found than before."""
        history = self._writer.history(endpoint, policy, now)
        for route in routes:
            report = self._documents.find(endpoint.endpoint, _id_of(route))
            if report is not None and self._writer.finds_else(report, endpoint, route, policy, history):
                self._writer.write(endpoint, route, policy, history, now, is_hourly=False)

    def _roll_up(self, endpoint: Endpoint, now: datetime) -> int:
        return self.rolling.roll_up(endpoint.endpoint, now, self._writer.profiles.check)

    def _follow(self) -> None:
        """Have alerts and requests for retraining be as the documents say."""
        now = self._clock.now()
        firing = [alert for rule in _RULES.values() for alert in list(self._alerts.firing(rule))]
        holds: set[tuple[AlertRule, str]] = set()
        failures: list[Exception] = []
        unread: set[str] = set()
        for report in list(self._documents.readable(left_out=unread, is_alarming=True)):
            holds |= {(_RULES[alarm], _subject_of(report)) for alarm in report.alarms}
            for follow in (partial(self._fire, looked_at=now), self._ask_for_retraining):
                with tracing.within(None, {"model": report.model, "version": report.version, "role": report.role}):
                    try:
                        follow(report)
                    except Exception as error:  # noqa: BLE001 - whatever is wrong with one, the others go on
                        _log.exception("what follows from the report on %s is not seen to", _subject_of(report))
                        failures.append(error)
        for alert in firing:
            if (alert.rule, alert.subject) not in holds and alert.model not in unread:
                over = "it is not found any more"
                self._alerts.resolve(alert.rule, alert.subject, over, model=alert.model, looked_at=now)
        if failures:
            raise ExceptionGroup("not all that follows could be seen to", failures)

    def _fire(self, report: DriftReport, *, looked_at: datetime) -> None:
        for alarm, episode in report.alarms.items():
            evidence = {
                "version": report.version,
                "role": report.role,
                "since": episode.since.isoformat(),
                "features": list(episode.features),
                "report_id": episode.report_id,
                "report": f"/api/models/{report.model}/drift/{episode.report_id}",
                "page": f"models/{report.model}/drift/{episode.report_id}/page",
            }
            said = f"version {report.version} of {report.model} ({report.role}): {episode.sentence}"
            self._alerts.fire(
                _RULES[alarm], _subject_of(report), said, model=report.model, evidence=evidence, looked_at=looked_at
            )

    def _ask_for_retraining(self, report: DriftReport) -> None:
        policy = self._registry.model(ModelName(report.model)).policy.drift.retraining
        alarms = {alarm: one for alarm, one in report.alarms.items() if alarm is not Alarm.CONCURRENT_DRIFT}
        if not policy.enabled or report.role != Role.STABLE or not alarms:
            return
        now = self._clock.now()
        self._retraining.find_or_create(Retraining(model=report.model))

        def ask(book: Retraining) -> bool:
            # The oldest first; one that a request stands for must not hide a later one.
            by_age = sorted(alarms.items(), key=lambda entry: (entry[1].since, entry[0]))
            return any(retraining.ask(book, policy, report.version, alarm, one, now) for alarm, one in by_age)

        self._retraining.change(report.model, RETRAINING_ID, ask)

    @cached_property
    def _writer(self) -> "Writer":
        from shared.watching.writing import Writer  # noqa: PLC0415 - it loads numpy, which no other call needs

        return Writer(reports=self._documents, blobs=self._blobs, known=self)

    def version(self, model: str, version: int) -> ModelVersion | None:
        """A version, or None."""
        try:
            return self._registry.version(model, VersionNumber(version))
        except NotFoundError:
            return None

    def labels(self, endpoint: str) -> Mapping[str, LabelSum]:
        """The labels that came on an endpoint's predictions, by version and day."""
        stored = self._store.get(Container.ENDPOINTS, endpoint, SUMS_ID)
        return RequestSums.model_validate(stored.body).labels if stored else {}

    def _policy(self, endpoint: Endpoint) -> DriftPolicy:
        return self._registry.model(ModelName(endpoint.endpoint)).policy.drift

    def _endpoint(self, model: ModelName) -> Endpoint:
        found = self._endpoints.find(model, ENDPOINT_ID)
        if found is None or not _served(found):
            raise NotFoundError(f"a serving version of {model}", hint="nothing is served before the first rollout")
        return found


def _served(endpoint: Endpoint) -> list[Route]:
    plan = endpoint.plan()
    return list(plan.routes) if plan else []


def _id_of(route: Route) -> str:
    return drift_report_id(route.version, route.role.value)


def _subject_of(report: DriftReport) -> str:
    """What an alert about it is about."""
    return f"version:{report.model}:{report.version}:{report.role}"


def _is_due(report: DriftReport | None, route: Route, until: datetime) -> bool:
    """Whether an hourly report is to be made. One without a profile gets one report, which says so."""
    if report is None or report.hourly_until is None:
        return True
    return route.profile_digest is not None and report.hourly_until < until
