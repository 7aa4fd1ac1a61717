"""The whole benchmark: which servers are asked what, and everything that was found.

For each model all servers are started and checked, their idle memory is read, and the rounds are run; on the small one
an open loop follows at half of the peak that the rounds found. The full form first tries every variant of every peer,
and goes on with the fastest one of each. A peer that cannot be run is told of with the reason.
"""

import json
import operator
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.serving import catalogue, machine, rounds, subjects, workloads
from benchmarks.serving.catalogue import FASTAPI, Peer, Variant
from benchmarks.serving.environments import EnvironmentMissingError
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Cell, Measurement, Spread, spread
from benchmarks.serving.rounds import Ask, Length
from benchmarks.serving.subjects import Subject, WrongAnswerError
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import SMALL, Workload
from benchmarks.serving.wrk import LoadError
from local.processes import ProcessStartError
from local.system import REPOSITORY

CONNECTIONS = (1, 16, 64)
ORT, TIGHT_LOOP, ORT_ROWS = "onnxruntime", "tight loop", 64
_SCREENED_S = 2
_OPEN_CONNECTIONS = 64

type _Asked = list[tuple[Subject, list[Ask]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much is measured. With `peers` every peer, else FastAPI alone; `open_s` is the open loop's length."""

    length: Length
    open_s: int
    peers: bool


SHORT = Plan(length=Length(rounds=3, measured_s=1), open_s=5, peers=False)
FULL = Plan(length=Length(rounds=7, measured_s=3), open_s=20, peers=True)


@dataclass(kw_only=True)
class Results:
    """All that was found. `not_run` says of what was not measured why; `open_loops` are by server."""

    measurements: list[Measurement] = field(default_factory=list)
    memory: dict[str, machine.Memory] = field(default_factory=dict)
    variants: dict[str, dict[str, str]] = field(default_factory=dict)
    screened: list[dict[str, Any]] = field(default_factory=list)
    not_run: dict[str, str] = field(default_factory=dict)
    open_loops: dict[str, dict[str, float]] = field(default_factory=dict)


class Experiment:
    """One run. `folder` is for what it leaves behind and nobody needs; `cache` for models and environments."""

    def __init__(self, plan: Plan, *, cores: Cores, cache: Path, folder: Path) -> None:
        self._plan = plan
        self._cores = cores
        self._cache = cache
        self._folder = folder
        self.results = Results()

    def run(self) -> Results:
        """Measure everything. Raises LoadError, ProcessStartError or WrongAnswerError where it is not a peer's."""
        for name in workloads.NAMES:
            workload = workloads.workload(name, self._cache)
            chosen = self._chosen(workload)
            with ExitStack() as running:
                asked = self._start(running, workload, chosen)
                # What only one of them is for, such as being idle, comes before any load.
                for subject, _ in asked:
                    self.results.memory[f"{subject.name} {workload.name}"] = machine.memory(subject.pid)
                beside = None if workload.name == SMALL else lambda number: self._ort(workload, number)  # noqa: B023 - called below
                self.results.measurements += rounds.measure(
                    asked, length=self._plan.length, cores=self._cores, folder=self._folder, beside=beside
                )
                if workload.name == SMALL:
                    self._open_loops([subject for subject, _ in asked])
        return self.results

    def _chosen(self, workload: Workload) -> list[tuple[Peer, Variant]]:
        """Each peer that runs, in the variant that does most at 64 connections."""
        if not self._plan.peers:
            fastapi = catalogue.peer(FASTAPI)
            return [(fastapi, fastapi.variants[0])]
        chosen = []
        for peer in catalogue.PEERS:
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
        except (EnvironmentMissingError, ProcessStartError, WrongAnswerError, LoadError) as error:
            self.results.not_run[where] = str(error)
            print(f"not run: {where}: {error}", file=sys.stderr, flush=True)
            return None
        rate = found[0].rate
        screened = {"peer": peer.name, "variant": variant.name, "workload": workload.name, "rate": rate}
        self.results.screened.append(screened)
        return rate

    def _start(self, running: ExitStack, workload: Workload, chosen: list[tuple[Peer, Variant]]) -> _Asked:
        folder, core = self._scratch(), self._cores.serve
        connection = running.enter_context(subjects.storage(folder))
        is_small = workload.name == SMALL
        singles = [Ask(connections=number) for number in reversed(CONNECTIONS)]
        ours = running.enter_context(subjects.slipway(workload, connection=connection, folder=folder, core=core))
        off = subjects.slipway(workload, connection=connection, folder=folder, core=core, off=True)
        bare = subjects.bare(workload, folder=folder, core=core)
        asked: _Asked = [
            (ours, [*singles, *_OTHER_FORMS, *(_MORE_ROWS if is_small else ())]),
            (running.enter_context(off), [Ask()]),
            (running.enter_context(bare), [Ask(), Ask(connections=1)]),
        ]
        for form, why in ours.missing.items():
            self.results.not_run[f"Slipway, {form}, {workload.name}"] = why
        if is_small:
            constant = subjects.bare(workload, folder=folder, core=core, constant=True)
            asked.append((running.enter_context(constant), [Ask()]))
        for peer, variant in chosen:
            started = subjects.peer(peer, variant, workload, cache=self._cache, folder=folder, core=core)
            connections = CONNECTIONS if peer.name == FASTAPI else (1, 64)
            asks = [Ask(form=variant.form, connections=number) for number in reversed(connections)]
            # Next to Slipway, so that the two that every ratio is taken of are measured one after the other.
            asked.insert(1 if peer.name == FASTAPI else len(asked), (running.enter_context(started), asks))
        return asked

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
        peak = spread(self.results.measurements, single(subjects.SLIPWAY, SMALL))
        asked = [one for one in running if one.name in {subjects.SLIPWAY, subjects.CONSTANT}]
        for one in running:
            machine.freeze(one.pid)
        try:
            for subject in asked:
                machine.thaw(subject.pid)
                self.results.open_loops[subject.name] = self._open_loop(subject, peak)
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


_OTHER_FORMS = (Ask(form=Form.V2_JSON), Ask(form=Form.V2_BINARY))
_MORE_ROWS = tuple(
    Ask(form=form, rows=rows, connections=16) for rows in (16, 256) for form in (Form.PLAIN, Form.V2_BINARY)
)
