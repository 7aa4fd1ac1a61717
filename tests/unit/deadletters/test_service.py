"""Dead letters over ports in memory: kept with the reason, replayed once, settled by success; killed at any call."""

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from azure.functions.queue import QueueMessage

from functions._messages import handle_body, identity_of
from functions.dead_letters import blob_of
from shared.alerts.documents import AlertRule, AlertState
from shared.core.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from shared.core.messages import Queue, RegisterDrop, ValidateVersion
from shared.deadletters.documents import UNRECORDED, DeadLetter, LetterState, body_of_drop
from shared.registration.documents import NO_MODEL
from shared.store.ports import Page, Stored
from tests.world.fakes import Killed
from tests.world.world import World

MESSAGE = ValidateVersion(model="digits", version=3)
BODY = json.dumps(MESSAGE.model_dump(mode="json")).encode()
QUEUE = Queue.VALIDATIONS


def failing(_: ValidateVersion) -> None:
    raise ValueError("the  scale\nis off")


def attempt(world: World, *, fails: bool = True, body: bytes = BODY, message_id: str = "m1") -> None:
    """One attempt at the message, as the functions make it."""
    try:
        handle_body(
            world.dead_letters,
            QUEUE,
            body,
            ValidateVersion,
            failing if fails else lambda _: None,
            message_id=message_id,
        )
    except ValueError:
        assert fails


def die(world: World, message_id: str = "poison-1", *, attempts: int = 5) -> DeadLetter:
    """The message fails as often as it may, and comes to the poison queue."""
    for _ in range(attempts):
        attempt(world)
    return world.dead_letters.keep(QUEUE, BODY, message_id=message_id)


def sent(world: World) -> list[tuple[str, dict[str, object]]]:
    return [(queue, json.loads(body)) for _, queue, body in world.queues.messages]


def firing(world: World) -> list[str]:
    return [alert.subject for alert in world.alerts.alerts("firing").items]


def test_a_message_that_failed_for_the_last_time_is_kept_with_its_reason() -> None:
    world = World()
    kept = die(world)
    assert (kept.state, kept.reason, kept.attempts, kept.count) == (LetterState.KEPT, "the scale is off", 5, 1)
    assert [letter.id for letter in world.dead_letters.letters().items] == [kept.id]
    (event,) = world.audit.events(kept.stream)
    assert (event.kind, event.data["reason"]) == ("letter_kept", "the scale is off")
    assert world.audit.verify().verified


def test_while_letters_wait_an_alert_of_their_queue_fires() -> None:
    world = World()
    kept = die(world)
    (alert,) = world.alerts.alerts().items
    assert (alert.subject, alert.state, alert.count) == ("queue:validations", AlertState.FIRING, 1)
    assert alert.sentence.startswith("1 message of the queue validations failed for the last time: see")
    world.dead_letters.keep(QUEUE, b"other", message_id="poison-2")
    assert world.alerts.alerts().items[0].sentence.startswith("2 messages")
    world.dead_letters.replay(kept.id, by="test")
    assert firing(world) == ["queue:validations"]
    other = world.dead_letters.letters().items[0]
    world.dead_letters.discard(other.id, by="test", reason="somebody's typo")
    assert firing(world) == []
    assert world.audit.verify().verified


def test_many_letters_of_a_queue_are_one_alert_and_cost_each_other_nothing() -> None:
    world = World()
    for number in range(101):
        world.dead_letters.keep(QUEUE, f"message {number}".encode(), message_id=f"{number}")
    (alert,) = world.alerts.alerts().items
    assert alert.sentence.startswith("100 or more messages of the queue validations failed for the last time")
    calls = world.fuse.calls
    world.dead_letters.keep(QUEUE, b"one more", message_id="one more")
    assert world.fuse.calls - calls < 15


def test_an_alert_that_a_crash_left_is_settled_by_the_timer() -> None:
    world = World()
    world.alerts.fire(AlertRule.DEAD_LETTERS, "queue:old", "left by a crash", model=NO_MODEL)
    kept = die(world)
    world.alerts.resolve(AlertRule.DEAD_LETTERS, "queue:validations", "wrongly", model=NO_MODEL)
    world.dead_letters.settle_alerts()
    assert firing(world) == ["queue:validations"]
    assert kept.state is LetterState.KEPT


