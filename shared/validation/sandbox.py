"""The sandbox, from the side that asks: has a child process look at bytes from outside, and believes only its form.

Neither function parses what was dropped, and importing this module loads no library that could. What the child answers
is read by strict models; the files that it leaves have fixed names, must be regular files within the limits, and are
hashed here. A child that goes over a limit, crashes or babbles is a finding about the drop, not an error of ours.
"""

import hashlib
import os
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from shared.core.ids import Digest
from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Manifest
from shared.registry.policy import ValidationPolicy
from shared.validation.failures import SandboxUnavailableError
from shared.validation.process import GIB, Ended, SandboxLimits, run_child
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.report import ValidationReport
from shared.validation.wire import (
    EXIT_MEMORY,
    EXIT_UNUSABLE,
    GOLDEN_FILE,
    LINE,
    MAX_ANSWER_BYTES,
    MAX_GOLDEN_BYTES,
    MODEL_FILE,
    REFERENCE_FILE,
    VALIDATION_FILE,
    Accepted,
    Answer,
    IntakeTask,
    Limits,
    Progress,
    Refused,
    Request,
    Stage,
    Validated,
    ValidateTask,
)

__all__ = ["Intake", "SandboxLimits", "StoredPart", "Validation", "run_intake", "run_validation"]

