"""Queries as gates: a number from a metrics store, held against a limit. The port; shared.metrics has the adapters.

What fills a query's names in is an endpoint's name and numbers: nothing that could close a string or a brace of PromQL
or KQL. All queries of a tick are asked at once, and no tick waits for them longer than ASK_S, whatever an adapter does
or hangs in: a store that is down must not keep a candidate that fails in traffic.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from shared.core.errors import InvalidInputError
from shared.core.ids import endpoint_name
from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import Provider, QueryGate
from shared.rollout.documents import Rollout
from shared.rollout.rates import Judged

ASK_S = 15.0
"""The most that a tick waits for its queries. An adapter's own limits are shorter, but for a name's resolution."""

_log = logging.getLogger(__name__)


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
        elif not math.isfinite(self.value):
            # It compares as within any limit.
            return QueryAnswer(error=f"it answered {self.value}, which is no finite number").judged(query)
        else:
            low = query.at_least is not None and self.value < query.at_least
            high = query.at_most is not None and self.value > query.at_most
            outcome = Outcome.FAIL if low or high else Outcome.PASS
            said = f"the query answered {self.value:g}; wanted is {wanted}"
        verdict = Verdict(check=query.name, outcome=outcome, sentence=said, value=self.value, limit=limit)
        return Judged(verdict=verdict)


NOT_ASKED = QueryAnswer(error="this tick did not ask it")
"""Of a query without an answer: it must not pass for one that is content."""


class MetricsStore(Protocol):
    """Answers queries, of several threads at once. Never raises: what goes wrong is an answer with an error."""

    def ask(self, query: str) -> QueryAnswer:
        """The finite number that a query comes to."""
        ...


type MetricsStores = Mapping[Provider, MetricsStore]


def ask_all(
    queries: Iterable[QueryGate],
    stores: MetricsStores,
    endpoint: str,
    rollout: Rollout,
    now: datetime,
    *,
    within_s: float = ASK_S,
) -> dict[str, QueryAnswer]:
    """What the queries come to, by name; all are asked at once. What is not answered in time is an error."""
    wanted = list(queries)
    if not wanted:
        return {}
    threads = ThreadPoolExecutor(max_workers=len(wanted), thread_name_prefix="query")
    try:
        asked = {query.name: threads.submit(ask, query, stores, endpoint, rollout, now) for query in wanted}
        wait(asked.values(), timeout=within_s)
        late = QueryAnswer(error=f"no answer within {within_s:g} s")
        return {name: answer.result() if answer.done() else late for name, answer in asked.items()}
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def ask(query: QueryGate, stores: MetricsStores, endpoint: str, rollout: Rollout, now: datetime) -> QueryAnswer:
    """What a gate's query comes to, its names being filled in. Never raises."""
    store = stores.get(query.provider)
    if store is None:
        return QueryAnswer(error=f"no {query.provider} is configured: set its address in the app's settings")
    since = rollout.stage_started_at or rollout.started_at
    try:
        name = endpoint_name(endpoint)
    except InvalidInputError as error:
        return QueryAnswer(error=str(error))
    names = {
        "endpoint": name,
        "version": str(rollout.candidate.version),
        "stable": str(rollout.stable.version) if rollout.stable else "",
        "seconds": str(max(1, int((now - since).total_seconds()))),
    }
    text = query.query
    for place, value in names.items():
        text = text.replace(f"{{{place}}}", value)
    try:
        return store.ask(text)
    except Exception as error:  # noqa: BLE001 - whatever breaks in an adapter, the tick goes on
        _log.exception("the store of %s broke its promise not to raise", query.provider)
        return QueryAnswer(error=f"asking {query.provider} went wrong ({type(error).__name__}); the log says how")
