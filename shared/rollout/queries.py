"""Queries as gates: a number from a metrics store, held against a limit. The port; adapters stand elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import Provider, QueryGate
from shared.rollout.documents import Rollout
from shared.rollout.rates import Judged


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryAnswer:
    """What a query came to: a number; or none, where the store holds no data; or why it could not be asked."""

    value: float | None = None
    error: str = ""

    def judged(self, query: QueryGate) -> Judged:
        """The verdict on it."""
        limits = [f"at least {query.at_least:g}" for _ in (1,) if query.at_least is not None]
        limits += [f"at most {query.at_most:g}" for _ in (1,) if query.at_most is not None]
        wanted = " and ".join(limits)
        limit = query.at_most if query.at_most is not None else query.at_least
        if self.error:
            outcome, said = Outcome.ERROR, f"the query could not be asked: {self.error}"
        elif self.value is None:
            outcome, said = Outcome.INCONCLUSIVE, f"the query answered no number; wanted is {wanted}"
        else:
            low = query.at_least is not None and self.value < query.at_least
            high = query.at_most is not None and self.value > query.at_most
            outcome = Outcome.FAIL if low or high else Outcome.PASS
            said = f"the query answered {self.value:g}; wanted is {wanted}"
        verdict = Verdict(check=query.name, outcome=outcome, sentence=said, value=self.value, limit=limit)
        return Judged(verdict=verdict)


class MetricsStore(Protocol):
    """Answers queries. Never raises: what goes wrong is an answer with an error."""

    def ask(self, query: str) -> QueryAnswer:
        """The number that a query comes to."""
        ...


type MetricsStores = Mapping[Provider, MetricsStore]


def ask(query: QueryGate, stores: MetricsStores, endpoint: str, rollout: Rollout, now: datetime) -> QueryAnswer:
    """What a gate's query comes to, its names being filled in."""
    store = stores.get(query.provider)
    if store is None:
        return QueryAnswer(error=f"no {query.provider} is configured: set its address in the app's settings")
    since = rollout.stage_started_at or rollout.started_at
    names = {
        "endpoint": endpoint,
        "version": str(rollout.candidate.version),
        "stable": str(rollout.stable.version) if rollout.stable else "",
        "seconds": str(max(1, int((now - since).total_seconds()))),
    }
    text = query.query
    for name, value in names.items():
        text = text.replace(f"{{{name}}}", value)
    return store.ask(text)