_CHECK = "sandbox"
_CHILD = ["-m", "shared.validation.child"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A file that the sandbox passed: a regular file, hashed by this process after the sandboxed one had ended."""

    path: Path
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """A well-formed drop, in parts."""

    manifest: Manifest
    model: StoredPart
    validation: StoredPart | None
    reference: StoredPart | None

    @property
    def parts(self) -> tuple[StoredPart, ...]:
        """The parts that are there, the model first."""
        return tuple(part for part in (self.model, self.validation, self.reference) if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What validation found, and the golden rows where it left any."""

    report: ValidationReport
    golden: StoredPart | None


def run_intake(path: Path, *, filename: str, workdir: Path, limits: SandboxLimits) -> Intake:
    """Look whether the file at `path`, dropped under the name `filename`, is a well-formed drop.

    `workdir` is an empty directory; a bundle is unpacked there, while a bare model stays where it is. Raises
    DropRefusedError with a code and a sentence, or SandboxUnavailableError where no sandbox can be had or it was killed
    from outside.
    """
    work = IntakeTask(path=path.resolve(), filename=filename)
    outcome = _ask(work, workdir, limits)
    if isinstance(outcome, _Death) and outcome.outcome is Outcome.ERROR:
        raise SandboxUnavailableError(f"looking at the drop {outcome.sentence}")
    if isinstance(outcome, _Death):
        raise DropRefusedError(RefusalCode.SANDBOX, f"looking at the drop {outcome.sentence}")
    if isinstance(outcome, Refused):
        raise DropRefusedError(outcome.code, outcome.message)
    if not isinstance(outcome, Accepted):
        raise DropRefusedError(RefusalCode.SANDBOX, "looking at the drop gave an answer of another form than was asked")
    manifest = outcome.manifest
    bare = filename.lower().endswith(".onnx")
    size = limits.file_bytes
    return Intake(
        manifest=manifest,
        model=_part(path if bare else workdir / MODEL_FILE, size),
        validation=None if bare or manifest.validation is None else _part(workdir / VALIDATION_FILE, size),
        reference=None if bare or manifest.reference is None else _part(workdir / REFERENCE_FILE, size),
    )


def run_validation(
    *,
    model: Path,
    validation: Path | None,
    reference: Path | None,
    manifest: Manifest,
    policy: ValidationPolicy,
    workdir: Path,
    limits: SandboxLimits,
) -> Validation:
    """Validate a model. `workdir` is an empty directory; golden rows are left there.

    A child that goes over a limit or crashes is a FAIL verdict `sandbox`, one that was killed by someone else or gives
    no answer that reads an ERROR verdict. Raises SandboxUnavailableError where no sandbox can be had.
    """
    started = time.monotonic()
    work = ValidateTask(
        model=model.resolve(),
        validation=validation.resolve() if validation else None,
        reference=reference.resolve() if reference else None,
        manifest=manifest,
        policy=policy,
    )
    outcome = _ask(work, workdir, limits)
    if isinstance(outcome, Validated):
        if not outcome.report.has_golden:
            return Validation(report=outcome.report, golden=None)
        try:
            golden = _part(workdir / GOLDEN_FILE, MAX_GOLDEN_BYTES)
            return Validation(report=outcome.report, golden=golden)
        except DropRefusedError as error:
            outcome = _Death(outcome=Outcome.ERROR, sentence=f"left golden rows that cannot be used: {error}")
    elif not isinstance(outcome, _Death):
        outcome = _Death(outcome=Outcome.ERROR, sentence="gave an answer of another form than was asked")
    verdict = Verdict(check=_CHECK, outcome=outcome.outcome, sentence=f"validation {outcome.sentence}")
    report = ValidationReport(
        outcome=outcome.outcome, verdicts=(verdict,), duration_s=round(time.monotonic() - started, 3)
    )
    return Validation(report=report, golden=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """The child gave no answer that can be used. `sentence` completes "validation ..."."""

    outcome: Literal[Outcome.FAIL, Outcome.ERROR]
    sentence: str


def _ask(work: IntakeTask | ValidateTask, workdir: Path, limits: SandboxLimits) -> Answer | _Death:
    request = Request(
        parent_pid=os.getpid(),
        limits=Limits(
            memory_bytes=limits.memory_bytes,
            cpu_s=limits.cpu_s,
            file_bytes=limits.file_bytes,
            open_files=limits.open_files,
        ),
        work=work,
    )
    ended = run_child(
        _CHILD,
        request.model_dump_json().encode(),
        workdir=workdir,
        wall_s=limits.wall_s,
        max_output_bytes=MAX_ANSWER_BYTES,
    )
    stage, answer = _read(ended)
    if answer is not None and ended.exit_code == 0:
        return answer
    if stage is Stage.STARTING or ended.exit_code == EXIT_UNUSABLE:
        # It had not begun, or something lacks on this machine: nothing to hold against the drop.
        raise SandboxUnavailableError(
            f"it ended with code {ended.exit_code} and printed {excerpt(ended.errors[-300:])!r}"
        )
    return _death(ended, stage, limits)


def _read(ended: Ended) -> tuple[Stage, Answer | None]:
    """The last stage that the child began, and its answer, if the last line reads as one."""
    stage = Stage.STARTING
    answer: Answer | None = None
    for text in ended.output.splitlines():
        try:
            line = LINE.validate_json(text, strict=True)
        except ValidationError:
            return stage, None
        if isinstance(line, Progress):
            stage, answer = line.stage, None
        else:
            answer = line
    return stage, None if ended.overflowed else answer


def _death(ended: Ended, stage: Stage, limits: SandboxLimits) -> _Death:
    limit_of = {
        EXIT_MEMORY: f"used more than {limits.memory_bytes / GIB:.3g} GB of memory",
        -signal.SIGXCPU: f"used more than {limits.cpu_s} s of CPU time",
        -signal.SIGXFSZ: f"wrote a file of more than {limits.file_bytes} bytes",
    }
    if ended.timed_out:
        return _failed(f"took longer than {limits.wall_s:g} s", stage)
    if ended.exit_code in limit_of:
        return _failed(limit_of[ended.exit_code], stage)
    if ended.exit_code == -signal.SIGKILL:
        why = f"was killed from outside while {stage}: perhaps the machine ran out of memory"
        return _Death(outcome=Outcome.ERROR, sentence=why)
    if ended.exit_code < 0:
        # A library that is not given memory may abort instead of saying so.
        memory = "bad_alloc" in ended.errors
        return _failed(
            limit_of[EXIT_MEMORY] if memory else f"crashed the process ({_signal_name(-ended.exit_code)})", stage
        )
    why = f"it printed {excerpt(ended.errors[-200:])!r}" if ended.errors else "it printed nothing"
    return _Death(
        outcome=Outcome.ERROR,
        sentence=f"ended with code {ended.exit_code} and no answer that reads, while {stage}: {why}",
    )


def _failed(what: str, stage: Stage) -> _Death:
    return _Death(outcome=Outcome.FAIL, sentence=f"{what} while {stage}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _part(path: Path, max_bytes: int) -> StoredPart:
    """Check and hash a file that the child may have written. Raises DropRefusedError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DropRefusedError(RefusalCode.SANDBOX, f"{path.name} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:
            raise DropRefusedError(RefusalCode.SANDBOX, f"{path.name} is no regular file of at most {max_bytes} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    finally:
        os.close(descriptor)
    return StoredPart(path=path, digest=Digest(digest), size_bytes=status.st_size)
