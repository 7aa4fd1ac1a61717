"""The metrics that there are, by their names as Prometheus stores them, and what of the assets names them."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from aks_serving import prometheus
from aks_serving.counts import VersionTally

from shared.observing import metrics as observed
from shared.observing.performance import estimates, performance
from shared.observing.sinks import sinks
from shared.rollout.metrics import families

OBSERVABILITY = Path(__file__).parents[3] / "infra" / "observability"
NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
_NAME = re.compile(r"\b(?:model|slipway|http_server)_[a-z0-9_]+")
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def control_plane() -> set[str]:
    """What GET /api/metrics gives."""
    found = [
        *families([], {}, NOW),
        observed.outbox_ages({}, NOW),
        *observed.drift([], NOW),
        observed.alerts([]),
        observed.dead_letters([], []),
        observed.dead_letter_ages([], [], NOW),
        *performance([], {}),
        *estimates([]),
        *sinks({}, None, NOW),
        *observed.budgets([], NOW),
    ]
    return {family.name for family in found}


def model_server() -> set[str]:
    """What GET /metrics of a model server gives, its histograms by their parts."""
    tally = VersionTally()
    tally.shadowed()
    names = set()
    for family in prometheus.families(prometheus.Facts(totals={"m": {(1, "stable"): tally}}, servings={})):
        names |= (
            {f"{family.name}{part}" for part in ("_bucket", "_sum", "_count")}
            if family.kind == "histogram"
            else {f"{family.name}_total" if family.kind == "counter" else family.name}
        )
    return names


def named_in(expression: str) -> set[str]:
    """The metrics that an expression of PromQL names; not its labels, and not what stands in texts."""
    return set(_NAME.findall(_TEXT.sub('""', expression)))


def rule_files() -> list[Path]:
    """The files of alert rules."""
    return sorted(OBSERVABILITY.glob("*-alerts.yaml"))


def rules(file: Path) -> list[dict[str, Any]]:
    """The rules of a file."""
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def expressions(dashboard: dict[str, Any]) -> Iterator[str]:
    """What a dashboard asks, its variables' queries too."""
    for panel in dashboard["panels"]:
        yield from (target["expr"] for target in panel["targets"])
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["definition"]
