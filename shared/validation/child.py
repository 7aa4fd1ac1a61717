"""The sandboxed process: the only one that parses bytes from outside. Started by shared.validation.sandbox.

It reads its request, limits itself for good, and only then looks at the drop. It writes its answer as lines of JSON to
standard output: what it is doing, then what it found. Whatever the libraries print goes to standard error.
"""

import errno
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel

from shared.registry.manifest import MAX_FILES
from shared.validation.confine import confine
from shared.validation.external import link_external
from shared.validation.refusal import MAX_MESSAGE_LENGTH, DropRefusedError, RefusalCode, excerpt
from shared.validation.wire import (
    CHECKED_FILE,
    CHECKED_VALUES_FILE,
    EXIT_MEMORY,
    EXIT_UNUSABLE,
    GOLDEN_FILE,
    LACKS_WALLS,
    PERFORMANCE_FILE,
    PROFILE_FILE,
    Accepted,
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
    part_file,
)

_NOT_MAPPED = "failed to map segment"
"""What the loader of libraries says where there is no memory for one."""
_LEAST_MEMBER_BYTES = 46 + 1
"""What a zip takes for a file at least: an entry in its directory, and a letter for the name there."""


def main() -> None:
    """Carry out the request on standard input."""
    started = time.monotonic()
    answer = _take_standard_output()
    try:
        request = Request.model_validate_json(sys.stdin.buffer.read())
        work = _at_hand(request.work)
        readable = [*_files(work), Path.cwd()]
        missing = confine(request.limits, request.parent_pid, readable=readable, writable=_made(work))
        if missing:
            sys.stderr.write(f"{LACKS_WALLS}{'; '.join(missing)}\n")
        _send(answer, _carry_out(work, request.limits, answer, deadline=started + request.wall_s))
    except MemoryError:
        _exit(EXIT_MEMORY)
    except (ImportError, OSError) as error:
        if getattr(error, "errno", None) == errno.ENOMEM or _NOT_MAPPED in str(error):
            _exit(EXIT_MEMORY)
        # A package that is missing, a full disk: nothing that the drop did.
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        _exit(EXIT_UNUSABLE)
    # Native libraries may crash or hang as they are taken down; the answer is out.
    _exit(0)


def _carry_out(
    work: IntakeTask | ManifestTask | ValidateTask, limits: Limits, answer: int, *, deadline: float
) -> Accepted | Refused | Validated:
    def begin(stage: Stage) -> None:
        _send(answer, Progress(stage=stage))

    if isinstance(work, ValidateTask):
        from shared.validation.validate import validate  # noqa: PLC0415 - loads onnxruntime

        report = validate(
            work,
            workdir=Path.cwd(),
            file_bytes=limits.file_bytes,
            begin=begin,
            deadline=deadline,
        )
        return Validated(report=report)
    from shared.validation.intake import manifest_of_folder, take_in  # noqa: PLC0415 - each task loads its own libraries

    try:
        if isinstance(work, ManifestTask):
            return Accepted(manifest=manifest_of_folder(work.path))
        return take_in(work, workdir=Path.cwd(), file_bytes=limits.file_bytes, begin=begin)
    except DropRefusedError as error:
        return Refused(code=error.code, message=excerpt(error, MAX_MESSAGE_LENGTH))
    except (MemoryError, OSError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - the drop brought it about, and would each time
        said = f"looking at the drop met what no check foresees: {type(error).__name__}: {error}"
        return Refused(code=RefusalCode.SANDBOX, message=excerpt(said, MAX_MESSAGE_LENGTH))


def _at_hand(work: IntakeTask | ManifestTask | ValidateTask) -> IntakeTask | ManifestTask | ValidateTask:
    """The task with its models' files linked into the working directory, under the names that the models know.

    Behind the walls a link out of it could not be made any more, and every file would be copied.
    """
    if not isinstance(work, ValidateTask):
        return work
    linked = {
        role: _linked(model)
        for role, model in (("model", work.model), ("champion", work.champion))
        if model is not None and model.external
    }
    return work.model_copy(update=linked)


def _linked(model: ModelFiles) -> ModelFiles:
    try:
        path = link_external(model, Path.cwd())
    except DropRefusedError:
        # The task will meet it again, where it becomes a verdict.
        return model
    root = path.parents[len(Path(model.name).parts) - 1]
    return ModelFiles(path=path, name=model.name, external={name: root / name for name in model.external})


def _made(work: IntakeTask | ManifestTask | ValidateTask) -> list[Path]:
    """New empty files for what the task writes: behind the walls none but these are written, and no others made."""
    match work:
        case ManifestTask():
            names = []
        case IntakeTask():
            names = [CHECKED_FILE, CHECKED_VALUES_FILE, *map(part_file, range(1, _most_parts(work) + 1))]
        case ValidateTask():
            names = [CHECKED_FILE, CHECKED_VALUES_FILE, GOLDEN_FILE, PROFILE_FILE, PERFORMANCE_FILE]
    for name in names:
        (Path.cwd() / name).touch(mode=0o600, exist_ok=False)
    return [Path.cwd() / name for name in names]


def _most_parts(work: IntakeTask) -> int:
    """How many files a drop may be unpacked to: as many members as a zip of its size can have."""
    if work.path is None or not work.is_bundle:
        return 0
    return min(MAX_FILES, work.path.stat().st_size // _LEAST_MEMBER_BYTES)


def _files(work: IntakeTask | ManifestTask | ValidateTask) -> list[Path]:
    """The files that a task is about."""
    match work:
        case IntakeTask():
            files = [work.path, *work.folder.values()]
        case ManifestTask():
            files = [work.path]
        case ValidateTask():
            models = [model for model in (work.model, work.champion) if model]
            files = [path for model in models for path in (model.path, *model.external.values())]
            files += [work.validation, work.reference]
    return [path for path in files if path is not None]


def _take_standard_output() -> int:
    """The descriptor for the answer; what anything else prints to standard output goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def _send(descriptor: int, line: BaseModel) -> None:
    data = line.model_dump_json().encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def _exit(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
