"""One call of a function from end to end: run it, hold it to its time, write its outputs, log how it went.

A call succeeded when the function returned and its outputs are written. A function that overruns `functionTimeout`
cannot be stopped within its process, as a thread cannot be killed: the call fails, and the host is told to end, as
Azure's host ends the worker process.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from local.host import protos
from local.host.bindings import RETURN, Function
from local.host.outputs import QueueOutputs
from local.host.worker import Worker

_log = logging.getLogger("host.invocation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invoked:
    """How a call went. `http` is what it answers to an HTTP request: a response, a plain value, or nothing."""

    succeeded: bool
    http: protos.TypedData | None = None


class Invoker:
    """Calls functions. `on_timeout` hears of a function that overran its time."""

    def __init__(
        self, worker: Worker, outputs: QueueOutputs, *, timeout_s: float | None, on_timeout: Callable[[str], None]
    ) -> None:
        self._worker = worker
        self._outputs = outputs
        self._timeout_s = timeout_s
        self._on_timeout = on_timeout

    async def call(self, function: Function, data: protos.TypedData, metadata: dict[str, protos.TypedData]) -> Invoked:
        """Call a function. Never raises for what happens inside it or its outputs."""
        invocation_id = str(uuid.uuid4())
        started = time.monotonic()
        try:
            response = await self._within_time(self._worker.invoke(function, invocation_id, data, metadata))
            if response is None:
                return self._timed_out(function, invocation_id)
            invoked = await self._finish(function, response)
        except asyncio.CancelledError:
            _report(function, invocation_id, started, "abandoned")
            raise
        except Exception:  # noqa: BLE001 - logged; whatever it is, this call failed and the host goes on
            _log.exception("function=%s id=%s: its outputs could not be written", function.name, invocation_id)
            invoked = Invoked(succeeded=False)
        _report(function, invocation_id, started, "succeeded" if invoked.succeeded else "failed")
        return invoked

    async def _within_time(
        self, running: Coroutine[Any, Any, protos.InvocationResponse]
    ) -> protos.InvocationResponse | None:
        task = asyncio.create_task(running)
        done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        return task.result() if done else None

    async def _finish(self, function: Function, response: protos.InvocationResponse) -> Invoked:
        if response.result.status != protos.StatusResult.Success:
            exception = response.result.exception
            if exception is not None:
                told = f"{exception.message}\n{exception.stack_trace}".rstrip()
                _log.error("function=%s raised %s", function.name, told)
            return Invoked(succeeded=False)
        values = {output.name: output.data for output in response.output_data}
        if response.return_value is not None:
            values[RETURN] = response.return_value
        await self._outputs.write(function, values)
        return Invoked(succeeded=True, http=values.get(function.http_output) if function.http_output else None)

    def _timed_out(self, function: Function, invocation_id: str) -> Invoked:
        reason = f"function {function.name!r} ran longer than functionTimeout ({self._timeout_s:g} s)"
        _log.error("function=%s id=%s timed out: %s", function.name, invocation_id, reason)
        self._on_timeout(reason)
        return Invoked(succeeded=False)


def _report(function: Function, invocation_id: str, started: float, outcome: str) -> None:
    duration_ms = (time.monotonic() - started) * 1000
    _log.info("function=%s id=%s outcome=%s duration_ms=%.0f", function.name, invocation_id, outcome, duration_ms)
