"""Validation: the checks in their order, cheapest first, each on what the ones before it made. Runs in the sandbox.

The chain ends at the first check without which the next cannot run or would not matter. Nothing here decides: verdicts
come from shared.validation.checks, and join to the report's outcome.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from shared.core.verdict import Outcome, Verdict, joined
from shared.validation.checks import data as checks
from shared.validation.datafile import Array, read_arrays
from shared.validation.golden import NoGoldenRowsError, NotRepeatableError, golden_rows
from shared.validation.graph import read_model
from shared.validation.model import BATCH_ROWS, LoadedModel, ModelError, load
from shared.validation.predictions import measure
from shared.validation.refusal import MAX_MESSAGE_LENGTH, DropRefusedError, excerpt
from shared.validation.report import ValidationReport
from shared.validation.wire import GOLDEN_FILE, Stage, ValidateTask

_MAX_SINGLE_ROWS = 32


def validate(work: ValidateTask, *, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> ValidationReport:
    """Check a model; golden rows go to `workdir`. What a model does wrong is a verdict; only MemoryError is raised."""
    started = time.monotonic()
    chain = _Chain(work, workdir, file_bytes, begin)
    for step in (chain.check_file, chain.load, chain.read_data, chain.run, chain.measure, chain.make_golden):
        if not step():
            break
    return ValidationReport(
        outcome=joined(chain.verdicts),
        verdicts=tuple(_bounded(verdict) for verdict in chain.verdicts),
        metrics=chain.metrics,
        signature=chain.model.signature if chain.model else None,
        rows=chain.rows,
        has_golden=chain.has_golden,
        duration_s=round(time.monotonic() - started, 3),
        versions={"onnx": onnx.__version__, "onnxruntime": ort.__version__},
    )


class _Chain:
    """What the steps made so far. Each step says whether the next one is to be taken."""

    def __init__(self, work: ValidateTask, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> None:
        self._work = work
        self._workdir = workdir
        self._file_bytes = file_bytes
        self._begin = begin
        self._data: dict[str, Array] | None = None
        self._labels: Array | None = None
        self._outputs: dict[str, Array] = {}
        self.verdicts: list[Verdict] = []
        self.metrics: dict[str, float] = {}
        self.model: LoadedModel | None = None
        self.rows = 0
        self.has_golden = False

    def check_file(self) -> bool:
        self._begin(Stage.CHECKING)
        path = self._work.model.path
        if not self._add(checks.size(self._work.model.size_bytes, self._work.policy)):
            return False
        try:
            return self._add(checks.operators(read_model(path)))
        except DropRefusedError as refusal:
            return self._add(checks.failed("onnx", str(refusal)))

    def load(self) -> bool:
        self._begin(Stage.LOADING)
        try:
            self.model = load(self._work.model.path)
        except ModelError as error:
            return self._add(checks.failed("load", str(error)))
        return self._add(checks.loads(self.model.signature))

    def read_data(self) -> bool:
        if self._work.validation is None:
            return self._add(checks.without_data(self._work.policy)) and self._read_reference()
        self._begin(Stage.READING_DATA)
        try:
            arrays = read_arrays(self._work.validation, what="the validation data", max_bytes=self._file_bytes)
        except DropRefusedError as refusal:
            return self._add(checks.failed("data", str(refusal)))
        unlabelled = checks.labels(arrays, self._work.manifest)
        if unlabelled is not None:
            return self._add(unlabelled)
        self._labels = arrays.pop(self._work.manifest.label)
        model = self._loaded()
        verdict = checks.data(model.signature, arrays, what="data", policy=self._work.policy)
        if verdict.outcome is Outcome.PASS:
            try:
                self._data, self.rows = model.prepared(arrays), len(self._labels)
            except ModelError as error:
                verdict = checks.failed("data", str(error))
        return self._add(verdict) and self._read_reference()

    def _read_reference(self) -> bool:
        if self._work.reference is None:
            return True
        self._begin(Stage.READING_DATA)
        try:
            arrays = read_arrays(self._work.reference, what="the reference data", max_bytes=self._file_bytes)
        except DropRefusedError as refusal:
            return self._add(checks.failed("reference", str(refusal)))
        arrays.pop(self._work.manifest.label, None)
        return self._add(checks.data(self._loaded().signature, arrays, what="reference", policy=self._work.policy))

    def run(self) -> bool:
        if self._data is None:
            return True
        self._begin(Stage.RUNNING)
        model = self._loaded()
        try:
            fixed = model.rows_at_once
            self._outputs = model.run_rows(self._data, self.rows, fixed or BATCH_ROWS)
            if fixed is None:
                single = np.unique(np.linspace(0, self.rows - 1, _MAX_SINGLE_ROWS).astype(int))
                model.run_rows({name: array[single] for name, array in self._data.items()}, len(single), 1)
        except ModelError as error:
            return self._add(checks.failed("run", str(error)))
        return self._add(checks.outputs(self._outputs, self.rows, self._work.policy))

    def measure(self) -> bool:
        if self._labels is None:
            return True
        self._begin(Stage.MEASURING)
        manifest = self._work.manifest
        try:
            self.metrics = measure(self._labels, self._outputs, self._loaded().signature, manifest)
        except ModelError as error:
            return self._add(checks.failed("metrics", str(error)))
        verdicts = checks.thresholds(self.metrics, self.rows, manifest.task, self._work.policy)
        remark = checks.claims(manifest.metrics, self.metrics)
        self.verdicts += verdicts + ([remark] if remark else [])
        return joined(verdicts) is Outcome.PASS

    def make_golden(self) -> bool:
        self._begin(Stage.GOLDEN)
        try:
            content, cases = golden_rows(self._loaded(), self._data, self.rows)
        except NotRepeatableError as error:
            # Metrics of a model that answers by chance cannot be repeated, nor can a server prove that it has it.
            return self._add(Verdict(check="golden", outcome=Outcome.INCONCLUSIVE, sentence=f"no golden rows: {error}"))
        except NoGoldenRowsError as error:
            return self._add(checks.passed("golden", f"no golden rows: {error}"))
        except ModelError as error:
            return self._add(self._without_golden(error))
        _write(self._workdir / GOLDEN_FILE, content)
        self.has_golden = True
        return self._add(checks.passed("golden", f"{cases} golden rows, the same when run twice", n=cases))

    def _without_golden(self, error: ModelError) -> Verdict:
        """A model that fails on inputs that were made up may still be right; on its own data it may not fail."""
        if self._data is None:
            return checks.passed("golden", f"no golden rows: on made-up inputs {error}")
        return checks.failed("golden", str(error))

    def _loaded(self) -> LoadedModel:
        if self.model is None:
            raise AssertionError("the steps after `load` are taken with a loaded model only")
        return self.model

    def _add(self, verdict: Verdict) -> bool:
        self.verdicts.append(verdict)
        return verdict.outcome is Outcome.PASS


def _bounded(verdict: Verdict) -> Verdict:
    """Sentences hold names from the model, which may be of any length."""
    return verdict.model_copy(update={"sentence": excerpt(verdict.sentence, MAX_MESSAGE_LENGTH)})


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
