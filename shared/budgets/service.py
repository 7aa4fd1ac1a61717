"""Keeps the request sums of the endpoints: what error budgets and alerts are judged by.

An endpoint is counted from when it was first seen: what was before is not counted back, lest a budget could not be told
for want of history. Called by timer. Several calls at once do no harm: the sums are saved by one
conditional write, and who is late leaves it to the next call. A call takes a bounded time and saves after every
portion; what is left is for the calls after it, and the sums say that they are not whole.
"""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from itertools import islice

from shared.budgets.sums import SUMS_ID, RequestSums, counted
from shared.core.clock import Clock
from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError
from shared.rollout.endpoint import Endpoint
from shared.store.ports import BlobStore, Container, DocumentStore
from shared.store.repository import Repository
from shared.telemetry.evidence import windows_after

PORTION = 2_000
"""How many windows of an endpoint are in memory at once, and counted by one write."""
CALL_S = 240.0
"""How long a call reads at most: shared evenly by the endpoints, each of which gets one portion at least."""


_log = logging.getLogger(__name__)


class BudgetService:
    """Counts requests."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        documents: DocumentStore,
        blobs: BlobStore,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
        portion: int = PORTION,
    ) -> None:
        self._endpoints = endpoints
        self._documents = documents
        self._blobs = blobs
        self._clock = clock
        self._monotonic = monotonic
        self._portion = portion

    def count(self) -> None:
        """Count what the pods of every endpoint reported since the last call.

        One that cannot be counted is logged, and keeps no other from being so.
        """
        now = self._clock.now()
        ends_at = self._monotonic() + CALL_S
        endpoints = [one.endpoint for one in self._endpoints.where()]
        for left, endpoint in zip(range(len(endpoints), 0, -1), endpoints, strict=True):
            started_at = self._monotonic()
            try:
                self._count(endpoint, now, until=started_at + (ends_at - started_at) / left)
            except Exception:  # noqa: BLE001 - whatever is wrong with one endpoint, the others are counted
                _log.exception("the requests of endpoint %s are not counted", endpoint)

    def _count(self, endpoint: str, now: datetime, *, until: float) -> None:
        """Count an endpoint's windows, a portion at a time, up to a time of the monotonic clock."""
        stored = self._documents.get(Container.ENDPOINTS, endpoint, SUMS_ID)
        sums = RequestSums.model_validate(stored.body) if stored else RequestSums(endpoint=endpoint, since=now)
        if sums.begun_at is None and sums.whole_at is None:
            sums = sums.model_copy(update={"since": now, "begun_at": now})
        marks = {pod: mark.sequence for pod, mark in sums.marks.items()}
        windows = windows_after(self._blobs, endpoint, marks, sums.since, now)
        is_all = False
        while not is_all:
            portion = list(islice(windows, self._portion))
            is_all = len(portion) < self._portion
            sums = counted(sums, portion, now, is_all=is_all)
            body = sums.model_dump(mode="json")
            try:
                if stored:
                    stored = self._documents.replace(Container.ENDPOINTS, body, etag=stored.etag)
                else:
                    stored = self._documents.create(Container.ENDPOINTS, body)
            except (AlreadyExistsError, ChangedMeanwhileError):
                return
            if self._monotonic() >= until:
                return
