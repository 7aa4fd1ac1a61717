"""What each process of this pod holds, noted on disk while it lives, so that those after it can tell that it died.

A note is a file of its own, `lives/<pod>`, named as the process is in its windows, which the process keeps locked: the
system lets go of the lock however the process ends, by a signal, for want of memory, or in a model's own code. One that
ends as it was told removes its note first. A note that nobody locks is thus of a process that died; it is counted in
every window for an hour, since whoever told of it last may die too. Losing a note costs one death, and no more.

A note says what was loaded or was being loaded, and under which rollout: not which version the process died of.
"""

import contextlib
import fcntl
import json
import logging
import os
import time
from collections import Counter
from pathlib import Path

import msgspec

from shared.telemetry.window import Deaths

log = logging.getLogger(__name__)

TOLD_S = 3_600.0
_MOST_BYTES = 1_000_000
_MOST_KEPT = 200

type _Held = dict[str, tuple[str, list[int]]]
"""By endpoint, the rollout and the versions."""


class Lives:
    """The notes of one pod's processes. All but `deaths` block, for microseconds; no two are called at once."""

    def __init__(self, directory: Path, *, pod: str) -> None:
        """`directory` is the cache's; `pod` is the name that this process has in its windows."""
        self._folder = directory / "lives"
        self._pod = pod
        self._file: int | None = None
        self._held: _Held = {}
        self._dead: dict[str, tuple[float, _Held]] = {}

    def begin(self) -> None:
        """Begin this process's own note, and read those of the dead. A disk that refuses is logged, and no more."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._read_dead()
            # Locked before it has its name: nobody finds it without a lock.
            private = self._folder / f".{self._pod}"
            self._file = os.open(private, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            private.replace(self._folder / self._pod)
        except OSError as error:
            log.warning("that this process lives is not noted on disk, nor whether others died: %s", error)

    def holds(self, endpoint: str, rollout_id: str | None, versions: list[int]) -> None:
        """Note what this process is about to hold of an endpoint: before it loads anything that may end it."""
        self._held[endpoint] = rollout_id or "", versions
        if self._file is None:
            return
        # One write: whoever dies in its midst leaves a line that still ends where it did, or none that is read.
        line = json.dumps(self._held) + "\n"
        with contextlib.suppress(OSError):
            os.pwrite(self._file, line.encode(), 0)

    def deaths(self, endpoint: str) -> Deaths | None:
        """How many died before this one began, within an hour, under the rollout that the latest of them was in."""
        since_s = time.time() - TOLD_S
        held = [note[endpoint] for at_s, note in self._dead.values() if at_s >= since_s and endpoint in note]
        if not held or not held[-1][0]:
            return None
        rollout_id = held[-1][0]
        processes = Counter(version for its, versions in held if its == rollout_id for version in versions)
        return Deaths(rollout_id=rollout_id, processes=dict(processes))

    def end(self) -> None:
        """Remove this process's note: it ends as it was told, or for a reason that is told of otherwise."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                (self._folder / self._pod).unlink(missing_ok=True)
                os.close(self._file)
            self._file = None

    def _read_dead(self) -> None:
        """Read the notes that nobody locks, the oldest first; of too many the oldest are removed."""
        notes = (path for path in self._folder.glob("[!.]*") if path.name != self._pod)
        for path in sorted(notes, key=_changed_at):
            try:
                self._read(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("the note %s is passed over: %s", path, error)
        for name in list(self._dead)[:-_MOST_KEPT]:
            del self._dead[name]
            with contextlib.suppress(OSError):
                (self._folder / name).unlink()

    def _read(self, path: Path) -> None:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            # One that its process removed meanwhile ended as it was told.
            if os.fstat(file).st_nlink:
                self._dead[path.name] = os.fstat(file).st_mtime, _parsed(os.read(file, _MOST_BYTES))
        except BlockingIOError:
            return  # it lives
        except ValueError as error:
            log.warning("the note %s is passed over: %s", path, error)
        finally:
            os.close(file)


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _parsed(data: bytes) -> _Held:
    """What a note says: its first line. Raises ValueError."""
    line, newline, _ = data.partition(b"\n")
    return msgspec.json.decode(line, type=_Held) if newline else {}
