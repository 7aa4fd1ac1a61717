"""Interleaved rounds: every server is measured once in each round, next to those it is compared with.

All servers of a model run throughout, and all but the one being measured are stopped where they stand. Each round goes
through the servers in another order, so that none always follows the same one.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving import grpcload, machine, wire, wrk
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Cell, Measurement
from benchmarks.serving.subjects import Subject
from benchmarks.serving.wire import Form
from benchmarks.serving.wrk import Load, LoadError

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the rounds found. `failed` says of what could not be measured in a round why, by what and round."""

    measurements: list[Measurement] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def measure(
    asked: Sequence[tuple[Subject, Sequence[Ask]]],
    *,
    length: Length,
    cores: Cores,
    folder: Path,
    beside: Callable[[int], Measurement] | None = None,
) -> Found:
    """Measure servers, all of one model, in interleaved rounds; in each also what is measured without a server.

    What fails is told of, and the rest goes on. All servers go on afterwards.
    """
    found = Found()
    subjects = [subject for subject, _ in asked]
    for subject in subjects:
        machine.freeze(subject.pid)
    try:
        for number in range(length.rounds):
            if beside is not None:
                found.measurements.append(beside(number))
            turn = number % len(asked)
            for subject, asks in [*asked[turn:], *asked[:turn]]:
                machine.thaw(subject.pid)
                asks = [ask for ask in asks if ask.form in subject.paths]  # noqa: PLW2901 - the same, fewer
                _measure_one(found, subject, asks, number, length=length, cores=cores, folder=folder)
                machine.freeze(subject.pid)
    finally:
        for subject in subjects:
            machine.thaw(subject.pid)
    return found


def requests_file(subject: Subject, ask: Ask, folder: Path) -> Path:
    """The file of a server's requests, written where it is not there yet."""
    path = folder / f"{subject.name}-{subject.workload.name}-{subject.port}-{ask.form}-{ask.rows}.http"
    if not path.exists():
        messages = subject.messages(ask.form, ask.rows)
        is_grpc = ask.form is Form.GRPC
        wire.save((one.body if is_grpc else one.http1(subject.port) for one in messages), path)
    return path


def _measure_one(
    found: Found,
    subject: Subject,
    asks: Sequence[Ask],
    number: int,
    *,
    length: Length,
    cores: Cores,
    folder: Path,
) -> None:
    for ask in asks:
        try:
            found.measurements.append(
                _measured(subject, ask, number, length=length, cores=cores, folder=folder, is_first=ask is asks[0])
            )
        except LoadError as error:
            what = f"{subject.name}, {ask.form}, {ask.rows} rows, {ask.connections} connections"
            found.failed[f"{what}, {subject.workload.name}, round {number + 1}"] = str(error)
            print(f"failed: {what}: {error}", file=sys.stderr, flush=True)


def _load(subject: Subject, ask: Ask, path: Path, *, duration_s: int, core: str) -> Load:
    if ask.form is Form.GRPC:
        return grpcload.run(subject.grpc_port, path, connections=ask.connections, duration_s=duration_s, core=core)
    return wrk.run(subject.url, path, connections=ask.connections, duration_s=duration_s, core=core)


def _measured(
    subject: Subject, ask: Ask, number: int, *, length: Length, cores: Cores, folder: Path, is_first: bool
) -> Measurement:
    path = requests_file(subject, ask, folder)
    if is_first:
        _load(subject, ask, path, duration_s=_WARM_S, core=cores.load)
    used_s = machine.cpu_s(subject.pid)
    load = _load(subject, ask, path, duration_s=length.measured_s, core=cores.load)
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
