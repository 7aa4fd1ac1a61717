"""The endpoint's calls for aliases: kept in their order, sent again when due, forgotten when heard."""

from datetime import UTC, datetime, timedelta

from shared.core.messages import MoveAlias
from shared.rollout import alias_calls
from shared.rollout.endpoint import AliasCall, Endpoint
from shared.store.aggregate import MessageEntry

START = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
GRACE = timedelta(seconds=60)


def called(generation: int, sent_s: float) -> AliasCall:
    move = MoveAlias(
        model="digits", alias="champion", version=generation, generation=generation, rollout_id="r", at=START
    )
    return AliasCall(move=move, sent_at=START + timedelta(seconds=sent_s))


def test_calls_stay_in_their_order_when_some_are_sent_again_and_some_are_forgotten() -> None:
    endpoint = Endpoint(endpoint="digits", alias_calls=[called(2, 0), called(4, 0), called(6, 50)])
    now = START + timedelta(seconds=70)
    assert alias_calls.call_again(endpoint, {("champion", 2)}, now, GRACE)
    assert [call.generation for call in endpoint.calls_for("champion")] == [4, 6]
    assert [call.sent_at for call in endpoint.alias_calls] == [now, START + timedelta(seconds=50)]
    assert [entry.body["generation"] for entry in endpoint.outbox if isinstance(entry, MessageEntry)] == [4]
    assert not alias_calls.call_again(endpoint, set(), now, GRACE)
    assert endpoint.calls_for("challenger") == []
