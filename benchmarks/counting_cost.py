"""What the counting of features costs a request: the model server with it on and off, in interleaved rounds.

Run `.venv/bin/python -m benchmarks.counting_cost [ROUNDS [SECONDS]]` (8 rounds of 3 s by default), with wrk on PATH.
Both servers serve the small model (30 numbers a row), on one core, the load on another. Told of each way of asking:
processor time of the server a request, as the median of the rounds' ratios with their range, and the 99th percentile
of a closed loop's latencies.
"""

import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import machine, rounds, subjects, wrk
from benchmarks.serving.machine import Cores
from benchmarks.serving.rounds import Ask
from benchmarks.serving.subjects import COUNTING, NOT_COUNTING, Subject
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import SMALL, workload

ROUNDS, SECONDS = 8, 3
ASKS = (
    Ask(form=Form.PLAIN, rows=1, connections=1),
    Ask(form=Form.PLAIN, rows=1, connections=64),
    Ask(form=Form.V2_BINARY, rows=1, connections=64),
    Ask(form=Form.V2_BINARY, rows=64, connections=8),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one server, in one round."""

    cpu_us: float
    p50_ms: float
    p99_ms: float
    rate: float


def measured(subject: Subject, ask: Ask, *, cores: Cores, folder: Path, duration_s: int) -> Cost:
    """Ask one server."""
    requests = rounds.requests_file(subject, ask, folder)
    before_s = machine.cpu_s(subject.pid)
    load = wrk.run(subject.url, requests, connections=ask.connections, duration_s=duration_s, core=cores.load)
    cpu_us = (machine.cpu_s(subject.pid) - before_s) / load.requests * 1e6
    return Cost(cpu_us=cpu_us, p50_ms=load.p50_ms, p99_ms=load.p99_ms, rate=load.rate)


def compared(
    servers: Sequence[Subject], number: int, *, cores: Cores, folder: Path, duration_s: int
) -> list[list[Cost]]:
    """A round: of each way of asking, the costs of the servers, in their order. They take turns in being first."""
    found = []
    for subject in servers:
        machine.freeze(subject.pid)
    try:
        for ask in ASKS:
            costs: dict[str, Cost] = {}
            for subject in servers if number % 2 else servers[::-1]:
                machine.thaw(subject.pid)
                costs[subject.name] = measured(subject, ask, cores=cores, folder=folder, duration_s=duration_s)
                machine.freeze(subject.pid)
            found.append([costs[subject.name] for subject in servers])
    finally:
        for subject in servers:
            machine.thaw(subject.pid)
    return found


def main(count: int = ROUNDS, duration_s: int = SECONDS) -> None:
    """Measure, and write a table."""
    cores = Cores.of_this_machine()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        small = workload(SMALL, folder)
        connection = stack.enter_context(subjects.storage(folder))
        servers = [
            stack.enter_context(
                subjects.slipway(small, connection=connection, folder=folder, core=cores.serve, name=setup)
            )
            for setup in (COUNTING, NOT_COUNTING)
        ]
        compared(servers, 0, cores=cores, folder=folder, duration_s=1)
        each = [compared(servers, number, cores=cores, folder=folder, duration_s=duration_s) for number in range(count)]
    print("| asked | off: us of processor a request | on | ratio (range) | p50 off, on (ms) | p99 off, on (ms) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for place, ask in enumerate(ASKS):
        print(_line(ask, [one[place] for one in each]))


def _line(ask: Ask, pairs: Sequence[Sequence[Cost]]) -> str:
    on, off = ([pair[side] for pair in pairs] for side in (0, 1))
    ratios = [a.cpu_us / b.cpu_us for a, b in zip(on, off, strict=True)]
    rows = f"{ask.rows} row{'s' if ask.rows > 1 else ''}"
    return (
        f"| {ask.form}, {rows}, {ask.connections} at once | {_median(c.cpu_us for c in off):.1f} "
        f"| {_median(c.cpu_us for c in on):.1f} | {_median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
        f"| {_median(c.p50_ms for c in off):.2f}, {_median(c.p50_ms for c in on):.2f} "
        f"| {_median(c.p99_ms for c in off):.2f}, {_median(c.p99_ms for c in on):.2f} |"
    )


_median = statistics.median


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
