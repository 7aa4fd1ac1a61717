"""Times single calls of two models, interleaved, so that what slows the machine down slows both.

A call's duration is the processor time of this thread: a model only computes, and its session has no other thread. The
wall's clock would add the turns of other programs on the same cores, each of milliseconds. The longer a model's calls,
the larger the share of them that one falls into: beyond 5 % the p95 is theirs, and a model somewhat slower looks slower
by far. The clock of the whole process would not do: under a limit on processor time, as the sandbox has one, Linux
moves it by ticks of milliseconds.

Calls come in cycles of four blocks, candidate, champion, champion, candidate, and the other way round in every second
cycle: a drift of the machine's speed then cancels within each. Both models get the same rows in the same order. The
garbage collector rests meanwhile, and both are warm.
"""

import gc
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.validation.model import LoadedModel, Rows

BUDGET_S = 0.3
_MAX_CALLS = 2_000
_CYCLES = 60
_MIN_CYCLES = 8
_LONGEST_S = 20.0
"""What even a slow model's cycles may take together; below `_MIN_CYCLES` they do not go."""
_WARM_CALLS = 20
_WARM_S = 0.05

type Calls = Sequence[Rows]
"""The inputs of single calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timings:
    """Processor time of calls, shape [cycles, calls of one model in a cycle]. `champion_ns` is None without one."""

    candidate_ns: NDArray[np.int64]
    champion_ns: NDArray[np.int64] | None
    rows_a_call: int


def interleaved(
    candidate: LoadedModel,
    champion: LoadedModel | None,
    calls: Calls,
    *,
    rows_a_call: int,
    budget_s: float = BUDGET_S,
) -> Timings:
    """Time both on the same calls. Raises what the models raise."""
    sides = [candidate, champion] if champion is not None else [candidate]
    call_s = sum(_warm(side, calls) for side in sides)
    cycles, block = _plan(call_s, budget_s)
    order = [0, *([1, 1] if champion is not None else [0, 0]), 0]
    durations: list[list[NDArray[np.int64]]] = [[], []]
    started = time.perf_counter()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for cycle in range(cycles):
            if cycle >= _MIN_CYCLES and time.perf_counter() - started > _LONGEST_S:
                break  # the machine has become slower than it was
            turn = [1 - side for side in order] if champion is not None and cycle % 2 else order
            parts: list[list[int]] = [[], []]
            for side in turn:
                parts[side] += _timed(sides[side], calls, len(parts[side]), block)
            for side, part in enumerate(parts):
                durations[side].append(np.array(part, dtype=np.int64))
    finally:
        if collecting:
            gc.enable()
    return Timings(
        candidate_ns=np.stack(durations[0]),
        champion_ns=np.stack(durations[1]) if champion is not None else None,
        rows_a_call=rows_a_call,
    )


def _warm(model: LoadedModel, calls: Calls) -> float:
    """Run it until it is warm; seconds a call, the shortest seen."""
    shortest = float("inf")
    started = time.perf_counter()
    for number in range(_WARM_CALLS):
        before = time.perf_counter()
        model.run(calls[number % len(calls)])
        after = time.perf_counter()
        shortest = min(shortest, after - before)
        if number and after - started > _WARM_S:
            break
    return shortest


def _plan(call_s: float, budget_s: float) -> tuple[int, int]:
    """How many cycles, and how many calls in each block: a call of every model takes `call_s` together."""
    affordable = int(budget_s / call_s)
    block = max(1, min(affordable, _MAX_CALLS) // (2 * _CYCLES))
    longest = int(_LONGEST_S / (2 * block * call_s))
    return max(_MIN_CYCLES, min(_CYCLES, longest)), block


def _timed(model: LoadedModel, calls: Calls, first: int, count: int) -> list[int]:
    run, clock, many = model.run, time.thread_time_ns, len(calls)
    taken = []
    for number in range(first, first + count):
        inputs = calls[number % many]
        started = clock()
        run(inputs)
        taken.append(clock() - started)
    return taken