def test_a_message_that_was_never_heard_of_says_that_no_error_was_recorded() -> None:
    kept = World().dead_letters.keep(QUEUE, BODY, message_id="poison-1")
    assert (kept.reason, kept.attempts, kept.count) == (UNRECORDED, 0, 1)


def test_the_reason_of_an_earlier_round_is_not_taken_for_that_of_the_last() -> None:
    world = World()
    kept = die(world)
    world.dead_letters.replay(kept.id, by="test")
    again = world.dead_letters.keep(QUEUE, BODY, message_id="poison-2")
    assert (again.state, again.count) == (LetterState.KEPT, 2)
    assert again.reason.startswith(UNRECORDED)


@pytest.mark.parametrize("between", ["it is kept for the other", "the other succeeds"])
def test_the_error_of_one_of_two_like_messages_is_not_lost_over_the_other(between: str) -> None:
    """Their last tries are over before either comes to the poison queue: whose error it was nobody knows."""
    world = World()
    for message_id in ("one", "other"):
        attempt(world, message_id=message_id)
    if between == "the other succeeds":
        attempt(world, fails=False, message_id="other")
    else:
        world.dead_letters.keep(QUEUE, BODY, message_id="poison-1")
    kept = world.dead_letters.keep(QUEUE, BODY, message_id="poison-2")
    assert kept.reason == f"{UNRECORDED}; the last one that was recorded of such a message: the scale is off"
    again = world.dead_letters.keep(QUEUE, BODY, message_id="poison-3")
    assert again.reason == kept.reason
    attempt(world)
    assert world.dead_letters.keep(QUEUE, BODY, message_id="poison-4").reason == "the scale is off"


def test_a_poison_message_that_is_delivered_twice_counts_once() -> None:
    world = World()
    kept = die(world)
    assert world.dead_letters.keep(QUEUE, BODY, message_id="poison-1").count == 1
    world.dead_letters.replay(kept.id, by="test")
    assert world.dead_letters.keep(QUEUE, BODY, message_id="poison-1").state is LetterState.REPLAYED


def test_a_letter_is_replayed_once_and_kept_again_when_it_fails_again() -> None:
    world = World()
    kept = die(world)
    assert world.dead_letters.replay(kept.id, by="test", reason="fixed").state is LetterState.REPLAYED
    assert sent(world) == [(QUEUE, MESSAGE.model_dump())]
    with pytest.raises(ConflictError, match="is replayed, and replay is for one that is kept"):
        world.dead_letters.replay(kept.id, by="test")
    assert len(sent(world)) == 1
    again = die(world, "poison-2")
    assert (again.id, again.state, again.count, again.attempts) == (kept.id, LetterState.KEPT, 2, 10)
    world.dead_letters.replay(kept.id, by="test")
    assert len(sent(world)) == 2


def test_a_command_whose_answer_was_lost_is_answered_again_and_done_once() -> None:
    world = World()
    kept = die(world)
    for _ in range(3):
        replayed = world.dead_letters.replay(kept.id, by="test", command_id="one")
        assert replayed.state is LetterState.REPLAYED
    assert len(sent(world)) == 1
    die(world, "poison-2")
    # Late: the letter is kept for another failure since, which that command was not about.
    assert world.dead_letters.replay(kept.id, by="test", command_id="one").state is LetterState.KEPT
    assert len(sent(world)) == 1
    # Another command, and the same id for another deed.
    for _ in range(2):
        discarded = world.dead_letters.discard(kept.id, by="test", reason="enough", command_id="one")
        assert discarded.state is LetterState.DISCARDED
    with pytest.raises(ConflictError, match="is discarded"):
        world.dead_letters.replay(kept.id, by="test", command_id="two")
    kinds = [event.kind for event in world.audit.events(kept.stream)]
    assert kinds == ["letter_kept", "letter_replayed", "letter_kept", "letter_discarded"]


def test_a_letter_whose_message_succeeds_in_the_end_is_settled() -> None:
    world = World()
    kept = die(world)
    attempt(world, fails=False)
    assert world.dead_letters.letter(kept.id).state is LetterState.SETTLED
    assert firing(world) == []
    assert [event.kind for event in world.audit.events(kept.stream)] == ["letter_kept", "letter_settled"]


def test_a_message_that_failed_and_then_succeeded_is_no_dead_letter() -> None:
    world = World()
    attempt(world)
    attempt(world, fails=False)
    assert world.dead_letters.letters().items == []
    (settled,) = world.dead_letters.letters("settled").items
    assert (settled.attempts, settled.count) == (1, 0)


