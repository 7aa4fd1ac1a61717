"""Runs the sandboxed child process and tells how it ended.

The child has a session and process group of its own, which is killed whole when the time is up and again when the child
has ended; an environment built from scratch, so that no secret of ours is in it; a working directory of its own; and
limits that it sets on itself before it looks at anything. It dies with this process. Its output is read up to a limit.

What keeps the child from the network, from other processes and from files that are not its own is in confine.py.
Where the kernel refuses those walls, a process that the child started may have left its group: it is known by a mark in
the environment that it inherited, and killed too.

What its files in the working directory take on the disk is looked at a few times a second; beyond a bound it is killed.
"""

import contextlib
import fcntl
import os
import secrets
import selectors
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import IO

import shared
from shared.routing.plan import MAX_FILE_BYTES
from shared.validation.failures import SandboxUnavailableError

GIB = 1024**3
MAX_AT_ONCE = 2
"""How many children run at once: each may use all of `memory_bytes`, and the machine's memory is not unbounded."""
_READ_BYTES = 64 * 1024
_DRAIN_S = 1.0
_SEARCHES = 20
_LOOK_S = 0.2
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
_BLOCK_BYTES = 512
"""What `st_blocks` counts in, on every file system."""
_MARK = "SLIPWAY_SANDBOX"
"""What the environment of a child, and of all that it starts, names it by."""
_INHERITED = ("LD_LIBRARY_PATH", "SYSTEMROOT")
"""What the interpreter may need to start at all."""

_at_once = threading.BoundedSemaphore(MAX_AT_ONCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What a sandboxed process may use.

    `memory_bytes` is address space, of which the libraries take about 0.5 GB before a model is loaded; `file_bytes`
    bounds each file that it reads as part of a drop or writes.
    """

    memory_bytes: int = 4 * GIB
    cpu_s: int = 300
    wall_s: float = 600.0
    file_bytes: int = MAX_FILE_BYTES
    open_files: int = 64

    @property
    def written_bytes(self) -> int:
        """What it may leave on the disk in all: a bundle expands to twice `file_bytes`, and its model is copied."""
        return 3 * self.file_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the child ended. A negative `exit_code` is minus the signal that ended it."""

    exit_code: int
    timed_out: bool
    overfull: bool
    """Whether it was killed for how much it wrote."""
    output: bytes
    overflowed: bool
    """Whether the output was longer than was read."""
    errors: str
    """The end of what it wrote to standard error."""


def run_child(
    arguments: list[str],
    request: bytes,
    *,
    workdir: Path,
    wall_s: float,
    max_output_bytes: int,
    max_written_bytes: int,
    said: Callable[[bytes], None] | None = None,
) -> Ended:
    """Run `python <arguments>` with the request on standard input, until it ends or `wall_s` is over.

    It is ended, too, when the files that lie in `workdir` itself take more than `max_written_bytes` of the disk.

    `said` is given what it writes to standard output, as it comes.

    While MAX_AT_ONCE children of this process run it waits; that time does not count. Raises SandboxUnavailableError
    where no process can be started.
    """
    mark = secrets.token_hex(16)
    with _at_once, _started(arguments, request, workdir, mark) as child:
        try:
            output = _Captured(limit=max_output_bytes, data=bytearray(), said=said)
            return _watch(child, output, time.monotonic() + wall_s, lambda: _taken_bytes(workdir) > max_written_bytes)
        finally:
            _kill_group(child)
            _kill_marked(mark)


def child_environment(parent: Mapping[str, str], path: list[str], workdir: Path) -> dict[str, str]:
    """The child's whole environment: where packages are, one thread for each library, and nothing of ours.

    Azure Functions puts packages on `sys.path` and not in the environment, so the path is handed on. Entries that are
    relative are dropped: they would name another directory in the child.
    """
    root = str(Path(shared.__file__).resolve().parent.parent)
    entries = [root, *(entry for entry in path if Path(entry).is_absolute() and entry != root)]
    environment = {name: parent[name] for name in _INHERITED if name in parent}
    return environment | {
        "PYTHONPATH": os.pathsep.join(entries),
        "HOME": str(workdir),
        "TMPDIR": str(workdir),
        "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
        # The model runtime would start a thread that sends what it knows of models to its maker.
        "ORT_DISABLE_TELEMETRY": "1",
    }


def _started(arguments: list[str], request: bytes, workdir: Path, mark: str) -> subprocess.Popen[bytes]:
    with _sealed(request) as stdin:
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-s", *arguments],
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=workdir,
                env=child_environment(os.environ, sys.path, workdir) | {_MARK: mark},
                start_new_session=True,
            )
        except OSError as error:
            raise SandboxUnavailableError(f"no process could be started: {error}") from error


