"""Runs a model before it serves, as it will be run: so that its first request finds it warm, and its run times known.

Blocking; runs on the loader's threads.
"""

from collections.abc import Sequence
from time import perf_counter, thread_time

import numpy as np

from aks_serving.batches import bytes_of
from aks_serving.errors import ModelRunError
from aks_serving.model import Model
from aks_serving.tensors import Feeds

_ROUNDS = 5
_BATCH_ROWS = (1, 8, 64)
_ENOUGH_S = 0.5


def run_times(model: Model, rows: Sequence[Feeds], *, batchable: bool) -> tuple[tuple[int, float], ...]:
    """Seconds of processor time that a run of so many bytes takes: the least of a few, of the sizes requests have.

    Empty where the model takes none of the rows. A slow model is run less often.
    """
    times: list[tuple[int, float]] = []
    begun_s = perf_counter()
    for size in _BATCH_ROWS if batchable else (1,):
        feeds = rows[0] if size == 1 else _repeated(rows, size)
        took: list[float] = []
        while len(took) < _ROUNDS and (not took or perf_counter() - begun_s < _ENOUGH_S):
            started_s = thread_time()
            try:
                model.run(feeds)
            except ModelRunError:
                return tuple(times)
            took.append(thread_time() - started_s)
        times.append((bytes_of(feeds), min(took)))
        if perf_counter() - begun_s > _ENOUGH_S:
            break
    return tuple(times)


def _repeated(rows: Sequence[Feeds], size: int) -> Feeds:
    return {name: np.concatenate([rows[i % len(rows)][name] for i in range(size)]) for name in rows[0]}
