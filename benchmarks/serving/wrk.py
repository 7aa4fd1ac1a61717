"""wrk, the load generator of the closed loops: run on a core of its own, its numbers read.

A closed loop sends a connection's next request when its last one is answered: it finds the most that a server can do.
What a server does below that is the open loop's business (benchmarks.serving.openloop).
"""

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = Path(__file__).with_name("wrk.lua")
_LINE = re.compile(r"^wrk\.lua: (\{.*\})$", re.MULTILINE)
_GRACE_S = 30.0


class LoadError(Exception):
    """A load generator could not be run, or the server did not answer all it was asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a closed loop found. `failed` counts answers that are not 2xx or 3xx, and socket errors."""

    requests: int
    duration_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    failed: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.duration_s


def find_wrk() -> str:
    """Where wrk is. Raises LoadError."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("there is no `wrk` on the PATH: install it (Debian, Ubuntu: apt install wrk)")
    return found


def run(url: str, requests: Path, *, connections: int, duration_s: int, core: str) -> Load:
    """Ask as fast as answers come, over kept-alive connections. Raises LoadError where anything failed."""
    command = ["taskset", "-c", core, find_wrk(), "-t", "1", "-c", str(connections), "-d", f"{duration_s}s"]
    command += ["--timeout", "10s", "-s", str(_SCRIPT), url, "--", str(requests)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + _GRACE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"wrk did not end within {error.timeout} s of asking {url}") from error
    load = parse(ended.stdout, ended.stderr)
    if load.failed or not load.requests:
        raise LoadError(f"{load.failed} of {load.requests} answers of {url} were no answers: see the server's log")
    return load


def parse(out: str, err: str = "") -> Load:
    """The numbers of a run. Raises LoadError where wrk did not end in the script's line."""
    found = _LINE.search(out)
    if found is None:
        raise LoadError(f"wrk did not say what it found: {(err or out).strip()[-500:]!r}")
    read: dict[str, int] = json.loads(found[1])
    return Load(
        requests=read["requests"],
        duration_s=read["duration_us"] / 1e6,
        p50_ms=read["p50_us"] / 1e3,
        p90_ms=read["p90_us"] / 1e3,
        p99_ms=read["p99_us"] / 1e3,
        max_ms=read["max_us"] / 1e3,
        failed=read["refused"] + read["socket_errors"],
    )
