"""Whose turn it is to download a file, among the threads and processes that share a cache.

A turn is a lock of the kernel on one byte of one file, by the file's digest: it ends with whoever has it, however that
ends, and leaves nothing behind. Who waits for one waits for a download that gets on, never for one that stands.
"""

import contextlib
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

STANDS_S = 3.0
"""A download that brought nothing for so long is not waited for: as long as a connection may take to be made."""
_SYNC_S = 30.0
"""But so long, once all is written: the disk may take its time to have it."""
_LOOK_S = 0.02


@contextlib.contextmanager
def turn(
    path: Path,
    digest: str,
    *,
    is_there: Callable[[], bool],
    written: Callable[[], int],
    size_bytes: int,
    stands_s: float = STANDS_S,
) -> Iterator[None]:
    """Be the only one, of all who name the same `path`, that downloads a file. Blocks until the others are done.

    But nobody waits for whoever stands, nor once the file is there, nor where there can be no lock: the caller goes on
    without the turn. `is_there` says whether it is, `written` how many bytes are on disk of what others download;
    `size_bytes` is what there will be at most, and who brings nothing for `stands_s` stands.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            stack.callback(os.close, descriptor)
            _wait(descriptor, digest, is_there, written, size_bytes, stands_s)
        yield


def _wait(
    descriptor: int,
    digest: str,
    is_there: Callable[[], bool],
    written: Callable[[], int],
    size_bytes: int,
    stands_s: float,
) -> None:
    """Until the descriptor has the lock, or it is not worth waiting for. Raises OSError."""
    seen, since_s = -1, monotonic()
    # Who went on without the turn may have brought the file while whoever has it stands.
    while not (_locked(descriptor, digest) or is_there()):
        found = written()
        if found != seen:
            seen, since_s = found, monotonic()
        elif monotonic() - since_s > (_SYNC_S if found >= size_bytes else stands_s):
            return
        sleep(_LOOK_S)


def _locked(descriptor: int, digest: str) -> bool:
    """Whether the descriptor has the lock now. Raises OSError where there is none to be had, ever."""
    if sys.platform != "linux":
        return True
    # struct flock: a lock of this descriptor, not of the process, whose threads take turns as well.
    asked = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, int(digest[:15], 16), 1, 0)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, asked)
    except BlockingIOError:
        return False
    return True
