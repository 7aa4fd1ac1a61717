"""Feedback counts: what is counted, that counts merge exactly, and that a tally is bounded."""

import random
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.telemetry.feedback import (
    MAX_LABEL_CHARS,
    MAX_NUMBER,
    MAX_PAIRS,
    MAX_ROWS,
    OTHER_PAIR,
    Feedback,
    FeedbackTally,
    Key,
    hour_of,
    merge_feedback,
)
from shared.telemetry.window import Window

HOUR = datetime(2026, 3, 1, 12, tzinfo=UTC)


def key(version: int = 1, hours: int = 0, generation: int = 3) -> Key:
    return Key(
        version=version, generation=generation, role="stable", reason="assigned", hour=HOUR + timedelta(hours=hours)
    )


_NUMBER = st.floats(-MAX_NUMBER, MAX_NUMBER)
_FEEDBACK = st.builds(
    Feedback,
    key=st.builds(key, version=st.integers(1, 3), hours=st.integers(0, 2)),
    delay_s=st.none() | st.floats(0, 1e7),
    value=st.none() | st.floats(0, 1),
    coin=st.floats(0, 1, exclude_max=True),
    classes=st.none() | st.tuples(st.sampled_from("abc"), st.sampled_from("abc")),
    numbers=st.none() | st.tuples(_NUMBER, _NUMBER),
)


def tallied(feedback: list[Feedback]) -> FeedbackTally:
    tally = FeedbackTally()
    for one in feedback:
        tally.add(one)
    return tally


@given(st.lists(st.tuples(_FEEDBACK, st.integers(0, 3)), max_size=30), st.randoms())
@settings(max_examples=60)
def test_merging_in_any_order_and_grouping_equals_counting_together(
    given_to: list[tuple[Feedback, int]], rng: random.Random
) -> None:
    together = tallied([one for one, _ in given_to]).take()
    parts = [tallied([one for one, pod in given_to if pod == number]).take() for number in range(4)]
    rng.shuffle(parts)
    paired = [merge_feedback(parts[0] + parts[1]), merge_feedback(parts[2] + parts[3])]
    assert merge_feedback(paired[1] + paired[0]) == together
    window = Window(
        endpoint="churn",
        pod="a",
        sequence=0,
        generation=1,
        started_at=HOUR,
        ended_at=HOUR,
        loaded=[],
        feedback=together,
    )
    assert Window.model_validate_json(window.model_dump_json()) == window


def test_what_came_is_counted_under_its_prediction() -> None:
    tally = tallied(
        [
            Feedback(key=key(), delay_s=90.0, value=0.25, coin=0.2),
            Feedback(key=key(), value=0.25, coin=0.3),
            Feedback(key=key(), classes=("cat", "dog"), value=0.0),
            Feedback(key=key(), numbers=(2.5, 2.0)),
            Feedback(key=key(version=2), numbers=(-1.0, 2.0)),
        ]
    )
    one, two = tally.take()
    assert (one.count, one.valued, one.good, one.value_millionths) == (4, 3, 1, 500_000)
    assert (one.labelled, one.correct, one.labels) == (1, 0, {"cat\x1fdog": 1})
    assert (one.numbers.error, one.numbers.squared, one.numbers.label) == (500_000, 250_000_000_000, 2_000_000)
    assert (two.numbers.error, two.numbers.absolute) == (-3_000_000, 3_000_000)
    assert sum(one.delay_s.values()) == 1
    assert tally.take() == []


def test_the_coin_keeps_the_mean() -> None:
    rng = random.Random(4)
    (row,) = tallied([Feedback(key=key(), value=0.3, coin=rng.random()) for _ in range(20_000)]).take()
    assert abs(row.good / row.valued - 0.3) < 0.012  # four standard errors


def test_a_full_tally_takes_no_new_row_and_says_so() -> None:
    tally = tallied([Feedback(key=key(version=number)) for number in range(1, MAX_ROWS + 1)])
    assert tally.has_room([key(version=1)])
    assert not tally.has_room([key(version=1), key(version=MAX_ROWS + 1)])


def test_labels_beyond_the_bound_are_pooled_and_correct_still_tells() -> None:
    many = [Feedback(key=key(), classes=(f"class {number}", f"class {number}")) for number in range(MAX_PAIRS + 500)]
    (row,) = tallied(many).take()
    assert (row.labelled, row.correct) == (MAX_PAIRS + 500,) * 2
    assert row.labels[OTHER_PAIR] == 500
    assert len(row.labels) == MAX_PAIRS + 1


def test_a_window_full_of_feedback_is_below_what_is_read_of_one() -> None:
    tally = FeedbackTally()
    for number in range(1, MAX_PAIRS + 2_000):
        name = f"{number:04d}" + "\N{CAT FACE}" * (MAX_LABEL_CHARS - 4)
        one = Feedback(
            key=key(version=number % MAX_ROWS + 1, generation=10**11),
            delay_s=1.02**number if number < 800 else 60.0,
            value=0.123456,
            classes=(name, name),
            numbers=(MAX_NUMBER, -MAX_NUMBER),
        )
        if tally.has_room([one.key]):
            tally.add(one)
    window = Window(
        endpoint="churn", pod="a", sequence=0, generation=1, started_at=HOUR, ended_at=HOUR, loaded=[]
    ).model_copy(update={"feedback": tally.take()})
    assert 500_000 < len(window.model_dump_json().encode()) < 800_000


def test_an_hour_is_in_utc() -> None:
    at = datetime.fromisoformat("2026-03-01T13:59:59+01:30")
    assert hour_of(at) == datetime(2026, 3, 1, 12, tzinfo=UTC)
