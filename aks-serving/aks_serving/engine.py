"""Runs models: the calls that reach one version in one turn of the event loop become one batch at the turn's end.

Each caller gets its own rows. A batch that fails is run again one call at a time, so that only the guilty call fails;
a caller that goes away harms no other. Models run on one thread, never on the event loop; the number of calls that wait
or run is bounded. Every call that ran is counted, a batch at a time, whether or not its caller still waits.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

from aks_serving.counts import Kind, Tally
from aks_serving.errors import ModelRunError, OverloadedError
from aks_serving.loader import LoadedModel
from aks_serving.model import Model
from aks_serving.probe import row_count
from aks_serving.tensors import Array, Feeds

log = logging.getLogger(__name__)

MAX_BATCH_ROWS = 128

type Outputs = Sequence[Array]
type _Result = Outputs | ModelRunError
type _Key = tuple[tuple[int, ...], ...]


class Call:
    """One request to one version. `rows` and `key` are None where it must run alone."""

    __slots__ = ("feeds", "future", "key", "kind", "rows", "started_s", "tally")

    def __init__(
        self,
        *,
        feeds: Feeds,
        rows: int | None,
        future: asyncio.Future[Outputs],
        kind: Kind,
        tally: Tally,
        started: float,
    ) -> None:
        self.feeds = feeds
        self.rows = rows
        self.key: _Key | None = tuple(array.shape[1:] for array in feeds.values()) if rows else None
        self.future = future
        self.kind = kind
        self.tally = tally
        self.started_s = started


class Engine:
    """The thread on which every model of this process runs, and the bound on what waits for it."""

    def __init__(self, *, max_queue: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="run")
        self._max_queue = max_queue
        self.waiting = 0

    def admit(self) -> None:
        """Count one more call. Raises OverloadedError where the queue is full."""
        if self.waiting >= self._max_queue:
            raise OverloadedError(self.waiting)
        self.waiting += 1

    def run(self, model: Model, calls: list[Call]) -> asyncio.Future[list[_Result]]:
        """Run calls of one key on the engine's thread: a result for each."""
        return asyncio.get_running_loop().run_in_executor(self._executor, _run, model, [c.feeds for c in calls])

    def close(self) -> None:
        """Let the thread go. What it runs now is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class Lane:
    """The calls of one loaded version."""

    def __init__(self, loaded: LoadedModel, engine: Engine) -> None:
        self.model = loaded.model
        self.batchable = loaded.batchable
        self._engine = engine
        self._pending: deque[Call] = deque()
        self._busy = False

    async def run(self, feeds: Feeds, *, kind: Kind, tally: Tally, started_s: float) -> Outputs:
        """The model's outputs for a request's inputs, which fit its signature and stand in its order.

        `started_s` is when the request came (perf_counter). Raises ModelRunError or OverloadedError.
        """
        self._engine.admit()
        loop = asyncio.get_running_loop()
        rows = row_count(feeds) if self.batchable else None
        call = Call(feeds=feeds, rows=rows, future=loop.create_future(), kind=kind, tally=tally, started=started_s)
        tally.in_flight += 1
        self._pending.append(call)
        if not self._busy:
            self._busy = True
            loop.call_soon(self._start)
        return await call.future

    def _start(self) -> None:
        batch = self._next_batch()
        if not batch:
            self._busy = False
            return
        running = self._engine.run(self.model, batch)
        running.add_done_callback(lambda done: self._finish(batch, done))

    def _finish(self, batch: list[Call], done: asyncio.Future[list[_Result]]) -> None:
        error = done.exception() if not done.cancelled() else None
        if done.cancelled() or error is not None:
            log.error("a batch of version %d was lost", self.model.version, exc_info=error)
            failure = ModelRunError(self.model.version, "the server could not run it")
            results: list[_Result] = [failure] * len(batch)
        else:
            results = done.result()
        now_s = perf_counter()
        version = self.model.version
        for call, result in zip(batch, results, strict=True):
            self._leave(call)
            if isinstance(result, ModelRunError):
                call.tally.failed(version, call.kind)
                if not call.future.done():
                    call.future.set_exception(result)
            else:
                call.tally.answered(version, call.kind, (now_s - call.started_s) * 1e3)
                if not call.future.done():
                    call.future.set_result(result)
        asyncio.get_running_loop().call_soon(self._start)

    def _next_batch(self) -> list[Call]:
        """The oldest call, and those that can run with it, up to a batch's rows. Calls nobody waits for are dropped."""
        batch: list[Call] = []
        others: deque[Call] = deque()
        rows = 0
        for call in self._pending:
            if call.future.done():
                self._leave(call)
            elif not batch:
                batch.append(call)
                rows = call.rows or MAX_BATCH_ROWS
            elif call.rows and call.key == batch[0].key and rows + call.rows <= MAX_BATCH_ROWS:
                batch.append(call)
                rows += call.rows
            else:
                others.append(call)
        self._pending = others
        return batch

    def _leave(self, call: Call) -> None:
        self._engine.waiting -= 1
        call.tally.in_flight -= 1


def _run(model: Model, parts: list[Feeds]) -> list[_Result]:
    if len(parts) == 1:
        try:
            return [model.run(parts[0])]
        except ModelRunError as error:
            return [error]
    try:
        return list(_run_joined(model, parts))
    except (ModelRunError, MemoryError, ValueError):
        return [_run(model, [part])[0] for part in parts]


def _run_joined(model: Model, parts: list[Feeds]) -> list[Outputs]:
    outputs = model.run({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    sizes = [next(iter(part.values())).shape[0] for part in parts]
    ends = np.cumsum(sizes).tolist()
    if any(output.ndim == 0 or output.shape[0] != ends[-1] for output in outputs):
        raise ModelRunError(model.version, "its outputs do not have a row for each row of the inputs")
    return [[output[end - size : end] for output in outputs] for size, end in zip(sizes, ends, strict=True)]
