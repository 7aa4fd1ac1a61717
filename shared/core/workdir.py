"""Folders for work in progress, which do not outlive the process that made them by much.

Each process keeps its folders under a root of its own, and holds a lock on that root while it lives. A process that is
killed cannot clean up, so the next one that makes a root removes those whose lock nobody holds. Everything lies in one
directory of this user's, closed to others: what stands there already is used only where it is that.
"""

import atexit
import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from shared.core.errors import UnavailableError

_LOCK = "lock"


@contextlib.contextmanager
def work_folder(purpose: str) -> Iterator[Path]:
    """A new empty folder, removed with its content at the end. Raises UnavailableError, or OSError on a full disk."""
    with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=_roots.own()) as folder:
        yield Path(folder)


class WorkRoots:
    """The roots of this user's processes in `directory`. Safe to share between threads."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._guard = threading.Lock()
        self._own: tuple[int, Path] | None = None

    def own(self) -> Path:
        """This process's root. When it is first made, the roots of processes that are gone are removed."""
        with self._guard:
            # A forked process needs a root of its own; and a cleaner of temporary files may have taken this one.
            if self._own is None or self._own[0] != os.getpid() or not self._own[1].is_dir():
                self._own = (os.getpid(), self._make())
            return self._own[1]

    def _make(self) -> Path:
        base = (self._directory or Path(tempfile.gettempdir())) / f"slipway-work-{os.getuid()}"
        _make_private(base)
        # Under the common lock no root is seen between its making and its locking.
        common = _open_lock(base / _LOCK)
        try:
            fcntl.flock(common, fcntl.LOCK_EX)
            for root in base.iterdir():
                if root.name != _LOCK and not _is_held(root):
                    shutil.rmtree(root, ignore_errors=True)
            root = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=base))
            # Never closed: the system lets go of the lock when the process ends, however it ends.
            fcntl.flock(_open_lock(root / _LOCK), fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(common)
        atexit.register(_remove, root, os.getpid())
        return root


_roots = WorkRoots()


def _make_private(base: Path) -> None:
    """Make a directory that is this user's alone. Raises UnavailableError where something else stands there."""
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise UnavailableError(
            "the folder for work in progress", f"{base} is no directory of mode 700 of this user's: remove it"
        )


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_held(root: Path) -> bool:
    """Whether the process of a root lives. What has no lock file was left half made."""
    try:
        lock = os.open(root / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _remove(root: Path, pid: int) -> None:
    # A forked process inherits the hook, but not the root.
    if os.getpid() == pid:
        shutil.rmtree(root, ignore_errors=True)