def test_a_success_without_a_letter_writes_nothing() -> None:
    world = World()
    attempt(world, fails=False)
    assert world.documents.held == {}
    assert world.fuse.calls == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"model": "digits"}', "it is no ValidateVersion, which validations carries: version: Field required"),
        (b"not JSON", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b'{"model": "digits", "version": 1, "more": 2}', "more: Extra inputs are not permitted"),
    ],
)
def test_a_message_that_cannot_be_read_is_kept_at_once_and_once(body: bytes, reason: str) -> None:
    world = World()
    for _ in range(2):
        attempt(world, fails=False, body=body)
    (kept,) = world.dead_letters.letters().items
    assert reason in kept.reason
    assert (kept.count, kept.attempts) == (1, 1)
    attempt(world, fails=False, body=body, message_id="m2")
    assert world.dead_letters.letter(kept.id).count == 2


def test_a_failed_drop_event_is_the_letter_of_the_message_that_would_register_it() -> None:
    world = World()
    world.dead_letters.note_failure(Queue.REGISTRATIONS, body_of_drop("m/x.onnx"), OSError("disk full"))
    event = {"Type": "BlobTrigger", "ContainerName": "incoming", "BlobName": "m/x.onnx", "ETag": '"1"'}
    blob = blob_of(json.dumps(event).encode())
    assert blob == "m/x.onnx"
    kept = world.dead_letters.keep_blob(blob, message_id="p1")
    assert (kept.queue, kept.reason) == (Queue.REGISTRATIONS, "disk full")
    world.dead_letters.replay(kept.id, by="test")
    ((_, queue, body),) = world.queues.messages
    assert (queue, RegisterDrop.model_validate_json(body).blob) == (Queue.REGISTRATIONS, "m/x.onnx")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"ContainerName": "other", "BlobName": "x"}', b"\xff", b"[" * 9999]
)
def test_what_is_no_drop_s_event_is_kept_as_it_is(body: bytes) -> None:
    assert blob_of(body) is None
    world = World()
    kept = world.dead_letters.keep("webjobs-blobtrigger-poison", body, message_id="p1")
    with pytest.raises(ConflictError, match="cannot be put back"):
        world.dead_letters.replay(kept.id, by="test")
    assert world.dead_letters.letter(kept.id).state is LetterState.KEPT


def test_what_does_not_exist_and_wrong_states_are_named() -> None:
    world = World()
    with pytest.raises(NotFoundError, match="the dead letter 'letter-x' does not exist"):
        world.dead_letters.replay("letter-x", by="test")
    with pytest.raises(NotFoundError, match="letter-x"):
        world.dead_letters.discard("letter-x", by="test", reason="none")
    with pytest.raises(InvalidInputError, match="'dead' is not a dead letter's state: use one of failing, kept"):
        world.dead_letters.letters("dead")
    with pytest.raises(InvalidInputError, match="'loud' is not an alert's state: use pending or firing or resolved"):
        world.alerts.alerts("loud")


def test_where_the_letter_cannot_be_written_the_outcome_of_the_message_stands() -> None:
    world = World()

    class Down:
        def keep(self, *_: object, **__: object) -> DeadLetter:
            raise UnavailableError("the database", "down")

        note_failure = keep

        def succeeded(self, *_: object) -> None:
            raise UnavailableError("the database", "down")

    handle_body(Down(), QUEUE, BODY, ValidateVersion, lambda _: None, message_id="m")
    with pytest.raises(ValueError, match="the  scale"):
        handle_body(Down(), QUEUE, BODY, ValidateVersion, failing, message_id="m")
    # One that cannot be read must not be lost: it comes again.
    with pytest.raises(UnavailableError):
        handle_body(Down(), QUEUE, b"bad", ValidateVersion, failing, message_id="m")
    assert world.documents.held == {}


@pytest.mark.parametrize("fails", [True, False])
def test_where_the_letter_cannot_be_read_the_outcome_of_the_message_stands(*, fails: bool) -> None:
    world = World()
    attempt(world)
    ((key, stored),) = ((key, one) for key, one in world.documents.held.items() if one.body["kind"] == "dead_letter")
    world.documents.held[key] = Stored(body=stored.body | {"of_another_release": 1}, etag=stored.etag)
    attempt(world, fails=fails)


