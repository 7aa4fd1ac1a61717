"""Interleaved rounds: every server is measured once in each round, next to those it is compared with.

All servers of a model run throughout, and all but the one being measured are stopped where they stand. Each round goes
through the servers in another order, so that none always follows the same one.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import machine, wire, wrk
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Cell, Measurement
from benchmarks.serving.subjects import Subject
from benchmarks.serving.wire import Form

_WARM_S = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What is asked of a server in each round."""

    form: Form = Form.PLAIN
    rows: int = 1
    connections: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How many rounds, and how long each measurement lasts."""

    rounds: int
    measured_s: int


def measure(
    asked: Sequence[tuple[Subject, Sequence[Ask]]],
    *,
    length: Length,
    cores: Cores,
    folder: Path,
    beside: Callable[[int], Measurement] | None = None,
) -> list[Measurement]:
    """Measure servers, all of one model, in interleaved rounds; in each also what is measured without a server.

    Raises LoadError. All servers go on afterwards.
    """
    found: list[Measurement] = []
    subjects = [subject for subject, _ in asked]
    for subject in subjects:
        machine.freeze(subject.pid)
    try:
        for number in range(length.rounds):
            if beside is not None:
                found.append(beside(number))
            turn = number % len(asked)
            for subject, asks in [*asked[turn:], *asked[:turn]]:
                machine.thaw(subject.pid)
                found += [
                    _measured(subject, ask, number, length=length, cores=cores, folder=folder, is_first=ask is asks[0])
                    for ask in asks
                    if ask.form in subject.paths
                ]
                machine.freeze(subject.pid)
    finally:
        for subject in subjects:
            machine.thaw(subject.pid)
    return found


def requests_file(subject: Subject, ask: Ask, folder: Path) -> Path:
    """The file of a server's requests, written where it is not there yet."""
    path = folder / f"{subject.name}-{subject.workload.name}-{subject.port}-{ask.form}-{ask.rows}.http"
    if not path.exists():
        wire.save(subject.messages(ask.form, ask.rows), subject.port, path)
    return path


def _measured(
    subject: Subject, ask: Ask, number: int, *, length: Length, cores: Cores, folder: Path, is_first: bool
) -> Measurement:
    path = requests_file(subject, ask, folder)
    if is_first:
        wrk.run(subject.url, path, connections=ask.connections, duration_s=_WARM_S, core=cores.load)
    used_s = machine.cpu_s(subject.pid)
    load = wrk.run(subject.url, path, connections=ask.connections, duration_s=length.measured_s, core=cores.load)
    used_s = machine.cpu_s(subject.pid) - used_s
    cell = Cell(
        subject=subject.name,
        workload=subject.workload.name,
        form=str(ask.form),
        rows=ask.rows,
        connections=ask.connections,
    )
    now = time.strftime("%H:%M:%S")
    print(
        f"{now} round {number + 1} {cell.workload} {cell.subject} {cell.form} {cell.rows} rows {cell.connections} "
        f"connections: {load.rate:,.0f}/s, p50 {load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms",
        file=sys.stderr,
        flush=True,
    )
    return Measurement(
        cell=cell,
        round=number,
        rate=load.rate,
        p50_ms=load.p50_ms,
        p90_ms=load.p90_ms,
        p99_ms=load.p99_ms,
        max_ms=load.max_ms,
        cpu_us=used_s / load.requests * 1e6,
    )
