"""Keeps the request sums of the endpoints whose policy has an error budget.

Called by timer. Several calls at once do no harm: the sums are saved by one conditional write, and who is late leaves
it to the next call. A call reads a bounded number of windows; what is left is for the calls after it.
"""

from datetime import datetime, timedelta
from itertools import islice

from shared.budgets.sums import SUMS_ID, RequestSums, counted
from shared.core.clock import Clock
from shared.core.errors import AlreadyExistsError, ChangedMeanwhileError
from shared.core.ids import ModelName
from shared.registry.rollout_policy import ErrorBudget
from shared.registry.service import RegistryService
from shared.rollout.documents import Endpoint
from shared.store.ports import BlobStore, Container, DocumentStore
from shared.store.repository import Repository
from shared.telemetry.evidence import windows_after

WINDOWS_A_CALL = 2_000
"""How many windows of an endpoint a call reads at most."""


class BudgetService:
    """Counts requests."""

    def __init__(
        self,
        *,
        endpoints: Repository[Endpoint],
        registry: RegistryService,
        documents: DocumentStore,
        blobs: BlobStore,
        clock: Clock,
    ) -> None:
        self._endpoints = endpoints
        self._registry = registry
        self._documents = documents
        self._blobs = blobs
        self._clock = clock

    def count(self) -> None:
        """Count what the pods of every endpoint with an error budget reported since the last call."""
        now = self._clock.now()
        for endpoint in self._endpoints.where():
            budget = self._registry.model(ModelName(endpoint.endpoint)).policy.rollout.error_budget
            if budget is not None:
                self._count(endpoint.endpoint, budget, now)

    def _count(self, endpoint: str, budget: ErrorBudget, now: datetime) -> None:
        stored = self._documents.get(Container.ENDPOINTS, endpoint, SUMS_ID)
        if stored:
            sums = RequestSums.model_validate(stored.body)
        else:
            sums = RequestSums(endpoint=endpoint, since=now - timedelta(hours=budget.hours))
        marks = {pod: mark.sequence for pod, mark in sums.marks.items()}
        found = list(islice(windows_after(self._blobs, endpoint, marks, sums.since, now), WINDOWS_A_CALL))
        after = counted(sums, found, now, is_all=len(found) < WINDOWS_A_CALL).model_dump(mode="json")
        try:
            if stored:
                self._documents.replace(Container.ENDPOINTS, after, etag=stored.etag)
            else:
                self._documents.create(Container.ENDPOINTS, after)
        except (AlreadyExistsError, ChangedMeanwhileError):
            return
