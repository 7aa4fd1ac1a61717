"""What this process takes of memory, what it may take, what share that is, and room for one version more.

The limit is for all workers together. Each keeps to an equal part of it, beside the pages that they share, and so needs
to ask no other. Where a version does not fit, shadows make room, the least recently used first; what then still does
not fit is not loaded. A version that has traffic, or as a candidate may get it, never makes room.
"""

import ctypes
import logging
import mmap
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from aks_serving.errors import LoadCode, LoadError

log = logging.getLogger(__name__)

_MIB = 1024 * 1024
_USABLE = 0.95
"""The part of a limit that is planned with: at the limit itself the kernel ends processes."""
_GONE_WAIT_S, _LOOK_S = 5.0, 0.02
_ROLLUP, _STATM = Path("/proc/self/smaps_rollup"), Path("/proc/self/statm")
_GROUPS, _OWN_GROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_SMALL_BYTES = 128 * _MIB
"""Up to here a look at all pages takes a millisecond or so."""
_shared_bytes: dict[Path, int | None] = {}
"""What the last look found, by where it looked."""
_UNLIMITED = 1 << 50
"""From here on a control group's limit says that there is none."""

type Evict = Callable[[], "weakref.ref[object] | None"]
"""Takes out of service what is least needed: gives a reference to it, which dies when its memory is free, or None where
nothing may go. Called on any thread.
"""


class _Files(NamedTuple):
    """Where a version of control groups says what."""

    limit: str
    used: str
    inactive: str
    """The line of memory.stat that tells of files' pages that nobody used lately."""


_VERSION_2 = _Files("memory.max", "memory.current", "inactive_file")
_VERSION_1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Bytes of this process in memory: those that it has for itself, and those that it shares with other processes."""

    private_bytes: int
    shared_bytes: int


def usage(rollup: Path = _ROLLUP, statm: Path = _STATM) -> Usage:
    """What this process takes now. Nothing where the system does not tell.

    What is shared is looked up while the process is small, and known from then on: to tell, the kernel goes through all
    pages, some 10 ms a GB, and holds up who maps memory meanwhile. What comes later counts as this process's own.
    """
    resident, files = _resident(statm)
    if resident <= _SMALL_BYTES or rollup not in _shared_bytes:
        _shared_bytes[rollup] = _shared(rollup)
    shared = _shared_bytes[rollup]
    shared = files if shared is None else min(shared, resident)
    return Usage(private_bytes=resident - shared, shared_bytes=shared)


def _shared(rollup: Path) -> int | None:
    """Bytes that this process shares with others; None where the system does not tell."""
    try:
        text = rollup.read_text()
    except OSError:  # kernels before 4.14, and sandboxes that are none, have no such file
        return None
    kilobytes = {}
    for line in text.splitlines()[1:]:
        name, _, rest = line.partition(":")
        kilobytes[name] = int(rest.split()[0])
    return (kilobytes["Rss"] - kilobytes["Private_Clean"] - kilobytes["Private_Dirty"]) * 1024


def _resident(statm: Path) -> tuple[int, int]:
    """Bytes in memory, and those of them that are of files, most of which other processes have as well."""
    try:
        _, resident, files = (int(pages) for pages in statm.read_text().split()[:3])
    except OSError:
        return 0, 0
    return resident * mmap.PAGESIZE, files * mmap.PAGESIZE


def group_limit(root: Path = _GROUPS, own: Path = _OWN_GROUP) -> int | None:
    """What the control group of this process, or one above it, allows of memory; None where none limits it."""
    return min((limit for _, _, limit in _limits(root, own)), default=None)


def memory_share(
    limit_bytes: int | None,
    *,
    workers: int = 1,
    used: Callable[[], Usage] = usage,
    root: Path = _GROUPS,
    own: Path = _OWN_GROUP,
) -> float | None:
    """The share of its limit that the whole server takes; None where it has none. Blocks for some milliseconds.

    Against a limit that was set, what all workers take, each as much as this one. Else the control groups' own figures,
    those of the group that is nearest to its limit; without pages of files that the kernel drops when it needs memory
    (as the kubelet counts, too).
    """
    if limit_bytes is not None:
        found = used()
        return (found.shared_bytes + workers * found.private_bytes) / limit_bytes
    shares = []
    for folder, files, limit in _limits(root, own):
        try:
            used_bytes = int((folder / files.used).read_text())
            stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        shares.append(max(0, used_bytes - int(stat.get(files.inactive, "0"))) / limit)
    return max(shares, default=None)


def give_back() -> None:
    """Return what was let go of: building a session of tree ensembles takes twice what the session keeps."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


