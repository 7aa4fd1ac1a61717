"""Child processes: started, waited for until ready, and stopped by pid.

A child leads a session and process group of its own, so that a ctrl-C meant for us does not reach it, and so that
killing it takes along what it started. Its output goes to a log file. On Linux it is told to end (SIGTERM) when the
thread that started it ends: start children from a thread that lives as long as they should, such as the main one.

Run as a script, this file is the shim through which a child is started: it asks the kernel for that signal, then
becomes the child's own program. A hook between fork and exec could do the same, but is not safe in a process with
threads.
"""

import ctypes
import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Final, Self

_POLL_S = 0.03
_TAIL_LINES = 30
_TAIL_BYTES = 16_384
_FULL_BYTES = 65_536
_PR_SET_PDEATHSIG = 1
_PORTS: Final = range(16_384, 32_768)
"""Free ports are picked here: below those that systems give to connections, and to whoever asks for any port."""
_PORTS_EACH = 64
_drawn = count()
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class ProcessStartError(Exception):
    """A child process ended, or ran out of time, before it was ready. The message ends with the tail of its log."""

    def __init__(self, name: str, what: str, log_path: Path) -> None:
        tail = log_tail(log_path)
        super().__init__(f"{name} did not start: {what}; its log {log_path} ends with:\n{tail or _nothing(log_path)}")


class Child:
    """A running child process. `stop` it, or `kill` it where a crash is wanted; both may be called again."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.name = name
        self.log_path = log_path
        self._process = process

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its process group."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for the signal that ended it; None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit code. Raises TimeoutError."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.name} (pid {self.pid}) still runs after {timeout_s} s") from None

    def stop(self, grace_s: float = 10.0) -> int:
        """Ask it to end (SIGTERM); after the grace kill it and its whole group (SIGKILL). Returns the exit code."""
        if self.exit_code is None:
            self._process.terminate()
            try:
                return self.wait(grace_s)
            except TimeoutError:
                return self.kill()
        return self._process.returncode

    def kill(self) -> int:
        """End it and its whole group at once (SIGKILL). Returns the exit code."""
        if self.exit_code is None:
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    name: str,
    arguments: Sequence[str],
    *,
    log_path: Path,
    ready: Callable[[], bool],
    deadline_s: float,
    environment: Mapping[str, str] | None = None,
    working_directory: Path | None = None,
) -> Child:
    """Start a program and return when `ready()` is true. Raises ProcessStartError, with nothing left running.

    `ready` is asked every few hundredths of a second and must answer quickly. The log file is begun anew.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    shim = [sys.executable, "-S", "-P", str(Path(__file__).resolve()), str(os.getpid())]
    child: Child | None = None
    try:
        with uninterrupted(), log_path.open("wb") as log:
            process = subprocess.Popen(
                [*shim, *arguments] if sys.platform == "linux" else list(arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(environment) if environment is not None else None,
                cwd=working_directory,
                start_new_session=True,
            )
            child = Child(name, process, log_path)
        _wait_until_ready(child, ready, deadline_s)
    except BaseException:
        if child is not None:
            child.kill()
        raise
    return child


@contextmanager
def uninterrupted() -> Generator[None]:
    """Have SIGINT, SIGTERM and SIGHUP wait until the end of the block: one that came meanwhile is then handled as ever.

    A process is not begun by halves: an interrupt within would leave one that nobody knows. Elsewhere than on the main
    thread, where no signal is handled, nothing waits.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda found, frame: came.append((found, frame)))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        for found, frame in came:
            handler = before[signal.Signals(found)]
            if callable(handler):
                handler(found, frame)


@contextmanager
def interrupted_by_signals() -> Generator[None]:
    """Let SIGTERM and a terminal that is closed (SIGHUP) interrupt, as ctrl-C does.

    Under `nohup` nothing is interrupted by the latter. Elsewhere there is nobody left to read what is said after it,
    and nothing fails for that.
    """
    ending = [number for number in _ENDING if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in ending}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: object) -> None:
    if number == signal.SIGHUP:
        with Path(os.devnull).open("wb") as nowhere:
            for said in (1, 2):
                if stat.S_ISCHR(os.fstat(said).st_mode):
                    os.dup2(nowhere.fileno(), said)
    raise KeyboardInterrupt


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on, and that nobody gets who asks for any. Raises OSError."""
    for _ in _PORTS:
        # Nobody listens on it yet. Each process begins elsewhere, so that another does not pick it meanwhile.
        port = _PORTS[(os.getpid() * _PORTS_EACH + next(_drawn)) % len(_PORTS)]
        if can_listen(port):
            return port
    raise OSError(errno.EADDRINUSE, f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free")


def can_listen(port: int) -> bool:
    """Whether a server could listen on a port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            return False
    return True


def log_tail(path: Path) -> str:
    """The last lines of a log file; nothing where there is no such file."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-_TAIL_LINES:])


def _nothing(log: Path) -> str:
    """Why a log may be empty."""
    return "(nothing: the disk is full)" if shutil.disk_usage(log.parent).free < _FULL_BYTES else "(nothing)"


def _wait_until_ready(child: Child, ready: Callable[[], bool], deadline_s: float) -> None:
    deadline = time.monotonic() + deadline_s
    while not ready():
        if child.exit_code is not None:
            raise ProcessStartError(child.name, f"it ended with {child.exit_code} before it was ready", child.log_path)
        if time.monotonic() > deadline:
            raise ProcessStartError(child.name, f"it was not ready within {deadline_s:g} s", child.log_path)
        time.sleep(_POLL_S)


def _become(parent_pid: int, arguments: list[str]) -> None:
    """Ask for SIGTERM at the parent's end, then become the program. Without the kernel's help, just become it."""
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    except (OSError, AttributeError):
        parent_pid = os.getppid()
    if os.getppid() != parent_pid:
        sys.exit("the parent process ended before its child began")
    try:
        os.execvp(arguments[0], arguments)  # noqa: S606 - no shell is wanted
    except OSError as error:
        sys.exit(f"{arguments[0]} cannot be run: {error}")


if __name__ == "__main__":
    _become(int(sys.argv[1]), sys.argv[2:])
