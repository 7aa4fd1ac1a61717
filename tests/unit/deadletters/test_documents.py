"""A letter is known by its queue and body, and moves by its table alone."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.errors import ConflictError
from shared.core.messages import Queue
from shared.deadletters.documents import TRANSITIONS, DeadLetter, LetterBody, LetterEvent, LetterState, letter_id
from tests.world.fakes import FakeClock

NOW = FakeClock().now()

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=8,
)


def letter(state: LetterState = LetterState.KEPT, body: bytes = b'{"blob": "m/x"}', queue: str = "") -> DeadLetter:
    content = LetterBody.of(body)
    queue = queue or Queue.REGISTRATIONS.value
    identity = letter_id(queue, content)
    return DeadLetter(id=identity, queue=queue, body=content, state=state, first_seen_at=NOW, last_seen_at=NOW)


@pytest.mark.parametrize(("state", "event"), list(itertools.product(LetterState, LetterEvent)))
def test_a_letter_moves_by_the_table_or_not_at_all(state: LetterState, event: LetterEvent) -> None:
    moved = letter(state)
    if (state, event) in TRANSITIONS:
        moved.move(event)
        assert moved.state is TRANSITIONS[state, event]
    else:
        with pytest.raises(ConflictError, match=f"is {state}, and {event} is for one that is kept"):
            moved.move(event)
        assert moved == letter(state)


def test_only_a_kept_letter_is_replayed_or_discarded_and_whatever_fails_can_be_kept() -> None:
    wanted = {LetterEvent.REPLAY: {LetterState.KEPT}, LetterEvent.DISCARD: {LetterState.KEPT}}
    for event, states in wanted.items():
        assert {state for state, found in TRANSITIONS if found is event} == states
    for event in (LetterEvent.FAIL, LetterEvent.KEEP, LetterEvent.SUCCEED):
        assert {state for state, found in TRANSITIONS if found is event} == set(LetterState)


@given(st.binary(max_size=200))
def test_any_body_is_held_and_has_an_id(body: bytes) -> None:
    held = LetterBody.of(body)
    assert LetterBody.model_validate_json(held.model_dump_json()) == held
    assert letter_id("registrations", held).startswith("letter-")
    if held.encoding == "text":
        assert held.content.encode() == body


@settings(max_examples=40)
@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_the_order_of_fields_and_the_spaces_make_no_other_letter(message: dict[str, object]) -> None:
    bodies = {
        json.dumps(message, indent=indent).encode()
        for message in (message, dict(reversed(message.items())))
        for indent in (None, 2)
    }
    if "NaN" not in json.dumps(message) and "Infinity" not in json.dumps(message):
        assert len({letter_id("q", LetterBody.of(body)) for body in bodies}) == 1
    assert letter_id("q", LetterBody.of(b"{}")) != letter_id("r", LetterBody.of(b"{}"))


@pytest.mark.parametrize("body", [b"plain", b"[1]", b"\xff\xfe", b"", b"[" * 5_000, b"{"], ids=repr)
def test_what_is_no_message_of_ours_is_not_put_back(body: bytes) -> None:
    with pytest.raises(ConflictError, match="cannot be put back: it is no message"):
        letter(body=body).put_back()
    with pytest.raises(ConflictError, match="cannot be put back"):
        letter(queue="webjobs-blobtrigger-poison").put_back()