class Room:
    """Keeps this process within its part of a limit. Methods block; `make` on one thread at a time."""

    def __init__(
        self,
        limit_bytes: int | None,
        *,
        workers: int = 1,
        evict: Evict = lambda: None,
        used: Callable[[], Usage] = usage,
    ) -> None:
        """None: there is no limit."""
        self._limit_bytes = limit_bytes
        self._workers = workers
        self._evict = evict
        self._used = used

    def make(self, needed_bytes: int, what: str) -> None:
        """See that so much more fits. Raises LoadError where it does not, though all that may go is gone."""
        while (left := self._left_bytes()) is not None and left < needed_bytes:
            gone = self._evict()
            if gone is None:
                raise LoadError(LoadCode.MEMORY, self._sentence(left, needed_bytes, what))
            _wait_until(gone)
            give_back()

    def check(self, needed_bytes: int, what: str) -> None:
        """Raises LoadError where so much would not fit if all else were gone. On any thread."""
        if self._limit_bytes is not None and self._limit_bytes * _USABLE / self._workers < needed_bytes:
            raise LoadError(LoadCode.MEMORY, self._sentence(self._left_bytes() or 0, needed_bytes, what))

    def _left_bytes(self) -> int | None:
        if self._limit_bytes is None:
            return None
        used = self._used()
        return int((self._limit_bytes * _USABLE - used.shared_bytes) / self._workers) - used.private_bytes

    def _sentence(self, left: int, needed: int, what: str) -> str:
        limit = self._limit_bytes or 0
        of = f"all {self._workers} workers" if self._workers > 1 else "the server"
        wanted = f"{what} takes up to {needed / _MIB:.0f} MiB" if needed else f"with {what} the limit is exceeded"
        return (
            f"{wanted}, and of the {limit / _MIB:.0f} MiB that {of} may take a worker has "
            f"{left / _MIB:.0f} left: raise the container's limit or SLIPWAY_MEMORY_LIMIT_BYTES, serve fewer versions "
            "at once, or make the model smaller"
        )


def _wait_until(gone: "weakref.ref[object]") -> None:
    """Until nothing holds what was taken out of service: the requests that began with it, and its last window."""
    give_up_s = time.monotonic() + _GONE_WAIT_S
    while gone() is not None and time.monotonic() < give_up_s:
        time.sleep(_LOOK_S)


def _limits(root: Path, own: Path) -> Iterator[tuple[Path, _Files, int]]:
    """The groups that limit this process, and what each allows."""
    for folder, files in _groups(root, own):
        try:
            limit = int((folder / files.limit).read_text())
        except (OSError, ValueError):  # where there is none it says `max`
            continue
        if 0 < limit < _UNLIMITED:
            yield folder, files, limit


def _groups(root: Path, own: Path) -> list[tuple[Path, _Files]]:
    """Where limits may stand, of both versions of control groups: of this process's group and of all above it."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, files = root, _VERSION_2
        elif "memory" in controllers.split(","):
            base, files = root / "memory", _VERSION_1
        else:
            continue
        folder = base / path.strip("/")
        found += [(place, files) for place in (folder, *folder.parents) if place.is_relative_to(base)]
    return found