def _sealed(request: bytes) -> IO[bytes]:
    """The request as a file in memory that nobody can write to any more: it passes through the walls open."""
    stdin = os.fdopen(os.memfd_create("request", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    stdin.write(request)
    stdin.seek(0)
    fcntl.fcntl(stdin, fcntl.F_ADD_SEALS, _SEALS)
    return stdin


@dataclass(slots=True)
class _Captured:
    """The first `limit` bytes of a pipe; the rest is read and dropped, so that the writer never waits."""

    limit: int
    data: bytearray
    overflowed: bool = False
    said: Callable[[bytes], None] | None = None

    def add(self, chunk: bytes) -> None:
        room = self.limit - len(self.data)
        self.data += chunk[:room]
        if self.said and room > 0:
            self.said(chunk[:room])
        self.overflowed |= len(chunk) > room


class _How(Enum):
    ENDED = auto()
    TIMED_OUT = auto()
    OVERFULL = auto()


def _watch(
    child: subprocess.Popen[bytes], output: _Captured, deadline: float, is_overfull: Callable[[], bool]
) -> Ended:
    errors = _Captured(limit=_READ_BYTES, data=bytearray())
    with selectors.DefaultSelector() as selector:
        for pipe, captured in ((child.stdout, output), (child.stderr, errors)):
            _register(selector, pipe, captured)
        how = _read_until_end(selector, child.pid, deadline, is_overfull)
        # The leader is not reaped yet, so the group's number cannot belong to anyone else.
        _kill_group(child)
        _read_pipes(selector, time.monotonic() + _DRAIN_S)
    return Ended(
        exit_code=child.wait(),
        timed_out=how is _How.TIMED_OUT,
        overfull=how is _How.OVERFULL,
        output=bytes(output.data),
        overflowed=output.overflowed,
        errors=errors.data.decode(errors="replace"),
    )


def _register(selector: selectors.BaseSelector, pipe: IO[bytes] | None, captured: _Captured) -> None:
    if pipe is not None:
        os.set_blocking(pipe.fileno(), False)
        selector.register(pipe, selectors.EVENT_READ, captured)


def _read_until_end(
    selector: selectors.BaseSelector, pid: int, deadline: float, is_overfull: Callable[[], bool]
) -> _How:
    """Read the pipes until the process has ended, the deadline is over, or it has written too much."""
    process = os.pidfd_open(pid)
    try:
        selector.register(process, selectors.EVENT_READ, None)
        next_look = time.monotonic()
        while (left_s := deadline - (now := time.monotonic())) > 0:
            if now >= next_look:
                if is_overfull():
                    return _How.OVERFULL
                next_look = now + _LOOK_S
            for key, _ in selector.select(min(left_s, _LOOK_S)):
                if key.data is None:
                    return _How.ENDED
                _read(selector, key)
        return _How.TIMED_OUT
    finally:
        selector.unregister(process)
        os.close(process)


def _taken_bytes(folder: Path) -> int:
    """What the files that lie in a folder itself take on the disk, as far as they can be looked at.

    Behind the walls a child can write no others, and take none away.
    """
    taken = 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            taken += status.st_blocks * _BLOCK_BYTES if stat.S_ISREG(status.st_mode) else 0
    return taken


def _read_pipes(selector: selectors.BaseSelector, deadline: float) -> None:
    """Read what is left in the pipes of a process that has ended."""
    while selector.get_map() and (left_s := deadline - time.monotonic()) > 0:
        for key, _ in selector.select(left_s):
            _read(selector, key)


def _read(selector: selectors.BaseSelector, key: selectors.SelectorKey) -> None:
    chunk = os.read(key.fd, _READ_BYTES)
    if chunk:
        key.data.add(chunk)
    else:
        selector.unregister(key.fileobj)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _kill_marked(mark: str) -> None:
    """Kill what left the group. A few times over, for what is killed may have started another meanwhile."""
    entry = f"{_MARK}={mark}".encode()
    for _ in range(_SEARCHES):
        found = [pid for pid in _processes() if _is_marked(pid, entry) and _kill(pid, entry)]
        if not found:
            return


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return []


def _is_marked(pid: int, entry: bytes) -> bool:
    """Whether a process that lives was started with this in its environment. A process of another user never was."""
    try:
        return entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _kill(pid: int, entry: bytes) -> bool:
    """Kill a process, unless its number has passed to another since."""
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _is_marked(pid, entry):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(process)
    return True
