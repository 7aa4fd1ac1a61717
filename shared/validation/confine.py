"""Walls around the sandboxed process: limits, a system call filter, and the file system narrowed to what it needs.

`confine` limits this process for good, before it looks at anything from outside: memory, CPU time, files; no core dump,
no privileges, no network where the system allows one of its own. A seccomp filter takes away what a reader of files
never does: starting processes and programs, sockets, signals to and memory of other processes, mounts, namespaces, its
own limits. Threads go on working. Landlock leaves it the libraries and the given files to read, and the files that were
made for it to write: it can make no others. Each wall stands by itself, so what the kernel refuses costs that wall
alone, and is named.

Linux on x86_64 and aarch64. No wall against a hole in the kernel.
"""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from shared.validation.landlock import narrow_file_system
from shared.validation.seccomp import filter_system_calls
from shared.validation.wire import Limits

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_NICENESS = 5
_CPU_GRACE_S = 5
_KILLED_FIRST = b"1000"
_MAX_THREADS = 128
"""Threads of this process, where the count is its own: pyarrow starts a few for each processor."""

_SYSTEM = (
    *("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/nix/store"),
    *("/usr/share/zoneinfo", "/usr/share/locale"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime"),
    *("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/sys/vm", "/proc/sys/kernel"),
    *("/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm/transparent_hugepage"),
)
"""What libraries read of the system, most of all how many processors and how much memory there is."""


_FORGETS_PEAK = Path("/proc/self/clear_refs")
"""Written to measure memory: it forgets the most that this process ever held."""


class OrphanedError(OSError):
    """The process that asked is gone."""


def confine(
    limits: Limits, parent_pid: int, *, readable: Iterable[Path] = (), writable: Iterable[Path] = ()
) -> tuple[str, ...]:
    """Confine this process for good; name the walls that the system would not give.

    It will be killed when the process that started it dies. `readable` are the files of the task, beside the libraries;
    those of `writable` it may also write, and beneath a directory there make and remove some. To be called while there
    is one thread: the walls hold for it and for those it starts. Raises OrphanedError where the process that asked is
    gone already, OSError where a limit cannot be set.
    """
    readable, writable = (*_libraries(), *readable), (*writable, _FORGETS_PEAK)
    libc = ctypes.CDLL(None, use_errno=True)
    alone = _leave_network()
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        raise OrphanedError(f"the process {parent_pid}, which asked, is gone")
    _set_limits(limits, alone=alone)
    missing = [] if alone else ["no network of its own"]
    if (why := narrow_file_system(libc, readable, writable)) is not None:
        missing.append(f"no Landlock: {why}")
    _drop_capabilities(libc)
    if (why := filter_system_calls(libc)) is not None:
        missing.append(f"no seccomp: {why}")
    return tuple(missing)


def _libraries() -> tuple[Path, ...]:
    """What Python and native libraries are loaded from: the interpreter, its search path, the system's libraries.

    Of a directory that holds this package no more than the package: settings with secrets may lie beside it.
    """
    package = Path(__file__).resolve().parent.parent
    searched = [entry for entry in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if Path(entry).is_absolute()]
    entries = (sys.base_prefix, sys.prefix, sys.base_exec_prefix, sys.exec_prefix, *sys.path, *searched)
    paths = [Path(entry).resolve() for entry in entries if entry]
    return (package, *(path for path in paths if path not in package.parents), *map(Path, _SYSTEM))


def _leave_network() -> bool:
    """Into namespaces of its own for users, network and System V objects, empty ones, where the host allows that."""
    try:
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET | os.CLONE_NEWIPC)
    except OSError:
        return False
    return True


def _set_limits(limits: Limits, *, alone: bool) -> None:
    os.nice(_NICENESS)
    _be_killed_first()
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    # At the soft limit SIGXCPU ends the process, which says why; at the hard one SIGKILL.
    _limit(resource.RLIMIT_CPU, limits.cpu_s, limits.cpu_s + _CPU_GRACE_S)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    if alone:
        # In a user namespace of its own the count is this process's; else it would be that of all of the user's.
        _limit(resource.RLIMIT_NPROC, _MAX_THREADS)


def _limit(kind: int, soft: int, hard: int | None = None) -> None:
    """No higher than what holds already."""
    _, ceiling = resource.getrlimit(kind)
    wanted = soft if hard is None else hard
    highest = wanted if ceiling == resource.RLIM_INFINITY else min(wanted, ceiling)
    resource.setrlimit(kind, (min(soft, highest), highest))


def _be_killed_first() -> None:
    """Where the machine's memory runs out, this process is to go before the one that asked."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(descriptor, _KILLED_FIRST)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """All of them: root could raise its own limits again. Where there are none, nothing changes."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    none = (ctypes.c_uint32 * 6)()
    libc.capset(ctypes.byref(header), ctypes.byref(none))
