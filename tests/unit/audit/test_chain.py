"""The chain shows an edit, a deletion, a reordering and a cut end."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.audit.chain import AuditEvent, AuditHead, next_event, problems_of

STREAM = "model:digits"
AT = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def stream_of(count: int) -> tuple[list[AuditEvent], AuditHead]:
    events, head = [], AuditHead()
    for number in range(count):
        event = next_event(
            head, stream=STREAM, at=AT + timedelta(seconds=number), kind="thing_done", data={"number": number, "x": 0.5}
        )
        events.append(event)
        head = AuditHead(seq=event.seq, hash=event.hash)
    return events, head


def problems(events: list[AuditEvent], head: AuditHead) -> list[tuple[int, str]]:
    return [(problem.seq, problem.problem) for problem in problems_of(STREAM, events, head)]


def test_a_stream_as_written_has_no_problems() -> None:
    assert problems(*stream_of(5)) == []
    assert problems(*stream_of(0)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"data": {"number": 2, "x": 0.25}},
        {"kind": "other"},
        {"at": AT},
        {"stream": "model:other"},
        {"hash": "f" * 64},
        {"previous": "f" * 64},
    ],
)
def test_an_edited_event_is_a_problem_at_its_place(change: dict[str, Any]) -> None:
    events, head = stream_of(5)
    events[2] = events[2].model_copy(update=change)
    assert 3 in {seq for seq, _ in problems(events, head)}


@given(st.integers(0, 4))
def test_a_deleted_event_is_a_problem(index: int) -> None:
    events, head = stream_of(5)
    del events[index]
    assert problems(events, head)


@given(st.permutations(range(5)).filter(lambda order: order != [0, 1, 2, 3, 4]))
def test_reordered_events_are_a_problem(order: list[int]) -> None:
    events, head = stream_of(5)
    assert problems([events[index] for index in order], head)


def test_an_event_added_behind_the_head_is_a_problem() -> None:
    events, head = stream_of(5)
    more = next_event(head, stream=STREAM, at=AT, kind="forged", data={})
    assert problems([*events, more], head) == [(6, "the stream ends here, its subject stands at event 5")]


def test_an_edit_with_its_own_hash_made_anew_breaks_the_link_of_the_next() -> None:
    events, head = stream_of(5)
    before = AuditHead(seq=events[1].seq, hash=events[1].hash)
    events[2] = next_event(before, stream=STREAM, at=AT, kind="forged", data={})
    assert problems(events, head) == [(4, "it does not hold the hash of the one before")]


@given(st.dictionaries(st.text(max_size=5), st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.booleans()))
def test_an_event_read_back_from_its_json_still_gives_its_hash(data: dict[str, Any]) -> None:
    event = next_event(AuditHead(), stream=STREAM, at=AT, kind="thing_done", data=data)
    again = AuditEvent.model_validate_json(event.model_dump_json())
    assert problems_of(STREAM, [again], AuditHead(seq=1, hash=event.hash)) == []


def test_a_whole_float_that_a_database_hands_back_as_an_integer_gives_the_same_hash() -> None:
    event = next_event(
        AuditHead(), stream=STREAM, at=AT, kind="thing_done", data={"value": 1.0, "deep": [2.0, {"x": 3.0}]}
    )
    again = event.model_copy(update={"data": {"value": 1, "deep": [2, {"x": 3}]}})
    assert problems_of(STREAM, [again], AuditHead(seq=1, hash=event.hash)) == []
