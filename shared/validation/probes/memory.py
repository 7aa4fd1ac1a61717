"""What this process holds in memory, and what loading a model adds to it. Linux.

Measured once what was freed has been given back to the system: how much of that an allocator keeps depends on what the
process did before, and is no model's cost. Where the kernel does not tell, the answer is 0: a figure that is missing
fails nothing.
"""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from shared.validation.model import LoadedModel, Rows

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
_MAX_RUNS = 8
_STEADY = 0.01
"""A run that adds less than this share of all growth ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadCost:
    """What making a session added to this process."""

    load_s: float
    resident_bytes: int
    peak_bytes: int
    """The most meanwhile. Where the kernel does not forget an earlier peak, no less than that."""


def measured_load(make: Callable[[], LoadedModel]) -> tuple[LoadedModel, LoadCost]:
    """Make a session and say what it cost, beside what the runtime costs by itself. Raises what `make` raises."""
    _warm_runtime()
    before = settled_bytes()
    _forget_peak()
    started = time.perf_counter()
    model = make()
    load_s = time.perf_counter() - started
    peak = _status("VmHWM") - before
    grown = max(0, settled_bytes() - before)
    return model, LoadCost(load_s=load_s, resident_bytes=grown, peak_bytes=max(grown, peak))


def growth_by_runs(model: LoadedModel, batch: Rows) -> int:
    """How much this process grows by running a batch until it grows no more. Raises ModelError.

    The runtime's arena is enlarged over the first runs.
    """
    before = settled_bytes()
    grown = 0
    for _ in range(_MAX_RUNS):
        model.run(batch)
        now = _status("VmRSS") - before
        if now - grown <= _STEADY * max(now, 1):
            break
        grown = now
    return max(0, settled_bytes() - before)


def settled_bytes() -> int:
    """Resident memory once what is free has been given back to the system."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    return _status("VmRSS")


def _warm_runtime() -> None:
    """A session of next to nothing, so that what the runtime sets up once is no model's cost."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "warm", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(1, dtype=np.float32)})


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
