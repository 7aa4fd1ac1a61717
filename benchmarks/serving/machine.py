"""The machine: which cores serve and which send, what a process tree costs, and what it all ran on.

A server under test has one core to itself; what loads it, and what it leans on, share another. The trees that are not
measured are stopped (SIGSTOP), so that what they do in the background is not charged to the one that is.
"""

import os
import platform
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
PACKAGES = ("onnxruntime", "numpy", "msgspec", "httptools", "uvloop")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cores:
    """Core numbers as taskset takes them."""

    serve: str
    load: str

    @classmethod
    def of_this_machine(cls) -> Self:
        """The first core serves, the second one sends. Raises OSError where there is only one."""
        found = sorted(os.sched_getaffinity(0))
        if len(found) < 2:
            raise OSError(f"this process may use {len(found)} core: the benchmark needs two, one to serve, one to send")
        return cls(serve=str(found[0]), load=str(found[1]))

    @property
    def both(self) -> str:
        """For what may use either."""
        return f"{self.serve},{self.load}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a process tree holds. RSS counts a page in every process that has it; PSS shares it out among them.

    `pss_mb` is as if nothing else ran on the machine: of programs and libraries that other processes have open too,
    the tree is charged the whole.
    """

    rss_mb: float
    pss_mb: float
    processes: int


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, parents first. What ended meanwhile is left out."""
    found = [pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for task in sorted(Path(f"/proc/{parent}/task").iterdir()):
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_s(pid: int) -> float:
    """Seconds of CPU time, user and system, that a process tree has used so far, its ended children's included."""
    total = 0
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            # The name, in parentheses, may hold anything; of what follows it 11 and 12 are utime and stime.
            fields = Path(f"/proc/{one}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            total += sum(int(field) for field in fields[11:15])
    return total / _TICKS


def memory(pid: int) -> Memory:
    """What a process tree holds now."""
    rss = anonymous = processes = 0
    files: dict[str, int] = {}
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="utf-8").splitlines()[1:]
            held = {line.split(":")[0]: int(line.split()[1]) for line in lines}
            rss += held["Rss"]
            anonymous += held["Pss_Anon"] + held["Pss_Shmem"]
            for part, size in _file_parts(Path(f"/proc/{one}/smaps").read_text(encoding="utf-8")):
                # What one of them has of a part of a file, the others have next to nothing else of.
                files[part] = max(size, files.get(part, 0))
            processes += 1
    return Memory(rss_mb=rss / 1024, pss_mb=(anonymous + sum(files.values())) / 1024, processes=processes)


def freeze(pid: int) -> None:
    """Stop a process tree where it stands."""
    _signal(pid, signal.SIGSTOP)


def thaw(pid: int) -> None:
    """Let a process tree go on."""
    _signal(pid, signal.SIGCONT)


def prefer(pid: int) -> None:
    """Have a process tree, and its session, run before what else wants the cores, where this process may say so.

    The kernel shares cores out among sessions first (sched_autogroup): a process's own niceness does nothing there.
    """
    for one in tree(pid):
        with suppress(OSError):
            Path(f"/proc/{one}/autogroup").write_text("-20", encoding="ascii")


def described() -> dict[str, str]:
    """What this ran on, for whoever reads the numbers."""
    model = "unknown"
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    control = "unknown"
    with suppress(OSError):
        control = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text(encoding="ascii").strip()
    return {
        "cpu": model,
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "tcp": control,
        "python": platform.python_version(),
    } | {name: version(name) for name in PACKAGES}


def _file_parts(smaps: str) -> Iterator[tuple[str, int]]:
    """Each mapped part of a file (offset, device, inode), and the KB of it that are in memory as they are on disk."""
    part, rss = "", 0
    for line in smaps.splitlines():
        name, *fields = line.split()
        if not name.endswith(":"):
            _, offset, device, inode = fields[:4]
            part = "" if inode == "0" else f"{offset} {device} {inode}"
        elif name == "Rss:":
            rss = int(fields[0])
        elif name == "Anonymous:" and part:
            yield part, rss - int(fields[0])


def _signal(pid: int, number: signal.Signals) -> None:
    for one in tree(pid):
        with suppress(ProcessLookupError):
            os.kill(one, number)
