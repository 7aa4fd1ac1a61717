"""What this process holds in memory, and what loading a model adds to it. Linux.

Where the kernel does not tell, the answer is 0: a figure that is missing fails nothing.
"""

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shared.validation.model import LoadedModel, ModelError, Rows

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
_MAX_RUNS = 8
_STEADY = 0.01
"""Memory that grows by less than this share from one run to the next is taken for steady."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCost:
    """What loading a model, and running it, added to this process."""

    load_s: float
    loaded_bytes: int
    """After the session was made."""
    peak_bytes: int
    """The most while it was being made. Where the kernel does not forget an earlier peak, no less than that."""


def measured_load(make: Callable[[], LoadedModel]) -> tuple[LoadedModel, LoadCost, int]:
    """Make a session and say what it cost, with the memory before it. Raises what `make` raises."""
    before = settled_bytes()
    _forget_peak()
    started = time.perf_counter()
    model = make()
    load_s = time.perf_counter() - started
    after, peak = resident_bytes(), _status("VmHWM")
    cost = LoadCost(
        load_s=load_s, loaded_bytes=max(0, after - before), peak_bytes=max(0, peak - before, after - before)
    )
    return model, cost, before


def resident_after_runs(model: LoadedModel, batch: Rows, before: int) -> int:
    """How much this process has grown since `before`, once full batches no longer make it grow.

    A batch that the model fails on ends it: what it took until then is counted.
    """
    grown = resident_bytes() - before
    for _ in range(_MAX_RUNS):
        try:
            model.run(batch)
        except (ModelError, MemoryError):
            break
        now = resident_bytes() - before
        if now - grown <= _STEADY * max(grown, 1):
            return max(now, grown, 0)
        grown = now
    return max(grown, 0)


def settled_bytes() -> int:
    """Resident memory once what is free has been given back to the system."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return resident_bytes()


def resident_bytes() -> int:
    """Resident memory now."""
    return _status("VmRSS")


def _forget_peak() -> None:
    # A process that nobody may look into may not write here: then the peak is that since its start.
    try:
        _CLEAR_REFS.write_text(_FORGET_PEAK)
    except OSError:
        return


def _status(field: str) -> int:
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    return 0
