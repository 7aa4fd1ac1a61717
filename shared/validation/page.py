"""The validation report as one HTML page: verdicts, the figures behind them, and plots.

Made from the report alone, which strict models have read. What stands in it came from outside, so all is escaped;
the page holds no script and asks for nothing from elsewhere. Loads Jinja, and no library that parses models.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from shared.core.figures import between, count, figure
from shared.core.verdict import Outcome, Verdict
from shared.validation.details import Details, ReferenceDriftFinding, SliceFinding
from shared.validation.plots import Estimate, curve, ranges, shares
from shared.validation.report import ValidationReport

if TYPE_CHECKING:
    import jinja2

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_SHOWN = 20
_FEATURES_SHOWN = 6
_UNBOUNDED = ("rmse", "mae", "mape", "log_loss", "pinball")
"""Metrics that are not shares: on one axis with shares they would flatten them."""

_SUMMARY = {
    Outcome.PASS: "Every check passed: this version may be rolled out.",
    Outcome.FAIL: "This version is not rolled out. What failed:",
    Outcome.INCONCLUSIVE: "There is too little evidence to roll this version out:",
    Outcome.ERROR: "The checks could not be carried out:",
}


def render_html(report: ValidationReport, *, title: str, facts: Mapping[str, str] | None = None) -> str:
    """The page. `facts` stand under the title, as in `{"registered": "2026-11-21"}`."""
    details = report.details
    return (
        _environment()
        .get_template(_TEMPLATE.name)
        .render(
            title=title,
            facts=dict(facts or {}),
            report=report,
            details=details,
            summary=_summary(report),
            plots=_plots(report),
            confusion=_confusion(details),
            slices=_worst_slices(details),
            drift=_worst_drift(details),
            sections=_sections(report.verdicts),
        )
    )


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415 - only where a page is asked for

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": figure, "between": between, "count": count, "size": _size, "shape": _shape}
    return environment


def _summary(report: ValidationReport) -> str:
    wanting = [v.check for v in report.verdicts if v.outcome is not Outcome.PASS and not v.advisory]
    advice = [v.check for v in report.verdicts if v.outcome is not Outcome.PASS and v.advisory]
    said = _SUMMARY[report.outcome] + (f" {', '.join(dict.fromkeys(wanting))}." if wanting else "")
    return said + (f" Worth a look: {', '.join(dict.fromkeys(advice))}." if advice else "")


def _sections(verdicts: Sequence[Verdict]) -> dict[str, str]:
    """For each evidence pointer the id of the section of this page that shows it, or nothing."""
    known = Details.model_fields
    pointers = {verdict.evidence for verdict in verdicts if verdict.evidence}
    parts = {pointer: pointer.removeprefix("/details/").split("/", 1)[0] for pointer in pointers}
    return {pointer: part if part in known else "" for pointer, part in parts.items()}


def _plots(report: ValidationReport) -> dict[str, Any]:
    details = report.details
    limits = {verdict.check: verdict for verdict in report.verdicts}
    slices, drift = _worst_slices(details), _worst_drift(details)
    return {
        "metrics": _metric_plots(details, limits),
        "calibration": curve([(b.predicted, b.observed, b.n) for b in details.calibration], title="Calibration"),
        "comparison": ranges(
            [
                Estimate(
                    label=row.metric,
                    value=row.difference,
                    interval=row.interval,
                    limit=_margin(row.metric, row.margin, row.champion, details),
                    bad=_is_bad(_behind(report, "comparison")),
                )
                for row in details.comparison
            ],
            title="Difference from the champion",
        ),
        "slices": ranges(
            [Estimate(label=f"{s.column} {s.part}", value=s.gap, interval=s.interval, bad=s.found) for s in slices],
            title="Slices: gap to the rest",
        ),
        "drift": ranges(
            [
                Estimate(label=d.feature, value=d.psi, limit=_limit(_behind(report, "drift")), bad=d.found)
                for d in drift
            ],
            title="PSI by feature",
            low=0.0,
        ),
        "features": [
            (d.feature, shares(d.bins, d.reference_shares, d.validation_shares, title=f"Distribution of {d.feature}"))
            for d in drift[:_FEATURES_SHOWN]
            if len(d.bins) == len(d.reference_shares) == len(d.validation_shares) > 0
        ],
    }


def _metric_plots(details: Details, limits: Mapping[str, Verdict]) -> list[Markup]:
    estimates = {
        metric.name: Estimate(
            label=metric.name,
            value=metric.value,
            interval=metric.interval,
            limit=_limit(limits.get(metric.name)),
            bad=_is_bad(limits.get(metric.name)),
        )
        for metric in details.metrics
    }
    bounded = [row for name, row in estimates.items() if not name.startswith(_UNBOUNDED)]
    unbounded = [[row] for name, row in estimates.items() if name.startswith(_UNBOUNDED)]
    plots = [ranges(bounded, title="Metrics", low=0.0, high=1.0)] if bounded else []
    return plots + [ranges(rows, title=rows[0].label, low=0.0) for rows in unbounded]


def _margin(metric: str, margin: float, champion: float, details: Details) -> float:
    """Where the margin lies on the axis of differences: below 0 where more is better, else above."""
    better = {found.name: found.higher_is_better for found in details.metrics}
    return -margin if better.get(metric, True) else margin * abs(champion)


def _behind(report: ValidationReport, section: str) -> Verdict | None:
    """The verdict whose evidence is a section."""
    pointer = f"/details/{section}"
    found = (verdict for verdict in report.verdicts if verdict.evidence and verdict.evidence.startswith(pointer))
    return next(found, None)


def _limit(verdict: Verdict | None) -> float | None:
    return verdict.limit if verdict else None


def _is_bad(verdict: Verdict | None) -> bool:
    return verdict is not None and verdict.outcome is not Outcome.PASS


def _worst_slices(details: Details) -> list[SliceFinding]:
    return sorted(details.slices, key=lambda row: (not row.found, -row.gap))[:_SHOWN]


def _worst_drift(details: Details) -> list[ReferenceDriftFinding]:
    return sorted(details.drift, key=lambda row: (not row.found, -row.psi))[:_SHOWN]


def _confusion(details: Details) -> list[dict[str, Any]]:
    if details.confusion is None:
        return []
    most = max((count for row in details.confusion.counts for count in row), default=0) or 1
    return [
        {
            "name": name,
            "cells": [
                {"count": count, "deep": round(60 * count / most), "wrong": predicted != true}
                for predicted, count in enumerate(row)
            ],
        }
        for true, (name, row) in enumerate(zip(details.confusion.classes, details.confusion.counts, strict=True))
    ]


def _size(size_bytes: int) -> str:
    power = min(int(math.log10(max(size_bytes, 1)) // 3), 3)
    return f"{size_bytes / 1000**power:.4g} {('bytes', 'kB', 'MB', 'GB')[power]}"


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("any" if size < 0 else str(size) for size in shape) + "]"
