"""The labels of every metric that there is: read off samples that the code itself gives, of one of everything."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import yaml
from aks_serving import prometheus
from aks_serving.counts import Kind, VersionTally
from aks_serving.exposition import Family as ServerFamily
from aks_serving.serving import Serving

from shared.alerts.mailbox import Mailbox
from shared.budgets.labels import LabelSum, label_key
from shared.budgets.sums import HourSum, RequestSums
from shared.observing import metrics as observed
from shared.observing.metrics import Budgeted, Undelivered
from shared.observing.performance import estimates, labelled, performance
from shared.observing.sinks import sinks
from shared.registry.rollout_policy import ErrorBudget
from shared.rollout.machine import RolloutState
from shared.rollout.metrics import Family, Seen, families
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan
from shared.telemetry.feedback import Errors
from shared.watching.documents import Measure
from tests.unit.functions.test_rollout_metrics import endpoint
from tests.unit.observing.exposed import NOW, OBSERVABILITY
from tests.unit.observing.test_metrics import report
from tests.unit.observing.test_performance import estimating

SCRAPED = {"instance", "job"}
"""What Prometheus adds to every series."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Transport:
    connections: int = 1
    refused: dict[int, int] = field(default_factory=lambda: {400: 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """What the metrics ask of a serving."""

    plan: RoutePlan
    lanes: dict[int, object]
    failed: dict[int, object] = field(default_factory=dict)

    def planned_bp(self, route: Route) -> int:
        return route.weight_bp


@cache
def labels() -> dict[str, set[str]]:
    """By metric, as Prometheus stores it."""
    return {name: found | SCRAPED for name, found in (*_of_the_control_plane(), *_of_a_server(), *_of_the_platform())}


def _of_the_control_plane() -> Iterable[tuple[str, set[str]]]:
    sums = RequestSums(
        endpoint="m",
        hours={"2026-11-21T08": HourSum(requests=9, failed=1)},
        labels={label_key(3, NOW): LabelSum(labelled=2, correct=1, numbers=Errors(count=1, absolute=1))},
        since=NOW,
        whole_at=NOW,
    )
    told = [
        estimating(measure=measure, value=0.9, may_gate=True, miss=0.01).model_copy(update={"version": version})
        for version, measure in enumerate((Measure.ACCURACY, Measure.ABSOLUTE_ERROR), start=1)
    ]
    seen = [Seen(endpoint=endpoint(RolloutState.PROGRESSING, halted_at=NOW), rollbacks=[])]
    found: list[Family] = [
        *families(seen, {"models": 1}, NOW),
        observed.outbox_ages({"models": Undelivered(count=1, since=NOW)}, NOW),
        *observed.drift([report()], NOW),
        observed.alerts([]),
        observed.dead_letters(["q"], []),
        observed.dead_letter_ages(["q"], [], NOW),
        *performance(labelled([sums], {("m", 3)}, NOW), {}),
        *estimates(told),
        *sinks({"ops": Mailbox(id="mailbox", sink="ops")}, None, NOW),
        *observed.budgets([Budgeted(endpoint="m", budget=ErrorBudget(), sums=sums)], NOW),
    ]
    for family in found:
        assert family.samples, family.name
        yield family.name, set().union(*({label for label, _ in one} for one, _ in family.samples))


def server_families() -> list[ServerFamily]:
    """What /metrics of a model server gives, each with a sample."""
    tally = VersionTally()
    tally.answered(Kind.ASSIGNED, 2.0)
    tally.shadowed()
    tally.looked["counted"] = 1
    tally.runs.ran(1, 0.001)
    tally.runs.values.counts[0] = 1
    plan = RoutePlan(
        endpoint="m",
        generation=1,
        salt="s",
        routes=(Route.model_validate(_ROUTE),),
    )
    facts = prometheus.Facts(
        totals={"m": {(1, "stable"): tally}},
        servings={"m": cast("Serving", _Serving(plan=plan, lanes={1: object()}))},
        refused={"m": {"overloaded": 1}},
        memory_bytes={"m": {1: 1}},
        in_flight={"m": 1},
        transport=_Transport(),
    )
    found = list(prometheus.families(facts))
    assert all(family.samples for family in found)
    return found


def stored(family: ServerFamily) -> str:
    """Its name as Prometheus stores it, without what a histogram's parts end in."""
    return f"{family.name}_total" if family.kind == "counter" else family.name


def _of_a_server() -> Iterable[tuple[str, set[str]]]:
    for family in server_families():
        by_suffix: dict[str, set[str]] = {}
        for suffix, found, _ in family.samples:
            by_suffix.setdefault(suffix, set()).update(label for label, _ in found)
        yield from ((f"{stored(family)}{suffix}", found) for suffix, found in by_suffix.items())


_ROUTE: dict[str, Any] = {
    "version": 1,
    "role": Role.STABLE,
    "weight_bp": FULL_WEIGHT_BP,
    "artifact_digest": "a" * 64,
    "size_bytes": 1,
    "golden_digest": None,
}


def _of_the_platform() -> Iterable[tuple[str, set[str]]]:
    held = yaml.safe_load((OBSERVABILITY / "platform-metrics.yaml").read_text())
    for found in held.values():
        yield from ((name, set(named)) for name, named in found.items())
