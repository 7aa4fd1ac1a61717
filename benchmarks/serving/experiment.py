"""The whole benchmark: which servers are asked what, and everything that was found.

For each model all servers are started and checked, their idle memory is read, and the rounds are run; on the small one
an open loop follows at half of the peak that the rounds found. Of a peer with several variants each is tried first, and
the fastest one goes on. What cannot be run, or fails in a round, is told of with the reason, and the rest goes on.
"""

import json
import operator
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from benchmarks.serving import catalogue, machine, rounds, subjects, workloads
from benchmarks.serving.catalogue import FASTAPI, Peer, Variant
from benchmarks.serving.environments import EnvironmentMissingError
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Cell, Measurement, Spread, spread
from benchmarks.serving.rounds import Ask, Length
from benchmarks.serving.subjects import (
    SLIPWAY,
    SLIPWAY_GRPC,
    SLIPWAY_OFF,
    SLIPWAY_ONE,
    SLIPWAY_TWO,
    Subject,
    WrongAnswerError,
)
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import SMALL, Workload
from benchmarks.serving.wrk import LoadError
from local.processes import ProcessStartError
from local.system import REPOSITORY

CONNECTIONS = (1, 16, 64)
ORT, TIGHT_LOOP, ORT_ROWS = "onnxruntime", "tight loop", 64
_SCREENED_S = 1
_OPEN_CONNECTIONS = 64

