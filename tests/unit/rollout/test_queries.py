"""Queries as gates: what is asked, of whom, and the verdict on what it comes to."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import Gates, Provider, QueryGate, RolloutPolicy
from shared.rollout.documents import Rollout, Target
from shared.rollout.queries import MetricsStores, QueryAnswer, ask, ask_all

AT = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


@dataclass
class Store:
    """Answers every query alike, and keeps them."""

    answer: QueryAnswer = field(default_factory=lambda: QueryAnswer(value=1.0))
    asked: list[str] = field(default_factory=list)

    def ask(self, query: str) -> QueryAnswer:
        self.asked.append(query)
        return self.answer


def target(version: int) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


def rollout(*queries: QueryGate) -> Rollout:
    return Rollout(
        rollout_id="rollout-000002-abc",
        command_id="c",
        candidate=target(2),
        stable=target(1),
        policy=RolloutPolicy(gates=Gates(queries=queries)),
        started_at=AT,
        published_at=AT,
        next_tick_at=AT,
        requested_by="ann",
        stage_started_at=AT + timedelta(seconds=10),
    )


def gate(query: str = "up", *, name: str = "q", provider: Provider = Provider.PROMETHEUS) -> QueryGate:
    return QueryGate(name=name, provider=provider, query=query, at_most=1.0)


def test_names_are_filled_in_and_the_braces_of_promql_stay() -> None:
    store = Store()
    query = 'sum(rate(f{m="{endpoint}",v="{version}"}[{seconds}s])) - sum(f{v="{stable}", x=~"a{2}"})'
    ask(gate(query), {Provider.PROMETHEUS: store}, "digits", rollout(), AT + timedelta(seconds=70.9))
    assert store.asked == ['sum(rate(f{m="digits",v="2"}[60s])) - sum(f{v="1", x=~"a{2}"})']


def test_the_time_is_at_least_a_second() -> None:
    store = Store()
    ask(gate("{seconds}"), {Provider.PROMETHEUS: store}, "digits", rollout(), AT + timedelta(seconds=10))
    assert store.asked == ["1"]


@pytest.mark.parametrize("name", ['a"} or vector(0) #', "{version}", "Digits", "a b", ""])
def test_an_endpoint_s_name_that_is_none_is_never_filled_in(name: str) -> None:
    store = Store()
    answer = ask(gate('f{m="{endpoint}"}'), {Provider.PROMETHEUS: store}, name, rollout(), AT)
    assert "is not an endpoint name" in answer.error
    assert store.asked == []


def test_a_provider_that_no_setting_names_is_an_error() -> None:
    answer = ask(gate(provider=Provider.LOG_ANALYTICS), {Provider.PROMETHEUS: Store()}, "digits", rollout(), AT)
    assert "no log-analytics is configured" in answer.error


def test_each_query_goes_to_its_own_provider_and_is_answered_under_its_name() -> None:
    stores = {
        Provider.PROMETHEUS: Store(QueryAnswer(value=1.0)),
        Provider.LOG_ANALYTICS: Store(QueryAnswer(error="down")),
    }
    queries = (gate(name="a"), gate(name="b", provider=Provider.LOG_ANALYTICS), gate(name="c"))
    answers = ask_all(queries, stores, "digits", rollout(), AT)
    assert answers == {"a": QueryAnswer(value=1.0), "b": QueryAnswer(error="down"), "c": QueryAnswer(value=1.0)}


def test_twenty_queries_are_asked_at_once() -> None:
    together = threading.Barrier(20, timeout=60)

    class Waits:
        def ask(self, query: str) -> QueryAnswer:
            together.wait()
            return QueryAnswer(value=float(query))

    queries = [gate(str(n), name=f"q{n}") for n in range(20)]
    answers = ask_all(queries, {Provider.PROMETHEUS: Waits()}, "digits", rollout(), AT)
    assert [answers[f"q{n}"].value for n in range(20)] == list(range(20))


@pytest.mark.parametrize(
    ("answer", "outcome", "said"),
    [
        (QueryAnswer(value=0.5), Outcome.PASS, "answered 0.5; wanted is at least 0.2 and at most 1"),
        (QueryAnswer(value=1.0), Outcome.PASS, "answered 1;"),
        (QueryAnswer(value=0.2), Outcome.PASS, "answered 0.2;"),
        (QueryAnswer(value=1.001), Outcome.FAIL, "answered 1.001;"),
        (QueryAnswer(value=0.1), Outcome.FAIL, "answered 0.1;"),
        (QueryAnswer(), Outcome.INCONCLUSIVE, "answered no number; wanted is at least 0.2 and at most 1"),
        (QueryAnswer(error="it hangs"), Outcome.ERROR, "could not be asked: it hangs"),
    ],
)
def test_the_verdict(answer: QueryAnswer, outcome: Outcome, said: str) -> None:
    judged = answer.judged(QueryGate(name="q", query="up", at_least=0.2, at_most=1.0))
    assert judged.verdict.outcome is outcome
    assert said in judged.verdict.sentence
    assert not judged.is_proof


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("limits", [{"at_most": 1.0}, {"at_least": 1.0}, {"at_most": 1.0, "at_least": 0.0}])
def test_what_is_no_finite_number_never_passes(value: float, limits: dict[str, float]) -> None:
    verdict = QueryAnswer(value=value).judged(QueryGate(name="q", query="up", **limits)).verdict
    assert verdict.outcome is Outcome.ERROR
    assert "which is no finite number" in verdict.sentence
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_an_adapter_that_raises_is_an_error_of_its_own_query_alone() -> None:
    class Breaks:
        def ask(self, query: str) -> QueryAnswer:
            raise KeyError(query)

    stores: MetricsStores = {Provider.PROMETHEUS: Breaks(), Provider.LOG_ANALYTICS: Store()}
    queries = (gate(name="a"), gate(name="b", provider=Provider.LOG_ANALYTICS))
    answers = ask_all(queries, stores, "digits", rollout(), AT)
    assert "asking prometheus went wrong (KeyError)" in answers["a"].error
    assert answers["b"] == QueryAnswer(value=1.0)


def test_a_store_that_hangs_keeps_a_tick_waiting_no_longer_than_it_may() -> None:
    done = threading.Event()

    class Hangs:
        def ask(self, query: str) -> QueryAnswer:
            del query
            done.wait()
            return QueryAnswer(value=1.0)

    stores: MetricsStores = {Provider.PROMETHEUS: Hangs(), Provider.LOG_ANALYTICS: Store()}
    queries = (gate(name="a"), gate(name="b", provider=Provider.LOG_ANALYTICS))
    try:
        answers = ask_all(queries, stores, "digits", rollout(), AT, within_s=2.0)
    finally:
        done.set()
    assert answers == {"a": QueryAnswer(error="no answer within 2 s"), "b": QueryAnswer(value=1.0)}