def test_killed_at_any_call_a_letter_is_kept_once_and_its_message_put_back() -> None:
    """The poison message comes again until it was kept; a person asks for the replay until it is not refused."""
    for at in itertools.count(1):
        world = World()
        for _ in range(2):
            attempt(world)
        world.fuse.at = world.fuse.calls + at
        kept = keep_and_replay(world)
        was_killed = world.fuse.calls >= world.fuse.at
        world.fuse.at = None
        world.sweep.sweep()
        world.dead_letters.settle_alerts()
        standing = world.dead_letters.letter(kept.id)
        assert (standing.state, standing.count, standing.outbox) == (LetterState.REPLAYED, 1, [])
        # A kill between a send and its being struck out sends twice, as with every message: handlers expect that.
        assert sent(world) in ([(QUEUE, MESSAGE.model_dump())], 2 * [(QUEUE, MESSAGE.model_dump())])
        assert firing(world) == []
        assert world.audit.verify().verified
        if not was_killed:
            break
    assert at > 20


def keep_and_replay(world: World) -> DeadLetter:
    while True:
        try:
            kept = world.dead_letters.keep(QUEUE, BODY, message_id="poison-1")
            if kept.state is LetterState.KEPT:
                world.dead_letters.replay(kept.id, by="test")
        except Killed:
            continue
        return kept


def test_a_body_that_takes_the_place_of_the_queue_s_id_is_told_from_the_same_body_sent_later() -> None:
    world = World()
    body = b'{"id": "always the same"}'

    def arrive(minute: int) -> DeadLetter:
        inserted = world.clock.now() + timedelta(minutes=minute)
        message = QueueMessage(id="always the same", body=body, insertion_time=inserted)  # type: ignore[no-untyped-call]
        return world.dead_letters.keep(QUEUE, body, message_id=identity_of(message))

    first = arrive(0)
    assert arrive(0).count == 1
    world.dead_letters.replay(first.id, by="test")
    assert (arrive(1).state, arrive(1).count) == (LetterState.KEPT, 2)


def test_two_who_replay_at_once_send_one_message() -> None:
    world = World()
    kept = die(world)
    world.documents.other_writers.append(lambda: world.dead_letters.replay(kept.id, by="the other"))
    with pytest.raises(ConflictError, match="is replayed"):
        world.dead_letters.replay(kept.id, by="test")
    assert len(sent(world)) == 1
    assert world.dead_letters.letter(kept.id).model == NO_MODEL


def while_counting(world: World, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Have something happen once, a second after the letters that wait are counted and before the count is used."""
    query = world.documents.query

    def counted(*args: Any, **fields: Any) -> Page:
        page = query(*args, **fields)
        if {"state": LetterState.KEPT, "queue": QUEUE}.items() <= (fields.get("where") or {}).items():
            monkeypatch.setattr(world.documents, "query", query)
            world.clock.pass_s(1)
            happens()
        return page

    monkeypatch.setattr(world.documents, "query", counted)


def test_a_count_of_before_a_discard_fires_no_alert_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    kept = die(world)
    while_counting(world, monkeypatch, lambda: world.dead_letters.discard(kept.id, by="ann", reason="seen"))
    world.dead_letters.settle_alerts()
    (alert,) = world.alerts.alerts().items
    assert alert.state is AlertState.RESOLVED
    assert [event.kind for event in world.audit.events(alert.stream)] == ["alert_fired", "alert_resolved"]


def test_a_count_of_before_more_letters_does_not_resolve_their_alert(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    kept = die(world)

    def keep_more() -> None:
        for number in (2, 3):
            world.dead_letters.keep(QUEUE, f"other {number}".encode(), message_id=f"poison-{number}")

    while_counting(world, monkeypatch, keep_more)
    world.dead_letters.discard(kept.id, by="ann", reason="seen")
    (alert,) = world.alerts.alerts().items
    assert (alert.state, alert.evidence["waiting"]) == (AlertState.FIRING, 2)
    assert "alert_resolved" not in [event.kind for event in world.audit.events(alert.stream)]


def test_a_later_count_stands_whichever_is_said_last(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    die(world)
    other = partial(world.dead_letters.keep, QUEUE, b"other", message_id="poison-2")
    while_counting(world, monkeypatch, other)
    world.dead_letters.settle_alerts()
    (alert,) = world.alerts.alerts().items
    assert (alert.evidence["waiting"], alert.count) == (2, 2)
