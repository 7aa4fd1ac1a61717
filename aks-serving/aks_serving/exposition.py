"""Prometheus' text formats: 0.0.4, and OpenMetrics 1.0 where the client asks for it. Knows of no metric."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = b"application/openmetrics-text; version=1.0.0; charset=utf-8"

type Label = tuple[str, str]
type Sample = tuple[str, tuple[Label, ...], float]
"""What follows the family's name, the labels, and the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Metrics of one name, which has no suffix `_total` here."""

    name: str
    kind: str
    help: str
    samples: list[Sample]


def wants_openmetrics(accept: bytes) -> bool:
    """Whether a value of the header Accept names OpenMetrics, as Prometheus' does."""
    return b"application/openmetrics-text" in accept


def written(families: Iterable[Family], *, openmetrics: bool) -> bytes:
    """Metrics, in one of the two formats."""
    lines: list[str] = []
    for family in families:
        total = "_total" if family.kind == "counter" else ""
        title = family.name if openmetrics else family.name + total
        lines += (f"# HELP {title} {family.help}", f"# TYPE {title} {family.kind}")
        for suffix, labels, value in family.samples:
            shown = ",".join([f'{label}="{_escaped(of)}"' for label, of in labels])
            lines.append(f"{family.name}{total}{suffix}{f'{{{shown}}}' if shown else ''} {_number(value)}")
    if openmetrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def counter(name: str, what: str, samples: Iterable[tuple[tuple[Label, ...], float]]) -> Family:
    """A family of counters, from labels and values."""
    return Family(name=name, kind="counter", help=what, samples=[("", labels, value) for labels, value in samples])


def gauge(name: str, what: str, samples: Iterable[tuple[tuple[Label, ...], float]]) -> Family:
    """A family of gauges, from labels and values."""
    return Family(name=name, kind="gauge", help=what, samples=[("", labels, value) for labels, value in samples])


def histogram(name: str, what: str, samples: Iterable[Sample]) -> Family:
    """A family of histograms, from their buckets, sums and counts."""
    return Family(name=name, kind="histogram", help=what, samples=list(samples))


def powers(
    labels: tuple[Label, ...], counts: Mapping[int, int], powers: Iterable[int], unit: float, total: float
) -> Iterator[Sample]:
    """A histogram over powers of two, in a unit, from counts by power; `total` is its sum."""
    for power in powers:
        within = sum(n for index, n in counts.items() if index <= power)
        yield "_bucket", (*labels, ("le", repr(float(f"{2.0**power * unit:.6g}")))), within
    yield from end(labels, sum(counts.values()), total)


def end(labels: tuple[Label, ...], count: int, total: float) -> Iterator[Sample]:
    """What ends a histogram: all of it, its sum and its count."""
    yield "_bucket", (*labels, ("le", "+Inf")), count
    yield "_sum", labels, total
    yield "_count", labels, count


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.9g}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
