"""Large tables, read beside the event loop: what reading one takes there would hold up everybody's requests.

One thread reads them in the order in which they came. A table whose time was over before its turn, or whose client went
away, is not read. What waits is bounded, in number and in bytes. A table that is read in a millisecond is not for here:
handing it over and back costs 0.1 to 0.3 ms (aks_serving.tables.takes_long).
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any

from aks_serving.errors import ExpiredError, OverloadedError
from aks_serving.exchange import Exchange
from aks_serving.model import Signature
from aks_serving.serving import Serving
from aks_serving.tables import Form, read_query, read_request
from aks_serving.tensors import Feeds
from shared.core.errors import InvalidInputError

MAX_WAITING = 256
MAX_WAITING_BYTES = 64 * 1024 * 1024


class Converted:
    """What a request says in its query, and its table, read for the signatures that may want it."""

    __slots__ = ("_body", "_form", "_found", "model", "model_version", "timeout_ms", "user_id")

    def __init__(self, said: dict[str, Any], form: Form, body: bytes) -> None:
        """`said` is what `read_query` gives."""
        self.model: str | None = said["model"]
        self.model_version: str | None = said["model_version"]
        self.user_id: str | None = said["user_id"]
        self.timeout_ms: float | None = said["timeout_ms"]
        self._form = form
        self._body = body
        self._found: list[tuple[Signature, Feeds | InvalidInputError]] = []

    def read(self, signatures: Sequence[Signature]) -> None:
        """Read the table for signatures. Blocks. What is wrong with it, `feeds` says."""
        try:
            asked = read_request(self._form, self._body, b"")
        except InvalidInputError as error:
            self._found += [(signature, error) for signature in signatures]
            return
        for signature in signatures:
            try:
                self._found.append((signature, asked.feeds(signature)))
            except InvalidInputError as error:
                self._found.append((signature, error))

    def feeds(self, signature: Signature) -> Feeds:
        """The table as a signature wants it. Raises InvalidInputError. For one that was not foreseen, of a version that
        came while the table was read, it is read again, here.
        """
        for known, found in self._found:
            if known == signature:
                if isinstance(found, InvalidInputError):
                    raise found
                return found
        return read_request(self._form, self._body, b"").feeds(signature)


class Conversions:
    """The thread, and the bound on what waits for it. Used from the event loop alone."""

    def __init__(self, *, max_waiting: int = MAX_WAITING, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._thread: ThreadPoolExecutor | None = None
        self.waiting = 0
        """Tables that wait or are being read."""
        self._waiting_bytes = 0

    async def convert(
        self,
        exchange: Exchange,
        form: Form,
        body: bytes,
        serving_of: Callable[[str | None], Serving],
        *,
        timeout_s: float,
    ) -> Converted | None:
        """An exchange's table, read for the versions that may answer it; None where its client is gone.

        `serving_of` gives what serves a model, and `timeout_s` is how long a request may wait that names no time.
        Raises what `serving_of` raises, InvalidInputError for the query, OverloadedError at once, or ExpiredError. One
        table alone always fits.
        """
        said = read_query(exchange.query)
        model, timeout_ms = said["model"], said["timeout_ms"]
        serving = serving_of(model)
        total_bytes = self._waiting_bytes + len(body)
        if self.waiting and (self.waiting >= self._max_waiting or total_bytes > self._max_waiting_bytes):
            serving.tally.refuse("overloaded")
            raise OverloadedError(self.waiting)
        deadline_s = exchange.received_s + (timeout_s if timeout_ms is None else timeout_ms / 1e3)
        converted = Converted(said, form, body)
        signatures = _signatures(serving)

        def read() -> None:
            if not exchange.gone and perf_counter() <= deadline_s:
                converted.read(signatures)

        self.waiting += 1
        self._waiting_bytes = total_bytes
        try:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tables")
            await asyncio.get_running_loop().run_in_executor(self._thread, read)
        finally:
            self.waiting -= 1
            self._waiting_bytes -= len(body)
        if exchange.gone:
            serving_of(model).tally.refuse("cancelled")
            return None
        now_s = perf_counter()
        if now_s > deadline_s:
            serving_of(model).tally.refuse("expired")
            raise ExpiredError(now_s - exchange.received_s)
        return converted


def _signatures(serving: Serving) -> list[Signature]:
    """The signatures, each once, of the versions that answer requests which name none."""
    found: list[Signature] = []
    for route in (serving.stable, serving.candidate):
        lane = None if route is None else serving.lanes.get(route.version)
        if lane is not None and lane.model.signature not in found:
            found.append(lane.model.signature)
    return found
