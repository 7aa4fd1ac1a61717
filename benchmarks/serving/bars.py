"""What the server is held to, and whether it holds: each bar a figure taken round by round, with its spread.

A bar is held where the median holds it. Where nothing was measured that a bar speaks of, it says so, and is not held.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.serving.catalogue import FASTAPI, PYTRITON
from benchmarks.serving.experiment import Results, ort_cell, single
from benchmarks.serving.ratios import Cell, Measurement, Spread, figure, of_cell, ratio
from benchmarks.serving.subjects import BARE, SLIPWAY, SLIPWAY_OFF, SLIPWAY_ONE, SLIPWAY_TWO
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import MID, SMALL

_MID_FORMS = (Form.PLAIN, Form.V2_BINARY)
BEATEN = ("mlserver", "kserve", "bentoml", "litserve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A figure and its limit, `at_least` or at most."""

    what: str
    limit: float
    found: Spread | None
    at_least: bool = True

    @property
    def is_held(self) -> bool:
        """Whether it was measured, and the median holds it."""
        holds = operator.ge if self.at_least else operator.le
        return self.found is not None and holds(self.found.median, self.limit)

    @property
    def verdict(self) -> str:
        """One word or two for a table."""
        return "not measured" if self.found is None else "held" if self.is_held else "missed"

    @property
    def wanted(self) -> str:
        """The limit in words."""
        return f"at {'least' if self.at_least else 'most'} {figure(self.limit)}"


def bars(results: Results) -> list[Bar]:
    """Every bar, in the order of the table."""
    found = results.measurements
    return [*_rates(found), *_latencies(results), *_forms(found)]


def _rates(found: Sequence[Measurement]) -> list[Bar]:
    small = [
        Bar(
            what=f"small, {connections} connections{versions}: rate over FastAPI's",
            limit=limit,
            found=_to(found, single(ours, SMALL, connections=connections), FASTAPI),
        )
        for ours, versions in ((SLIPWAY, ""), (SLIPWAY_ONE, ", one version"))
        for connections, limit in ((1, 5), (16, 10), (64, 10))
    ]
    return [
        *small,
        Bar(what=f"small, 64: rate over the best of {', '.join(BEATEN)}", limit=25, found=best_ratio(found, SMALL)),
        *_mid_rates(found, "FastAPI's", FASTAPI, 12),
        *_mid_rates(found, "PyTriton's", PYTRITON, 2.5),
        *(
            Bar(
                what=f"mid, 64, one version, {form}: rate over ONNX Runtime's own in batches of 64",
                limit=0.8,
                found=ratio(found, single(SLIPWAY_ONE, MID, form=form), ort_cell(MID)),
            )
            for form in _MID_FORMS
        ),
    ]


def _mid_rates(found: Sequence[Measurement], whose: str, peer: str, limit: float) -> list[Bar]:
    """With a candidate, and with one version as the peer has it."""
    with_candidate = Bar(what=f"mid, 64: rate over {whose}", limit=limit, found=_to(found, single(SLIPWAY, MID), peer))
    alone = [
        Bar(
            what=f"mid, 64, one version, {form}: rate over {whose}",
            limit=limit,
            found=_to(found, single(SLIPWAY_ONE, MID, form=form), peer),
        )
        for form in _MID_FORMS
    ]
    return [with_candidate, *alone]


def _latencies(results: Results) -> list[Bar]:
    found = results.measurements
    lone = (single(SLIPWAY, SMALL, connections=1), single(BARE, SMALL, connections=1))
    both = ratio(found, single(SLIPWAY, SMALL), single(SLIPWAY_OFF, SMALL))
    cost = None if both is None else Spread.of(1 - one for one in (both.least, both.median, both.greatest))
    opened = results.open_loops.get(SLIPWAY)
    held = results.memory.get(f"{SLIPWAY_ONE} {SMALL}")
    return [
        *(
            Bar(
                what=f"mid, 64, one version, {form}: p99 over p50",
                limit=2,
                found=_tail(found, single(SLIPWAY_ONE, MID, form=form)),
                at_least=False,
            )
            for form in _MID_FORMS
        ),
        Bar(what="small, 1: p50 over the bare loop's", limit=1.3, found=ratio(found, *lone, "p50_ms"), at_least=False),
        Bar(what="small, 64: share of the rate that everything on costs", limit=0.15, found=cost, at_least=False),
        Bar(
            what="small, open loop at half of the peak: p99 in ms",
            limit=3,
            found=Spread.of(one["p99_ms"] for one in opened) if opened else None,
            at_least=False,
        ),
        Bar(
            what="small, idle, one version: PSS of the whole process tree in MB",
            limit=90,
            found=Spread.of([held.pss_mb]) if held else None,
            at_least=False,
        ),
        *(
            Bar(
                what=f"small: CPU time a request, two workers with {connections} connections over one with 64",
                limit=1.15,
                found=ratio(
                    found, single(SLIPWAY_TWO, SMALL, connections=connections), single(SLIPWAY, SMALL), "cpu_us"
                ),
                at_least=False,
            )
            for connections in (64, 128)
        ),
    ]


def _forms(found: Sequence[Measurement]) -> list[Bar]:
    plain = single(SLIPWAY, SMALL)
    return [
        Bar(
            what=f"small, 64: {form}'s rate over the plain body's",
            limit=limit,
            found=ratio(found, single(SLIPWAY, SMALL, form=form), plain),
        )
        for form, limit in ((Form.V2_JSON, 0.8), (Form.V2_BINARY, 1.0))
    ]


def best_ratio(found: Sequence[Measurement], workload: str) -> Spread | None:
    """Slipway's rate over that of the peer which was fastest in the same round; None where not all were measured."""
    ours = of_cell(found, single(SLIPWAY, workload))
    theirs = [of_peer(found, name, workload) for name in BEATEN]
    if not all(theirs):
        return None
    together = set(ours).intersection(*theirs)
    return Spread.of(ours[number] / max(one[number] for one in theirs) for number in together) if together else None


def of_peer(found: Sequence[Measurement], name: str, workload: str, connections: int = 64) -> dict[int, float]:
    """A peer's rate by round, in whichever form it takes."""
    cell = peer_cell(found, name, workload, connections)
    return of_cell(found, cell) if cell else {}


def peer_cell(found: Sequence[Measurement], name: str, workload: str, connections: int = 64) -> Cell | None:
    """The cell that a peer was measured in; None where it was not."""
    cells = {one.cell for one in found}
    wanted = (name, workload, connections)
    return next((cell for cell in cells if (cell.subject, cell.workload, cell.connections) == wanted), None)


def _to(found: Sequence[Measurement], ours: Cell, peer: str) -> Spread | None:
    """The rate of a cell of ours over that of a peer with as many connections."""
    cell = peer_cell(found, peer, ours.workload, ours.connections)
    return ratio(found, ours, cell) if cell else None


def _tail(found: Sequence[Measurement], cell: Cell) -> Spread | None:
    tails = [one.p99_ms / one.p50_ms for one in found if one.cell == cell]
    return Spread.of(tails) if tails else None
