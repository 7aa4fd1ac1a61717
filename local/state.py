"""The state directory of a system on one machine: where its parts keep what they keep, and who runs on it now.

One `slipway up` at a time holds a state directory, by a lock that its death releases. What it started is recorded with
each process's start time, so that the next one finds what a SIGKILL left behind and never signals a stranger that was
given the same process id. `up.json` tells clients where the system answers; it counts only while that system lives,
which a second lock shows: what a killed one wrote is removed before the next one takes it.
"""

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.core.errors import ConflictError, InvalidInputError

DEFAULT_STATE_DIR = Path(__file__).resolve().parent.parent / ".slipway"

_LOCK_WAIT_S = 1.0
"""A client that asks whether the lock is held holds it for that moment itself."""


class Running(BaseModel):
    """What `up.json` says: where the parts answer, the admin API's key, and the parts' process ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    functions_url: str
    server_url: str
    key: str
    storage_connection: str
    pids: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessRecord:
    """A process that was started: its id alone does not tell it from a later one, its start time does."""

    name: str
    pid: int
    start_ticks: int

    def is_alive(self) -> bool:
        """Whether this very process still runs. A zombie has ended."""
        return start_ticks(self.pid) == self.start_ticks


@dataclass(frozen=True, slots=True)
class StateDir:
    """The paths within a state directory. Nothing is created until `create` is called."""

    path: Path

    @property
    def azurite(self) -> Path:
        """Azurite's data."""
        return self.path / "azurite"

    @property
    def documents(self) -> Path:
        """The document store's SQLite file."""
        return self.path / "documents.db"

    @property
    def serving_cache(self) -> Path:
        """The model server's copies of plans and artifacts."""
        return self.path / "serving-cache"

    @property
    def keys(self) -> Path:
        """The functions host's keys."""
        return self.path / "keys.json"

    @property
    def logs(self) -> Path:
        """What each part wrote to its standard output and error."""
        return self.path / "logs"

    @property
    def up_file(self) -> Path:
        """Where the running system answers."""
        return self.path / "up.json"

    def create(self) -> None:
        """Make the directories, readable by their owner alone: they hold keys."""
        for directory in (self.path, self.azurite, self.serving_cache, self.logs):
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidInputError(
                    f"the state directory {directory} cannot be made ({error.strerror}): "
                    "choose another with --state-dir"
                ) from error

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the directory for one system, and forget what a killed one said of itself. Raises ConflictError where
        another one runs on it.
        """
        self.create()
        with self._lock(self._start_lock_file):
            if self.is_held():  # by a version that knew but one lock
                raise self._conflict()
            self.clear_running()
            with self._lock(self._lock_file):
                yield

    @contextmanager
    def _lock(self, file: Path) -> Generator[None]:
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise InvalidInputError(
                f"{file} cannot be opened ({error.strerror}): choose another state directory with --state-dir"
            ) from error
        try:
            if not _lock_within(descriptor, _LOCK_WAIT_S):
                raise self._conflict()
            yield
        finally:
            os.close(descriptor)

    def _conflict(self) -> ConflictError:
        return ConflictError(
            f"a system runs on {self.path} already: use it, stop it first, or choose another --state-dir"
        )

    def is_held(self) -> bool:
        """Whether a system runs on this directory now."""
        try:
            descriptor = os.open(self._lock_file, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        else:
            return False
        finally:
            os.close(descriptor)

    def write_running(self, running: Running) -> None:
        """Tell clients where the system answers."""
        write_atomically(self.up_file, running.model_dump_json(indent=2))

    def clear_running(self) -> None:
        """Tell clients that no system runs."""
        self.up_file.unlink(missing_ok=True)

    def running(self) -> Running | None:
        """Where the system answers; None where none runs, also where a killed one left its file behind."""
        if not self.is_held():
            return None
        try:
            # Read after the look at the lock: what stands there now was written by who holds it.
            text = self.up_file.read_text()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidInputError(f"{self.up_file} cannot be read: {error.strerror}") from error
        try:
            return Running.model_validate_json(text)
        except ValidationError as error:
            raise InvalidInputError(f"{self.up_file} is not what `slipway up` writes: start it again") from error

    def record_processes(self, records: Iterable[ProcessRecord]) -> None:
        """Remember the processes that a system has started."""
        write_atomically(self._processes_file, json.dumps([asdict(record) for record in records], indent=2))

    def left_behind(self) -> list[ProcessRecord]:
        """The recorded processes that still run. Call with the lock held: then they belong to a system that died."""
        try:
            found: Any = json.loads(self._processes_file.read_text())
            records = [ProcessRecord(**_record_fields(item)) for item in found]
        except (OSError, ValueError, TypeError, KeyError):
            return []
        return [record for record in records if record.is_alive()]

    @property
    def _lock_file(self) -> Path:
        return self.path / "up.lock"

    @property
    def _start_lock_file(self) -> Path:
        return self.path / "start.lock"

    @property
    def _processes_file(self) -> Path:
        return self.path / "processes.json"


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None where it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    # The command's name, in parentheses, may hold spaces and parentheses of its own.
    state, *fields = stat.rpartition(b")")[2].split()
    return None if state in {b"Z", b"X"} else int(fields[18])


def write_atomically(path: Path, text: str) -> None:
    """Replace a file as a whole, readable by its owner alone: a reader sees the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise


def _lock_within(descriptor: int, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True


def _record_fields(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": str(item["name"]), "pid": int(item["pid"]), "start_ticks": int(item["start_ticks"])}