type _Asked = list[tuple[Subject, list[Ask]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured, and which peers by name; `open_s` is an open loop's length, one a round."""

    length: Length
    open_s: int
    peers: tuple[str, ...]

    def with_length(self, *, rounds: int | None, seconds: int | None) -> Self:
        """Another number of rounds, another length of each measurement."""
        length = self.length
        return replace(self, length=Length(rounds=rounds or length.rounds, measured_s=seconds or length.measured_s))


SHORT = Plan(length=Length(rounds=3, measured_s=1), open_s=3, peers=(FASTAPI,))
FULL = Plan(length=Length(rounds=3, measured_s=2), open_s=5, peers=tuple(one.name for one in catalogue.PEERS))


@dataclass(kw_only=True)
class Results:
    """All that was found. `not_run` says of what was not measured why; `open_loops` are by server, one a round."""

    measurements: list[Measurement] = field(default_factory=list)
    memory: dict[str, machine.Memory] = field(default_factory=dict)
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    screened: list[dict[str, Any]] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    open_loops: dict[str, list[dict[str, float]]] = field(default_factory=dict)


class Experiment:
    """One run. `folder` is for what it leaves behind and nobody needs; `cache` for models and environments."""

    def __init__(self, plan: Plan, *, cores: Cores, cache: Path, folder: Path) -> None:
        self._plan = plan
        self._cores = cores
        self._cache = cache
        self._folder = folder
        self.results = Results()

    def run(self) -> Results:
        """Measure everything.

        Raises LoadError, ProcessStartError or WrongAnswerError where Slipway's own servers do not start and answer.
        """
        for name in workloads.NAMES:
            workload = workloads.workload(name, self._cache)
            chosen = self._chosen(workload)
            with ExitStack() as running:
                asked = self._start(running, workload, chosen)
                # What only one of them is for, such as being idle, comes before any load.
                for subject, _ in asked:
                    self.results.memory[f"{subject.name} {workload.name}"] = machine.memory(subject.pid)
                beside = None if workload.name == SMALL else lambda number: self._ort(workload, number)  # noqa: B023 - called below
                found = rounds.measure(
                    asked, length=self._plan.length, cores=self._cores, folder=self._folder, beside=beside
                )
                self.results.measurements += found.measurements
                self.results.not_run |= found.failed
                if workload.name == SMALL:
                    self._open_loops([subject for subject, _ in asked])
        return self.results

    def _chosen(self, workload: Workload) -> list[tuple[Peer, Variant]]:
        """Each peer that runs, in the variant that does most at 64 connections."""
        chosen = []
        for peer in (one for one in catalogue.PEERS if one.name in self._plan.peers):
            if len(peer.variants) == 1:
                chosen.append((peer, peer.variants[0]))
                continue
            tried = [(rate, one) for one in peer.variants if (rate := self._screened(peer, one, workload))]
            if tried:
                _, best = max(tried, key=operator.itemgetter(0))
                chosen.append((peer, best))
                self.results.variants.setdefault(workload.name, {})[peer.name] = best.name
        return chosen

    def _screened(self, peer: Peer, variant: Variant, workload: Workload) -> float | None:
        where = f"{peer.title}, {variant.name}, {workload.name}"
        try:
            with subjects.peer(
                peer, variant, workload, cache=self._cache, folder=self._scratch(), core=self._cores.serve
            ) as subject:
                length = Length(rounds=1, measured_s=_SCREENED_S)
                asked = [(subject, [Ask(form=variant.form)])]
                found = rounds.measure(asked, length=length, cores=self._cores, folder=self._scratch())
        except _PEER_ERRORS as error:
            self._not_run(where, error)
            return None
        if not found.measurements:
            self.results.not_run |= found.failed
            return None
        rate = found.measurements[0].rate
        screened = {"peer": peer.name, "variant": variant.name, "workload": workload.name, "rate": rate}
        self.results.screened.append(screened)
        return rate

    def _start(self, running: ExitStack, workload: Workload, chosen: list[tuple[Peer, Variant]]) -> _Asked:
        folder, core = self._scratch(), self._cores.serve
        connection = running.enter_context(subjects.storage(folder))
        is_small = workload.name == SMALL
        ours: dict[str, list[Ask]] = {SLIPWAY: [*_SINGLES, *_OTHER_FORMS, *(_MORE_ROWS if is_small else ())]}
        ours |= _SMALL_SETUPS if is_small else _MID_SETUPS
        asked: _Asked = []
        for name, asks in ours.items():
            where = self._cores.both if name == SLIPWAY_TWO else core
            started = subjects.slipway(workload, connection=connection, folder=folder, core=where, name=name)
            asked.append((running.enter_context(started), asks))
        for subject, _ in asked:
            for form, why in subject.missing.items():
                self.results.not_run[f"{subject.name}, {form}, {workload.name}"] = why
        bare = subjects.bare(workload, folder=folder, core=core)
        asked.append((running.enter_context(bare), _SINGLES))
        if is_small:
            constant = subjects.bare(workload, folder=folder, core=core, constant=True)
            asked.append((running.enter_context(constant), [Ask()]))
        for peer, variant in chosen:
            peers = subjects.peer(peer, variant, workload, cache=self._cache, folder=folder, core=core)
            connections = CONNECTIONS if peer.name == FASTAPI else (64,)
            asks = [Ask(form=variant.form, connections=number) for number in reversed(connections)]
            try:
                subject = running.enter_context(peers)
            except _PEER_ERRORS as error:
                self._not_run(f"{peer.title}, {variant.name}, {workload.name}", error)
                continue
            # Next to Slipway, so that the two that every ratio is taken of are measured one after the other.
            asked.insert(1 if peer.name == FASTAPI else len(asked), (subject, asks))
        return asked

    def _not_run(self, what: str, error: Exception) -> None:
        self.results.not_run[what] = str(error).partition("; its log ")[0]
        print(f"not run: {what}: {error}", file=sys.stderr, flush=True)

    def _ort(self, workload: Workload, number: int) -> Measurement:
        seconds = str(self._plan.length.measured_s)
        found = self._python(
            self._cores.serve, "benchmarks.serving.runtime", str(workload.path), str(ORT_ROWS), seconds
        )
        run_ms = found["run_us"] / 1e3
        return Measurement(
            cell=ort_cell(workload.name),
            round=number,
            rate=found["rows_per_s"],
            p50_ms=run_ms,
            p90_ms=run_ms,
            p99_ms=run_ms,
            max_ms=run_ms,
            cpu_us=1e6 / found["rows_per_s"],
        )

    def _open_loops(self, running: list[Subject]) -> None:
        """Half of Slipway's peak, asked of Slipway and of the constant answer, which shows what is the generator's."""
        peak = spread(self.results.measurements, single(SLIPWAY, SMALL))
        asked = [one for one in running if one.name in {SLIPWAY, subjects.CONSTANT}]
        for one in running:
            machine.freeze(one.pid)
        try:
            for subject in asked * self._plan.length.rounds:
                machine.thaw(subject.pid)
                self.results.open_loops.setdefault(subject.name, []).append(self._open_loop(subject, peak))
                machine.freeze(subject.pid)
        finally:
            for one in running:
                machine.thaw(one.pid)

    def _open_loop(self, subject: Subject, peak: Spread | None) -> dict[str, float]:
        path = rounds.requests_file(subject, Ask(), self._folder)
        rate = str(int((peak.median if peak else 0) / 2))
        where = [str(subject.port), str(path), rate]
        module = "benchmarks.serving.openloop"
        self._python(self._cores.load, module, *where, "1", str(_OPEN_CONNECTIONS))
        return self._python(self._cores.load, module, *where, str(self._plan.open_s), str(_OPEN_CONNECTIONS))

    def _python(self, core: str, module: str, *arguments: str) -> dict[str, float]:
        command = ["taskset", "-c", core, sys.executable, "-m", module, *arguments]
        ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise LoadError(f"{module} failed: {ended.stderr.strip()[-500:]}")
        found: dict[str, float] = json.loads(ended.stdout)
        return found

    def _scratch(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._folder))


def single(subject: str, workload: str, *, form: Form = Form.PLAIN, connections: int = 64) -> Cell:
    """The cell of single-row requests."""
    return Cell(subject=subject, workload=workload, form=str(form), rows=1, connections=connections)


def ort_cell(workload: str) -> Cell:
    """The cell of ONNX Runtime's own rate."""
    return Cell(subject=ORT, workload=workload, form=TIGHT_LOOP, rows=ORT_ROWS, connections=0)


_PEER_ERRORS = (EnvironmentMissingError, ProcessStartError, WrongAnswerError, LoadError, OSError)
_SINGLES = [Ask(connections=number) for number in reversed(CONNECTIONS)]
_OTHER_FORMS = (Ask(form=Form.V2_JSON), Ask(form=Form.V2_BINARY))
_MORE_ROWS = tuple(
    Ask(form=form, rows=rows, connections=16) for rows in (16, 256) for form in (Form.PLAIN, Form.V2_BINARY)
)
_SMALL_SETUPS: dict[str, list[Ask]] = {
    SLIPWAY_ONE: _SINGLES,
    SLIPWAY_OFF: [Ask()],
    SLIPWAY_TWO: [Ask(), Ask(connections=128)],
    SLIPWAY_GRPC: [Ask(form=Form.GRPC)],
}
_MID_SETUPS: dict[str, list[Ask]] = {SLIPWAY_ONE: [Ask(), Ask(form=Form.V2_BINARY)], SLIPWAY_OFF: [Ask()]}
