"""The sandbox, from the side that asks: has a child process look at bytes from outside, and believes only its form.

Neither function parses what was dropped, and importing this module loads no library that could. What the child answers
is read by strict models; the files that it leaves have fixed names, must be regular files within the limits, and are
hashed here. A child that goes over a limit, crashes or babbles is a finding about the drop, not an error of ours.
"""

import contextlib
import hashlib
import logging
import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from shared.core.ids import Digest
from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Manifest
from shared.registry.policy import SigningPolicy, ValidationPolicy
from shared.telemetry.profile import Profile
from shared.validation.failures import SandboxUnavailableError
from shared.validation.process import GIB, Ended, SandboxLimits, run_child
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.report import ValidationReport
from shared.validation.wire import (
    EXIT_MEMORY,
    EXIT_UNUSABLE,
    GOLDEN_FILE,
    LACKS_WALLS,
    LINE,
    MAX_ANSWER_BYTES,
    MAX_GOLDEN_BYTES,
    MAX_PERFORMANCE_BYTES,
    MAX_PROFILE_BYTES,
    MODEL_FILE,
    PERFORMANCE_FILE,
    PROFILE_FILE,
    Accepted,
    Answer,
    FileRole,
    IntakeTask,
    Limits,
    ManifestTask,
    ModelFiles,
    Progress,
    Refused,
    Request,
    Stage,
    Validated,
    ValidateTask,
)

__all__ = [
    "Intake",
    "ModelFiles",
    "SandboxLimits",
    "StoredPart",
    "Validation",
    "read_manifest",
    "run_intake",
    "run_validation",
]

