"""Small plots as SVG text, for the report page. Pure: numbers and labels in, markup out.

Every label is escaped, every number is finite and formatted here, and colours come from the page's style sheet through
class names, so that a plot follows the page into dark mode. No script, no font, no image from elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

_LABEL_PX, _PLOT_PX, _VALUE_PX, _ROW_PX = 210, 360, 150, 24
_AXIS_PX = 22
_LABEL_CHARS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A row of a range plot: a value, its interval, and the limit that it is held against."""

    label: str
    value: float
    interval: tuple[float, float] | None = None
    limit: float | None = None
    bad: bool = False


def ranges(rows: Sequence[Estimate], *, title: str, low: float | None = None, high: float | None = None) -> Markup:
    """A row for each estimate: its interval as a line, its value as a dot, its limit as a tick.

    The axis spans `low` to `high`, or all that is shown.
    """
    shown = [number for row in rows for number in (row.value, *(row.interval or ()), row.limit) if number is not None]
    axis = _Axis.over(shown, low=low, high=high, start=_LABEL_PX, length=_PLOT_PX)
    height = len(rows) * _ROW_PX + _AXIS_PX
    parts = [_opened(_LABEL_PX + _PLOT_PX + _VALUE_PX, height, title)]
    for number, row in enumerate(rows):
        middle = number * _ROW_PX + _ROW_PX / 2
        kind = "bad" if row.bad else "good"
        parts.append(_text(_LABEL_PX - 8, middle, _short(row.label), anchor="end", full=row.label))
        if row.interval:
            parts.append(_line(axis.at(row.interval[0]), middle, axis.at(row.interval[1]), middle, f"interval {kind}"))
        if row.limit is not None:
            parts.append(_line(axis.at(row.limit), middle - 8, axis.at(row.limit), middle + 8, "limit"))
        parts.append(
            Markup('<circle cx="{}" cy="{}" r="4" class="{}"/>').format(_px(axis.at(row.value)), _px(middle), kind)
        )
        parts.append(_text(_LABEL_PX + _PLOT_PX + 8, middle, _figures(row)))
    parts += axis.drawn(len(rows) * _ROW_PX)
    return _closed(parts)


def shares(labels: Sequence[str], first: Sequence[float], second: Sequence[float], *, title: str) -> Markup:
    """Pairs of upright bars: two distributions over the same bins. Shares lie in 0 to 1."""
    width, height, foot = 420, 150, 34
    top = max([*first, *second, 0.01])
    step = width / max(len(labels), 1)
    parts = [_opened(width + 10, height + foot, title)]
    for number, (label, one, two) in enumerate(zip(labels, first, second, strict=True)):
        for share, offset, kind in ((one, 0.1, "reference"), (two, 0.5, "validation")):
            tall = height * share / top
            parts.append(
                Markup('<rect x="{}" y="{}" width="{}" height="{}" class="{}"><title>{}: {}</title></rect>').format(
                    _px((number + offset) * step),
                    _px(height - tall),
                    _px(step * 0.38),
                    _px(tall),
                    kind,
                    label,
                    f"{share:.1%}",
                )
            )
        if len(labels) <= 12:
            parts.append(_text((number + 0.5) * step, height + 12, _short(label, 9), anchor="middle", full=label))
    parts.append(_line(0, height, width, height, "axis"))
    return _closed(parts)


def curve(points: Sequence[tuple[float, float, int]], *, title: str) -> Markup:
    """Observed share over predicted probability, with the diagonal of perfect calibration; a dot's area is its rows."""
    side, foot = 260, 30
    parts = [_opened(side + 60, side + foot, title)]
    parts.append(_line(40, side, 40 + side, 0, "limit"))
    parts.append(_line(40, side, 40 + side, side, "axis"))
    parts.append(_line(40, side, 40, 0, "axis"))
    most = max((rows for _, _, rows in points), default=1)
    for predicted, observed, rows in points:
        parts.append(
            Markup(
                '<circle cx="{}" cy="{}" r="{}" class="good"><title>{} rows: predicted {}, observed {}</title></circle>'
            ).format(
                _px(40 + side * predicted),
                _px(side * (1 - observed)),
                _px(3 + 6 * (rows / most) ** 0.5),
                rows,
                f"{predicted:.3f}",
                f"{observed:.3f}",
            )
        )
    parts.append(_text(40 + side / 2, side + 20, "predicted probability", anchor="middle"))
    parts.append(_text(34, 8, "1", anchor="end"))
    parts.append(_text(34, side - 4, "0", anchor="end"))
    return _closed(parts)


@dataclass(frozen=True, slots=True)
class _Axis:
    low: float
    high: float
    start: float
    length: float

    @classmethod
    def over(
        cls, shown: Sequence[float], *, low: float | None, high: float | None, start: float, length: float
    ) -> "_Axis":
        least = low if low is not None else min([*shown, 0.0])
        most = high if high is not None else max([*shown, 0.0])
        least, most = min([least, *shown]), max([most, *shown])
        if most - least < 1e-12:
            most = least + 1.0
        return cls(least, most, start, length)

    def at(self, number: float) -> float:
        return self.start + self.length * (number - self.low) / (self.high - self.low)

    def drawn(self, y: float) -> list[Markup]:
        parts = [_line(self.start, y, self.start + self.length, y, "axis")]
        for part in range(5):
            number = self.low + (self.high - self.low) * part / 4
            parts.append(_text(self.at(number), y + 13, f"{number:.3g}", anchor="middle"))
        return parts


def _figures(row: Estimate) -> str:
    interval = f" ({row.interval[0]:.3g} to {row.interval[1]:.3g})" if row.interval else ""
    return f"{row.value:.4g}{interval}"


def _opened(width: float, height: float, title: str) -> Markup:
    return Markup('<svg viewBox="0 0 {} {}" width="{}" role="img" aria-label="{}">').format(
        _px(width), _px(height), _px(width), title
    )


def _closed(parts: list[Markup]) -> Markup:
    return Markup("").join([*parts, Markup("</svg>")])


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line x1="{}" y1="{}" x2="{}" y2="{}" class="{}"/>').format(_px(x1), _px(y1), _px(x2), _px(y2), kind)


def _text(x: float, y: float, text: str, *, anchor: str = "start", full: str | None = None) -> Markup:
    title = Markup("<title>{}</title>").format(full) if full and full != text else Markup("")
    return Markup('<text x="{}" y="{}" text-anchor="{}" dominant-baseline="middle">{}{}</text>').format(
        _px(x), _px(y), anchor, escape(text), title
    )


def _short(text: str, length: int = _LABEL_CHARS) -> str:
    return text if len(text) <= length else text[: length - 1] + "\u2026"


def _px(number: float) -> str:
    return f"{number:.1f}".rstrip("0").rstrip(".")
