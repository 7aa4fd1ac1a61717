"""Validation: the checks in their order, cheapest first, each on what the ones before it made. Runs in the sandbox.

The chain ends at a step without which no other would hold: a file that is no model, a model that does not load or run,
data that does not fit. Everything else is carried out, whatever was found before, so that one report tells all that is
wrong. Nothing here decides: verdicts come from shared.validation.checks and shared.validation.statistics, and join to
the report's outcome.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort

from shared.core.verdict import Outcome, Verdict, joined
from shared.validation.chain import Chain
from shared.validation.checks.verdicts import failed
from shared.validation.details import Details
from shared.validation.model import ModelError
from shared.validation.refusal import MAX_MESSAGE_LENGTH, excerpt
from shared.validation.report import ValidationReport
from shared.validation.steps import data, machine, model, profile, quality
from shared.validation.wire import Stage, ValidateTask

_MAX_ERROR = 300
_STEPS: tuple[Callable[[Chain], bool], ...] = (
    model.check_file,
    model.load_model,
    model.compare_signature,
    data.read_data,
    data.run_rows,
    quality.measure,
    quality.compare,
    quality.slices,
    quality.fairness,
    quality.drift,
    machine.check_robustness,
    machine.check_latency,
    machine.make_golden,
    profile.make_profile,
)


def validate(
    work: ValidateTask,
    *,
    workdir: Path,
    file_bytes: int,
    begin: Callable[[Stage], None],
    deadline: float = math.inf,
) -> ValidationReport:
    """Check a model; golden rows, a profile and an estimate go to `workdir`. What a model does wrong is a verdict.

    So is any exception that a step did not foresee: the model or its data brought it about, and will again. A fault of
    our own in a step cannot be told from that, and rejects the version with a sentence that names it. Raised are only
    MemoryError, and OSError and ImportError, which speak of this machine. `deadline` is when this process is ended, by
    time.monotonic().
    """
    started = time.monotonic()
    stages = [Stage.STARTING]

    def began(stage: Stage) -> None:
        stages.append(stage)
        begin(stage)

    chain = Chain(work=work, workdir=workdir, file_bytes=file_bytes, begin=began, deadline=deadline)
    for step in _STEPS:
        try:
            if not step(chain):
                break
        except ModelError as error:
            # What a step did not foresee is the model's doing all the same.
            chain.add(failed("run", str(error)))
            break
        except (MemoryError, OSError, ImportError):
            raise
        except Exception as error:  # noqa: BLE001 - see above
            chain.add(_unforeseen(error, stages[-1]))
            break
    details = Details(**chain.sections)
    return ValidationReport(
        outcome=joined(chain.verdicts),
        verdicts=tuple(_bounded(verdict, details) for verdict in chain.verdicts),
        metrics=chain.metrics,
        signature=chain.model.signature if chain.model else None,
        rows=chain.data.total_rows if chain.data else 0,
        details=details,
        has_golden=chain.has_golden,
        has_profile=chain.has_profile,
        has_performance=chain.has_performance,
        duration_s=round(time.monotonic() - started, 3),
        versions={"numpy": np.__version__, "onnx": onnx.__version__, "onnxruntime": ort.__version__},
    )


def _unforeseen(error: Exception, stage: Stage) -> Verdict:
    """A champion's doing is nothing to hold against the version."""
    check = stage.name.lower()
    sentence = f"{type(error).__name__} while {stage}, which no check foresees: {excerpt(error, _MAX_ERROR)}"
    if stage is Stage.CHAMPION:
        return Verdict(check=check, outcome=Outcome.ERROR, sentence=sentence)
    return failed(check, sentence)


def _bounded(verdict: Verdict, details: Details) -> Verdict:
    """Sentences hold names from the model, which may be of any length. Evidence that is empty is none."""
    section = (verdict.evidence or "").removeprefix("/details/").split("/")[0]
    evidence = verdict.evidence if getattr(details, section, None) else None
    return verdict.model_copy(update={"sentence": excerpt(verdict.sentence, MAX_MESSAGE_LENGTH), "evidence": evidence})