_log = logging.getLogger(__name__)
_CHECK = "sandbox"
_CHILD = ["-m", "shared.validation.child"]
_OUT_OF_MEMORY = ("bad_alloc", "OpenBLAS error: Memory allocation")
"""What a library says that is not given memory, and aborts or ends the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A file that the sandbox passed: a regular file, hashed by this process after the sandboxed one had ended."""

    path: Path
    digest: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """A well-formed drop, in parts. `external` has the files with tensors of the model, by the names it knows."""

    manifest: Manifest
    model: StoredPart
    model_file: str = MODEL_FILE
    external: Mapping[str, StoredPart] = field(default_factory=dict)
    validation: StoredPart | None = None
    reference: StoredPart | None = None
    signing: StoredPart | None = None
    signed_by: str = ""

    @property
    def parts(self) -> tuple[StoredPart, ...]:
        """The parts that are there, the model first."""
        parts = (self.model, *self.external.values(), self.validation, self.reference, self.signing)
        return tuple(part for part in parts if part is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """What validation found, and what it left: golden rows, a reference profile, an estimate of performance."""

    report: ValidationReport
    golden: StoredPart | None
    profile: StoredPart | None = None
    performance: StoredPart | None = None

    @property
    def left(self) -> tuple[StoredPart, ...]:
        """What is to be stored."""
        return tuple(part for part in (self.golden, self.profile, self.performance) if part is not None)


def run_intake(
    dropped: Path | Mapping[str, Path],
    *,
    filename: str,
    workdir: Path,
    limits: SandboxLimits,
    metadata: Mapping[str, str] | None = None,
    signing: SigningPolicy | None = None,
) -> Intake:
    """Look whether a file that was dropped under the name `filename`, or a folder's files, are a well-formed drop.

    `dropped` is the file, or a folder's files by their names in it. `workdir` is an empty directory; a bundle is
    unpacked there, while other files stay where they are. Raises DropRefusedError with a code and a sentence, or
    SandboxUnavailableError where no sandbox can be had or it was killed from outside.
    """
    folder = {} if isinstance(dropped, Path) else {name: path.resolve() for name, path in dropped.items()}
    path = dropped.resolve() if isinstance(dropped, Path) else None
    work = IntakeTask(
        path=path,
        filename=filename,
        folder=folder,
        metadata=dict(metadata or {}),
        signing=signing or SigningPolicy(),
    )
    outcome = _accepted(_ask(work, workdir, limits))
    parts: dict[FileRole, dict[str, StoredPart]] = {role: {} for role in FileRole}
    for taken in outcome.files:
        at = folder.get(taken.file) if folder else path if not taken.file else _in_workdir(workdir, taken.file)
        if at is None:
            raise DropRefusedError(RefusalCode.SANDBOX, "looking at the drop named a file that is not of the drop")
        parts[taken.role][taken.name] = _part(at, limits.file_bytes)
    if len(parts[FileRole.MODEL]) != 1:
        raise DropRefusedError(RefusalCode.SANDBOX, "looking at the drop did not tell which file is the model")
    ((model_file, model),) = parts[FileRole.MODEL].items()
    return Intake(
        manifest=outcome.manifest,
        model=model,
        model_file=model_file,
        external=parts[FileRole.EXTERNAL],
        validation=next(iter(parts[FileRole.VALIDATION].values()), None),
        reference=next(iter(parts[FileRole.REFERENCE].values()), None),
        signing=next(iter(parts[FileRole.SIGNING].values()), None),
        signed_by=outcome.signed_by,
    )


def _in_workdir(workdir: Path, name: str) -> Path | None:
    """A file of the working directory itself, by the name that the child gave it."""
    return workdir / name if name == Path(name).name else None


def read_manifest(path: Path, *, workdir: Path, limits: SandboxLimits) -> Manifest:
    """Parse a folder's manifest. Raises as run_intake does."""
    return _accepted(_ask(ManifestTask(path=path.resolve()), workdir, limits)).manifest


def _accepted(outcome: "Answer | _Death") -> Accepted:
    if isinstance(outcome, _Death) and outcome.outcome is Outcome.ERROR:
        raise SandboxUnavailableError(f"looking at the drop {outcome.sentence}")
    if isinstance(outcome, _Death):
        raise DropRefusedError(RefusalCode.SANDBOX, f"looking at the drop {outcome.sentence}")
    if isinstance(outcome, Refused):
        raise DropRefusedError(outcome.code, outcome.message)
    if not isinstance(outcome, Accepted):
        raise DropRefusedError(RefusalCode.SANDBOX, "looking at the drop gave an answer of another form than was asked")
    return outcome


def run_validation(
    *,
    model: ModelFiles,
    validation: Path | None,
    reference: Path | None,
    manifest: Manifest,
    policy: ValidationPolicy,
    workdir: Path,
    limits: SandboxLimits,
    champion: ModelFiles | None = None,
    champion_version: int | None = None,
    champion_manifest: Manifest | None = None,
    champion_unusable: str = "",
    progress: Callable[[Stage], None] | None = None,
) -> Validation:
    """Validate a model. `workdir` is an empty directory; what is to be stored is left there.

    `champion` is the version to compare with, and `champion_unusable` says why there is one whose files cannot be had;
    `progress` is told each stage as it begins.

    A child that goes over a limit or crashes is a FAIL verdict `sandbox`, one that was killed by someone else or gives
    no answer that reads an ERROR verdict. Raises SandboxUnavailableError where no sandbox can be had.
    """
    started = time.monotonic()
    work = ValidateTask(
        model=model,
        validation=validation.resolve() if validation else None,
        reference=reference.resolve() if reference else None,
        manifest=manifest,
        policy=policy,
        champion=champion,
        champion_version=champion_version,
        champion_manifest=champion_manifest,
        champion_unusable=champion_unusable,
    )
    outcome = _ask(work, workdir, limits, progress)
    if isinstance(outcome, Validated):
        report = outcome.report
        try:
            return Validation(
                report=report,
                golden=_part(workdir / GOLDEN_FILE, MAX_GOLDEN_BYTES) if report.has_golden else None,
                profile=_profile(workdir / PROFILE_FILE) if report.has_profile else None,
                performance=(
                    _part(workdir / PERFORMANCE_FILE, MAX_PERFORMANCE_BYTES) if report.has_performance else None
                ),
            )
        except DropRefusedError as error:
            outcome = _Death(outcome=Outcome.ERROR, sentence=f"left what cannot be used: {error}")
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


def _ask(
    work: IntakeTask | ManifestTask | ValidateTask,
    workdir: Path,
    limits: SandboxLimits,
    progress: Callable[[Stage], None] | None = None,
) -> Answer | _Death:
    request = Request(
        parent_pid=os.getpid(),
        wall_s=limits.wall_s,
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
        max_written_bytes=limits.written_bytes,
        said=_telling(progress) if progress else None,
    )
    if ended.errors.startswith(LACKS_WALLS):
        _warn_once(excerpt(ended.errors.splitlines()[0]))
    stage, answer = _read(ended)
    if answer is not None and ended.exit_code == 0:
        return answer
    if stage is Stage.STARTING or ended.exit_code == EXIT_UNUSABLE:
        # It had not begun, or something lacks on this machine: nothing to hold against the drop.
        raise SandboxUnavailableError(
            f"it ended with code {ended.exit_code} and printed {excerpt(ended.errors[-300:])!r}"
        )
    return _death(ended, stage, limits)


@lru_cache(maxsize=16)
def _warn_once(line: str) -> None:
    _log.warning("%s", line)


def _telling(progress: Callable[[Stage], None]) -> Callable[[bytes], None]:
    """Passes on the stages in the child's output, as it comes."""
    held = bytearray()

    def said(chunk: bytes) -> None:
        held.extend(chunk)
        *lines, rest = held.split(b"\n")
        held[:] = rest
        for text in lines:
            with contextlib.suppress(ValidationError):
                line = LINE.validate_json(bytes(text), strict=True)
                if isinstance(line, Progress):
                    progress(line.stage)

    return said


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
    if not (ended.timed_out or ended.overfull) and _ran_out_of_memory(ended):
        memory = f"used more than {limits.memory_bytes / GIB:.3g} GB of memory"
        return _failed(memory, stage, advice="a smaller model, or fewer rows of data, take less")
    if (passed := _limit_passed(ended, limits)) is not None:
        return _failed(passed, stage)
    if ended.exit_code == -signal.SIGKILL:
        why = f"was killed from outside while {stage}: perhaps the machine ran out of memory"
        return _Death(outcome=Outcome.ERROR, sentence=why)
    if ended.exit_code < 0:
        return _failed(f"crashed the process ({_signal_name(-ended.exit_code)})", stage)
    why = f"it printed {excerpt(ended.errors[-200:])!r}" if ended.errors else "it printed nothing"
    return _Death(
        outcome=Outcome.ERROR,
        sentence=f"ended with code {ended.exit_code} and no answer that reads, while {stage}: {why}",
    )


def _ran_out_of_memory(ended: Ended) -> bool:
    return ended.exit_code == EXIT_MEMORY or any(sign in ended.errors for sign in _OUT_OF_MEMORY)


def _limit_passed(ended: Ended, limits: SandboxLimits) -> str | None:
    if ended.timed_out:
        return f"took longer than {limits.wall_s:g} s"
    if ended.overfull:
        return f"wrote more than {limits.written_bytes} bytes to the disk"
    return {
        -signal.SIGXCPU: f"used more than {limits.cpu_s} s of CPU time",
        -signal.SIGXFSZ: f"wrote a file of more than {limits.file_bytes} bytes",
    }.get(ended.exit_code)


def _failed(what: str, stage: Stage, *, advice: str = "") -> _Death:
    # What the champion does is nothing to hold against the version.
    outcome: Literal[Outcome.FAIL, Outcome.ERROR] = Outcome.ERROR if stage is Stage.CHAMPION else Outcome.FAIL
    return _Death(outcome=outcome, sentence=f"{what} while {stage}{advice and f': {advice}'}")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _profile(path: Path) -> StoredPart:
    """As `_part`, where the file is a profile under its own name: the digest is what counts by it will be known by."""
    part = _part(path, MAX_PROFILE_BYTES)
    try:
        profile = Profile.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DropRefusedError(RefusalCode.SANDBOX, f"{path.name} is no profile: {excerpt(error)}") from error
    if profile.id != part.digest:
        raise DropRefusedError(RefusalCode.SANDBOX, f"{path.name} is not in the form that its digest is of")
    return part


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
