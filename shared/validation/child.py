"""The sandboxed process: the only one that parses bytes from outside. Started by shared.validation.sandbox.

It reads its request, limits itself for good, and only then looks at the drop. It writes its answer as lines of JSON to
standard output: what it is doing, then what it found. Whatever the libraries print goes to standard error.
"""

import ctypes
import errno
import os
import resource
import signal
import sys
from pathlib import Path
from typing import NoReturn

from pydantic import BaseModel

from shared.validation.refusal import MAX_MESSAGE_LENGTH, DropRefusedError, excerpt
from shared.validation.wire import (
    EXIT_MEMORY,
    EXIT_UNUSABLE,
    Accepted,
    IntakeTask,
    Limits,
    ManifestTask,
    Progress,
    Refused,
    Request,
    Stage,
    Validated,
    ValidateTask,
)

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_NICENESS = 5


def main() -> None:
    """Carry out the request on standard input."""
    answer = _take_standard_output()
    try:
        request = Request.model_validate_json(sys.stdin.buffer.read())
        confine(request.limits, request.parent_pid)
        _send(answer, _carry_out(request.work, request.limits, answer))
    except MemoryError:
        _exit(EXIT_MEMORY)
    except (ImportError, OSError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            _exit(EXIT_MEMORY)
        # A package that is missing, a full disk: nothing that the drop did.
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        _exit(EXIT_UNUSABLE)
    # Native libraries may crash or hang as they are taken down; the answer is out.
    _exit(0)


def confine(limits: Limits, parent_pid: int) -> None:
    """Limit this process for good: memory, CPU time, files; no core dump, no network where the system allows it.

    It will be killed when the process that started it dies.
    """
    _leave_network()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        _exit(EXIT_UNUSABLE)
    os.nice(_NICENESS)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    # At the soft limit SIGXCPU ends the process, which says why; at the hard one SIGKILL.
    _limit(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + 5)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)


def _leave_network() -> None:
    """Into a network namespace of its own, with nothing in it. Where the host forbids that, the network is in reach."""
    try:
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
    except OSError:
        return


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """No higher than what holds already."""
    _, ceiling = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    highest = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    resource.setrlimit(kind, (min(soft, highest), highest))


def _carry_out(
    work: IntakeTask | ManifestTask | ValidateTask, limits: Limits, answer: int
) -> Accepted | Refused | Validated:
    def begin(stage: Stage) -> None:
        _send(answer, Progress(stage=stage))

    if isinstance(work, ValidateTask):
        from shared.validation.validate import validate  # noqa: PLC0415 - loads onnxruntime

        return Validated(report=validate(work, workdir=Path.cwd(), file_bytes=limits.file_bytes, begin=begin))
    from shared.validation.intake import manifest_of_folder, take_in  # noqa: PLC0415 - each task loads its own libraries

    try:
        if isinstance(work, ManifestTask):
            return Accepted(manifest=manifest_of_folder(work.path))
        return take_in(work, workdir=Path.cwd(), file_bytes=limits.file_bytes, begin=begin)
    except DropRefusedError as error:
        return Refused(code=error.code, message=excerpt(error, MAX_MESSAGE_LENGTH))


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
