"""The control plane's own metrics as Prometheus text (format 0.0.4), for its alerts: infra/observability/.

A scrape reads a bounded number of documents of each kind, whatever piled up: beyond that a count says "at least".
"""

import logging
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import azure.functions as func
from pydantic import BaseModel, ValidationError

from functions._http import answering
from functions._services import services
from shared.alerts.documents import AlertState
from shared.budgets.sums import SUMS_ID, RequestSums
from shared.core.errors import NotFoundError
from shared.core.ids import ModelName, VersionNumber
from shared.core.messages import Queue
from shared.deadletters.documents import LetterState
from shared.observing import metrics as observed
from shared.observing.metrics import Budgeted, Undelivered
from shared.observing.performance import Labelled, estimates, labelled, performance
from shared.observing.sinks import sinks
from shared.registry.manifest import Task
from shared.rollout.endpoint import Endpoint
from shared.rollout.metrics import Family, Labels, Seen, families
from shared.store.aggregate import waiting_since
from shared.store.ports import Container
from shared.watching.documents import DriftReport

bp = func.Blueprint()

_log = logging.getLogger(__name__)

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WITH_OUTBOXES = tuple(container for container in Container if container is not Container.AUDIT)
_MOST = 2_000
"""Documents of a kind that a scrape reads at most."""


@bp.function_name("metrics")
@bp.route("metrics", methods=["GET"])
@answering
def metrics(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the binding gives it
    """How every rollout stands, whether Slipway keeps up with them, and how serving versions drift."""
    text = rendered(_found(datetime.now(UTC)))
    return func.HttpResponse(text, headers={"content-type": _CONTENT_TYPE})


def rendered(found: Iterable[Family]) -> str:
    """Metrics as Prometheus text."""
    return "".join(line + "\n" for family in found for line in _lines(family))


def readable[M: BaseModel](kind: type[M], bodies: Iterable[Mapping[str, Any]]) -> Iterator[M]:
    """The documents of a kind. One that cannot be read is left out, and logged: it hides no other."""
    for body in bodies:
        try:
            yield kind.model_validate(body)
        except ValidationError as error:
            _log.warning("document %s is not in the metrics: %s", body.get("id"), error)


def _found(now: datetime) -> Iterator[Family]:
    endpoints = list(readable(Endpoint, _bodies(Container.ENDPOINTS, {"kind": "endpoint"})))
    rollbacks = services().rollouts.rollbacks_of_all(endpoints, unreadable=[])
    seen = [Seen(endpoint=endpoint, rollbacks=rollbacks[endpoint.endpoint]) for endpoint in endpoints]
    outboxes = {container.value: _undelivered(container) for container in _WITH_OUTBOXES}
    yield from families(seen, {name: found.count for name, found in outboxes.items()}, now)
    yield observed.outbox_ages(outboxes, now)
    reports = list(readable(DriftReport, _bodies(Container.REPORTS, {"kind": "drift_report"})))
    serving = {(one.endpoint, version) for one in endpoints for version in _serving(one)}
    served = [one for one in reports if (one.endpoint, one.version) in serving]
    yield from observed.drift(served, now)
    yield from estimates(served)
    alive = (AlertState.FIRING, AlertState.PENDING)
    sums = list(readable(RequestSums, _bodies(Container.ENDPOINTS, {"kind": "request_sums"})))
    told = labelled(sums, serving, now)
    yield from performance(told, dict(_tasks(told)))
    yield observed.alerts([b for s in alive for b in _bodies(Container.REPORTS, {"kind": "alert", "state": s.value})])
    yield from sinks(services().notifications.mailboxes(), _news_since(), now)
    kept = list(_bodies(Container.REPORTS, {"kind": "dead_letter", "state": LetterState.KEPT.value}))
    queues = [queue.value for queue in Queue]
    yield observed.dead_letters(queues, kept)
    yield observed.dead_letter_ages(queues, kept, now)
    yield from observed.budgets(list(_budgeted(endpoints)), now)


def _serving(endpoint: Endpoint) -> set[int]:
    """The versions that an endpoint's plan names: what others once drifted by is nobody's concern now."""
    plan = endpoint.plan()
    return {route.version for route in plan.routes} if plan else set()


def _tasks(told: Iterable[Labelled]) -> Iterator[tuple[tuple[str, int], Task]]:
    """The tasks of versions whose labels do not say it, and that can be read."""
    for one in told:
        if not one.is_both:
            continue
        try:
            version = services().registry.version(ModelName(one.model), VersionNumber(one.version))
        except NotFoundError:
            continue
        except ValidationError as error:
            _log.warning("the task of %s version %s is not known to the metrics: %s", one.model, one.version, error)
            continue
        yield (one.model, one.version), version.manifest.task


def _undelivered(container: Container) -> Undelivered:
    bodies = list(_bodies(container, {"outbox_pending": True}))
    return Undelivered(
        count=len(bodies), since=min((at for body in bodies if (at := waiting_since(body))), default=None)
    )


def _news_since() -> datetime | None:
    """Since when there is news of an alert that is in no mailbox yet."""
    news = _bodies(Container.REPORTS, {"kind": "alert", "news_pending": True})
    return min((datetime.fromisoformat(body["changed_at"]) for body in news), default=None)


def _budgeted(endpoints: Iterable[Endpoint]) -> Iterator[Budgeted]:
    for one in endpoints:
        try:
            budget = services().registry.model(ModelName(one.endpoint)).policy.rollout.error_budget
        except NotFoundError:
            continue
        except ValidationError as error:
            _log.warning("the error budget of %s is not in the metrics: %s", one.endpoint, error)
            continue
        stored = services().documents.get(Container.ENDPOINTS, one.endpoint, SUMS_ID) if budget else None
        for sums in readable(RequestSums, [stored.body] if stored else []):
            if budget:
                yield Budgeted(endpoint=one.endpoint, budget=budget, sums=sums)


def _bodies(container: Container, where: Mapping[str, str | bool]) -> Iterator[Mapping[str, Any]]:
    """The documents that are so, up to the most that a scrape reads."""
    count, continuation = 0, None
    while count < _MOST:
        page = services().documents.query(container, where=where, continuation=continuation)
        yield from (item.body for item in page.items)
        count += len(page.items)
        if page.continuation is None:
            return
        continuation = page.continuation


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        yield f"{family.name}{_labelled(labels)} {value:.10g}"


def _labelled(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')) for name, value in labels)
    inner = ",".join(f'{name}="{value}"' for name, value in escaped)
    return f"{{{inner}}}" if inner else ""
