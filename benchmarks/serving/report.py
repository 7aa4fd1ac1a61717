"""The results as JSON, for whoever reckons on, and as Markdown tables, for docs/serving.md."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.serving import bars, machine
from benchmarks.serving.catalogue import FASTAPI, PEERS
from benchmarks.serving.experiment import ORT, Results
from benchmarks.serving.ratios import Cell, Measurement, Spread, figure, ratio, spread
from benchmarks.serving.subjects import (
    BARE,
    CONSTANT,
    SLIPWAY,
    SLIPWAY_GRPC,
    SLIPWAY_OFF,
    SLIPWAY_ONE,
    SLIPWAY_TWO,
)

BEGIN, END = "<!-- benchmark: begin -->", "<!-- benchmark: end -->"

_TITLES = {
    SLIPWAY: "**Slipway**, everything on",
    SLIPWAY_OFF: "Slipway, what can be turned off turned off",
    SLIPWAY_ONE: "**Slipway**, everything on, one version",
    SLIPWAY_TWO: "Slipway, everything on, two workers on both cores",
    SLIPWAY_GRPC: "Slipway, everything on, gRPC beside HTTP",
    BARE: "the bare loop",
    CONSTANT: "a constant answer",
    ORT: "ONNX Runtime alone",
} | {peer.name: peer.title for peer in PEERS}


def as_json(results: Results) -> dict[str, Any]:
    """Everything that was found, with the machine that it was found on."""
    return {
        "machine": machine.described(),
        "bars": [asdict(bar) | {"verdict": bar.verdict} for bar in bars.bars(results)],
        "variants": results.variants,
        "not_run": results.not_run,
        "memory": {name: asdict(held) for name, held in results.memory.items()},
        "open_loops": results.open_loops,
        "screened": results.screened,
        "measurements": [asdict(one) for one in results.measurements],
    }


def as_markdown(results: Results, command: str) -> str:
    """The tables."""
    where = machine.described()
    packages = ", ".join(f"{name} {where[name]}" for name in ("python", *machine.PACKAGES))
    parts = [
        f"Made by `{command}` on {where['cpu']}, {where['cores']} cores, TCP {where['tcp']}; {packages}.",
        _bars(results),
        _rates(results.measurements),
        _memory(results),
        _open_loops(results),
        _variants(results),
        _not_run(results),
    ]
    return "\n\n".join(part for part in parts if part)


def write_between(path: Path, text: str) -> None:
    """Put text between the marks of a document. Raises ValueError where it does not have both, once, in order."""
    old = path.read_text("utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before or END in after:
        raise ValueError(f"{path} does not have the lines {BEGIN} and {END}, each once: put them where the tables go")
    path.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", "utf-8")


def _bars(results: Results) -> str:
    rows = ((bar.what, bar.wanted, str(bar.found or "-"), bar.verdict) for bar in bars.bars(results))
    return _table(("bar", "wanted", "median (least to greatest)", ""), rows)


def _rates(found: Sequence[Measurement]) -> str:
    cells = sorted({one.cell for one in found}, key=lambda cell: (cell.workload, cell.rows, cell.connections))
    cells.sort(key=lambda cell: cell.workload, reverse=True)
    rows = []
    for cell in cells:
        to_fastapi = _to_fastapi(found, cell)
        rate, p50 = spread(found, cell), spread(found, cell, "p50_ms")
        p99, cpu = spread(found, cell, "p99_ms"), spread(found, cell, "cpu_us")
        if rate and p50 and p99 and cpu:
            rows.append(
                (
                    cell.workload,
                    _TITLES.get(cell.subject, cell.subject),
                    cell.form,
                    str(cell.rows),
                    str(cell.connections or "-"),
                    figure(rate.median),
                    to_fastapi,
                    figure(p50.median),
                    figure(p99.median),
                    figure(cpu.median),
                    f"{rate.median * cpu.median / 1e4:.0f}" if cell.connections else "-",
                )
            )
    titles = (
        "model",
        "server",
        "body",
        "rows",
        "connections",
        "a second",
        "over FastAPI",
        "p50 ms",
        "p99 ms",
        "CPU us",
        "% of core",
    )
    return _table(titles, rows)


def _to_fastapi(found: Sequence[Measurement], cell: Cell) -> str:
    base = bars.peer_cell(found, FASTAPI, cell.workload, cell.connections)
    over = ratio(found, cell, base) if base and cell.rows == 1 else None
    return str(over) if over else "-"


def _memory(results: Results) -> str:
    rows = []
    for name, held in results.memory.items():
        subject, _, workload = name.rpartition(" ")
        mb = (figure(held.rss_mb), figure(held.pss_mb), str(held.processes))
        rows.append((workload, _TITLES.get(subject, subject), *mb))
    return _table(("model", "idle server", "RSS MB", "PSS MB", "processes"), rows)


def _open_loops(results: Results) -> str:
    names = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "lag_p99_ms")
    rows = []
    for name, rounds in results.open_loops.items():
        spreads = (str(Spread.of(one[key] for one in rounds)) for key in names)
        failed = sum(one["failed"] + one["late"] for one in rounds)
        rows.append((_TITLES[name], figure(rounds[0]["rate"]), *spreads, f"{failed:.0f}"))
    titles = (
        "open loop",
        "a second",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "max ms",
        "p99 of the generator's lag ms",
        "failed",
    )
    return _table(titles, rows)


def _variants(results: Results) -> str:
    best = results.variants
    rows = (
        (
            _TITLES[one["peer"]],
            one["variant"],
            one["workload"],
            figure(one["rate"]),
            "chosen" if best.get(one["workload"], {}).get(one["peer"]) == one["variant"] else "",
        )
        for one in results.screened
    )
    return _table(("peer", "setting", "model", "a second", ""), rows)


def _not_run(results: Results) -> str:
    # A reason may end with a log: its first line says what went wrong.
    rows = ((name, why.partition("\n")[0][:200].replace("|", "/")) for name, why in results.not_run.items())
    return _table(("not run", "why"), rows)


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    return "\n".join([f"| {' | '.join(titles)} |", f"| {' | '.join('---' for _ in titles)} |", *lines])
