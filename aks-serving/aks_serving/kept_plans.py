"""Keeps on disk the plans that were applied, for the next start, and with them only the artifacts that are needed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor

from aks_serving.cache import DiskCache
from shared.core.ids import EndpointName

_KEEP_AFTER_S = 0.02
"""How long after a swap its plan is kept on disk: the thread that does it would take turns with the first requests."""


class KeptPlans:
    """Made on a running event loop, and used from it alone."""

    def __init__(self, cache: DiskCache, *, disk: Executor, needed: Callable[[], frozenset[str]]) -> None:
        """`disk` is where files are written; `needed` are the artifacts that stay, asked there."""
        self._cache = cache
        self._disk = disk
        self._needed = needed
        self._loop = asyncio.get_running_loop()
        self._due: dict[EndpointName, bytes] = {}

    def keep(self, endpoint: EndpointName, plan: bytes) -> None:
        """Keep a plan soon."""
        if not self._due:
            self._loop.call_later(_KEEP_AFTER_S, self.flush)
        self._due[endpoint] = plan

    def flush(self) -> None:
        """Keep now what is due."""
        for endpoint, plan in self._due.items():
            self._disk.submit(self._write, endpoint, plan)
        self._due = {}

    def _write(self, endpoint: EndpointName, plan: bytes) -> None:
        self._cache.keep_plan(endpoint, plan)
        self._cache.prune_artifacts(self._needed)
