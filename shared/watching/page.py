"""A drift report as one HTML page: verdicts with their figures, ranked features, distributions, trend, data quality.

Made from the report alone. Names of features and categories came from outside, so all is escaped; the page holds no
script and asks for nothing from elsewhere. Loads Jinja.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from shared.core.figures import between, count, figure
from shared.core.verdict import Outcome
from shared.validation.plots import Estimate, ranges, shares
from shared.watching.report import DriftDetails, FeatureFigures

if TYPE_CHECKING:
    import jinja2

_TEMPLATE = Path(__file__).with_name("page.html.j2")
_PLOTTED, _RANKED, _ROWS = 6, 20, 100
_WIDTH, _HEIGHT = 420, 110
_LEAST_POINTS = 2

_SUMMARY = {
    Outcome.PASS: "Nothing was found.",
    Outcome.FAIL: "What was found:",
    Outcome.INCONCLUSIVE: "There is too little to go by:",
    Outcome.ERROR: "It could not be told:",
}


def render_html(report: DriftDetails, *, limit: float | None) -> str:
    """The page. `limit` is the policy's of PSI."""
    by_name = {figures.name: figures for figures in report.features}
    ranked = [by_name[name] for name in report.ranked if name in by_name]
    answers = [figures for figures in report.features if figures.source == "answer"]
    rest = [figures for figures in report.features if figures not in ranked]
    tables = [("Against the reference data", [*ranked, *rest][:_ROWS])] if report.features else []
    if report.concurrent:
        worst = sorted(report.concurrent, key=lambda figures: (not figures.drifted, -figures.effect))
        tables.append((f"Beside version {report.beside} in the same hours", worst[:_ROWS]))
    return (
        _environment()
        .get_template(_TEMPLATE.name)
        .render(
            title=f"{report.model} version {report.version} ({report.role})",
            report=report,
            summary=_summary(report),
            ranked=ranked,
            tables=tables,
            quality=[one for one in report.features if one.missing_share or one.infinite_share or one.unseen_share][
                :_ROWS
            ],
            plots={
                "psi": _psi_plot(ranked[:_RANKED], limit),
                "features": [(one.name, _beside(one)) for one in [*ranked[:_PLOTTED], *answers[:2]]],
                "trend": _trends(report, limit),
            },
        )
    )


@cache
def _environment() -> "jinja2.Environment":
    import jinja2  # noqa: PLC0415 - only where a page is written

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure,
        "between": between,
        "count": count,
        "minute": _minute,
        "share": _share,
    }
    return environment


def _summary(report: DriftDetails) -> str:
    said = [one.sentence for one in report.verdicts if one.outcome is report.outcome and not one.advisory]
    return _SUMMARY[report.outcome] + ("" if report.outcome is Outcome.PASS else f" {'; '.join(said)}.")


def _psi_plot(ranked: Sequence[FeatureFigures], limit: float | None) -> Markup:
    rows = [Estimate(label=one.name, value=one.psi, limit=limit, bad=one.drifted) for one in ranked]
    return ranges(rows, title="PSI by feature", low=0.0) if rows else Markup("")


def _beside(figures: FeatureFigures) -> Markup:
    reference, actual = (
        [rows / max(1, sum(counts)) for rows in counts] for counts in (figures.reference, figures.actual)
    )
    return shares(figures.labels, reference, actual, title=f"Distribution of {figures.name}")


def _trends(report: DriftDetails, limit: float | None) -> list[tuple[str, Markup]]:
    names = list(dict.fromkeys(name for point in report.trend for name in point.psi))
    if len(report.trend) < _LEAST_POINTS:
        return []
    return [("rows", _bars(report)), *((name, _line(report, name, limit)) for name in names)]


def _bars(report: DriftDetails) -> Markup:
    top = max(point.rows for point in report.trend) or 1
    step = _WIDTH / len(report.trend)
    parts = [
        Markup('<rect x="{}" y="{}" width="{}" height="{}" class="rows"><title>{}: {} rows</title></rect>').format(
            _px(at * step),
            _px(_HEIGHT - _HEIGHT * point.rows / top),
            _px(step * 0.8),
            _px(_HEIGHT * point.rows / top),
            _minute(point.hour),
            f"{point.rows:,}",
        )
        for at, point in enumerate(report.trend)
    ]
    return _svg("Rows by hour", parts)


def _line(report: DriftDetails, name: str, limit: float | None) -> Markup:
    values = [point.psi.get(name) for point in report.trend]
    top = max([0.05, *(value for value in values if value is not None), *([limit] if limit else [])])
    step = _WIDTH / max(1, len(values) - 1)
    points = [(at * step, _HEIGHT * (1 - value / top), value) for at, value in enumerate(values) if value is not None]
    path = " ".join(f"{_px(x)},{_px(y)}" for x, y, _ in points)
    parts = [Markup('<polyline points="{}" class="trend"/>').format(path)]
    if limit:
        y = _px(_HEIGHT * (1 - limit / top))
        parts.append(Markup('<line x1="0" y1="{}" x2="{}" y2="{}" class="limit"/>').format(y, _WIDTH, y))
    parts.append(
        Markup('<text x="{}" y="12" text-anchor="end">{}</text>').format(_WIDTH, f"{points[-1][2]:.3g} at the end")
    )
    return _svg(f"PSI of {name} by hour", parts)


def _svg(title: str, parts: Sequence[Markup]) -> Markup:
    opened = Markup('<svg viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}">').format(
        _WIDTH, _HEIGHT + 4, _WIDTH, title
    )
    axis = Markup('<line x1="0" y1="{}" x2="{}" y2="{}" class="axis"/>').format(_HEIGHT, _WIDTH, _HEIGHT)
    return Markup("").join([opened, *parts, axis, Markup("</svg>")])


def _minute(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M}"


def _share(value: float) -> str:
    return f"{value:.2%}" if value else ""


def _px(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")
