"""The control plane's own metrics as Prometheus text (format 0.0.4), for its alerts: infra/monitoring/."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import azure.functions as func

from functions._endpoints import all_endpoints
from functions._http import answering
from functions._services import services
from shared.rollout.metrics import Family, Labels, Seen, families
from shared.store.ports import Container

bp = func.Blueprint()

_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_WITH_OUTBOXES = tuple(container for container in Container if container is not Container.AUDIT)


@bp.function_name("metrics")
@bp.route("metrics", methods=["GET"])
@answering
def metrics(req: func.HttpRequest) -> func.HttpResponse:  # noqa: ARG001 - the binding gives it
    """How every rollout stands, and whether Slipway keeps up with them."""
    endpoints = list(all_endpoints())
    rollbacks = services().rollouts.rollbacks_of_all(endpoints)
    seen = [Seen(endpoint=endpoint, rollbacks=rollbacks[endpoint.endpoint]) for endpoint in endpoints]
    outboxes = {container.value: _pending(container) for container in _WITH_OUTBOXES}
    text = rendered(families(seen, outboxes, datetime.now(UTC)))
    return func.HttpResponse(text, headers={"content-type": _CONTENT_TYPE})


def rendered(found: Iterable[Family]) -> str:
    """Metrics as Prometheus text."""
    return "".join(line + "\n" for family in found for line in _lines(family))


def _lines(family: Family) -> Iterator[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.kind}"
    for labels, value in family.samples:
        yield f"{family.name}{_labelled(labels)} {value:.10g}"


def _labelled(labels: Labels) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')) for name, value in labels)
    inner = ",".join(f'{name}="{value}"' for name, value in escaped)
    return f"{{{inner}}}" if inner else ""


def _pending(container: Container) -> int:
    """How many documents of a container have something still to be delivered."""
    count, continuation = 0, None
    while True:
        page = services().documents.query(container, where={"outbox_pending": True}, continuation=continuation)
        count += len(page.items)
        if page.continuation is None:
            return count
        continuation = page.continuation
