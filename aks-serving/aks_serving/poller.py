"""Asks storage for route plans every few seconds, and hands on those that changed.

An outage is logged once when it begins and once when it ends; polling goes on. A plan that is gone or refused is not
fetched again until its ETag changes.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aks_serving.ports import Storage, StoredPlan
from shared.core.errors import UnavailableError
from shared.core.ids import EndpointName

log = logging.getLogger(__name__)


class Poller:
    """Polls the plans of some endpoints, or of all."""

    def __init__(
        self,
        storage: Storage,
        *,
        endpoints: tuple[EndpointName, ...],
        changed: Callable[[EndpointName, bytes], None],
    ) -> None:
        """`changed` is called on the event loop with a plan's bytes, once for each state of its blob."""
        self._storage = storage
        self._endpoints = endpoints
        self._changed = changed
        self._etags: dict[EndpointName, str] = {}
        self._lock = asyncio.Lock()
        self._out = False
        # A thread of its own, so that a rollback's plan arrives while large artifacts are fetched.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="poll")

    async def poll(self) -> None:
        """Look once. Raises UnavailableError, after handing on what could be fetched."""
        async with self._lock:
            fetched: list[tuple[EndpointName, StoredPlan]] = []
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._fetch, fetched)
            finally:
                for endpoint, plan in fetched:
                    self._etags[endpoint] = plan.etag
                    self._changed(endpoint, plan.data)

    async def run(self, *, every_s: float, polled: Callable[[], None]) -> None:
        """Poll for ever; `polled` is called after each poll that storage answered."""
        while True:
            try:
                await self.poll()
            except UnavailableError as error:
                if not self._out:
                    log.warning("plans cannot be polled, the last ones go on: %s", error)
                self._out = True
            except Exception:
                log.exception("a poll went wrong; the next one follows")
            else:
                if self._out:
                    log.warning("plans can be polled again")
                self._out = False
                _call(polled)
            await asyncio.sleep(every_s)

    def close(self) -> None:
        """Let the thread go."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _fetch(self, fetched: list[tuple[EndpointName, StoredPlan]]) -> None:
        if self._endpoints:
            due = list(self._endpoints)
        else:
            due = [name for name, etag in self._storage.plan_etags().items() if etag != self._etags.get(name)]
        failed: Exception | None = None
        for endpoint in due:
            try:
                plan = self._storage.plan(endpoint, unless_etag=self._etags.get(endpoint))
            except Exception as error:  # noqa: BLE001 - raised below: one plan must not keep the others away
                failed = failed or error
                continue
            if plan is not None:
                fetched.append((endpoint, plan))
        if failed is not None:
            raise failed


def _call(polled: Callable[[], None]) -> None:
    try:
        polled()
    except Exception:
        log.exception("what follows a poll went wrong; polling goes on")
