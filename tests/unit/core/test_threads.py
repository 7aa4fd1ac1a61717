"""Calls side by side: in order, on threads that are kept, and none left under way."""

import threading

import pytest

from shared.core.threads import AT_ONCE, side_by_side


def test_what_is_given_is_in_the_order_of_the_items() -> None:
    assert list(side_by_side(lambda item: item * 2, iter(range(100)))) == list(range(0, 200, 2))
    assert list(side_by_side(str, [])) == []


def test_calls_are_under_way_at_once() -> None:
    together = threading.Barrier(AT_ONCE)
    assert len(list(side_by_side(lambda _: together.wait(60), range(AT_ONCE)))) == AT_ONCE


def test_the_threads_are_kept_from_one_look_to_the_next() -> None:
    names = {name for _ in range(50) for name in side_by_side(lambda _: threading.current_thread().name, range(20))}
    assert len(names) <= AT_ONCE


def test_what_a_call_raises_is_raised() -> None:
    def call(item: int) -> int:
        if item == 3:
            raise LookupError("the third")
        return item

    with pytest.raises(LookupError, match="the third"):
        list(side_by_side(call, range(200)))


def test_who_stops_early_waits_for_what_is_under_way_and_begins_no_more() -> None:
    seen: set[int] = set()
    gate = threading.Event()

    def call(item: int) -> int:
        seen.add(item)
        if item:
            gate.wait(60)
        return item

    results = side_by_side(call, range(10_000))
    assert next(results) == 0
    closing = threading.Thread(target=results.close)
    closing.start()
    closing.join(0.2)
    assert closing.is_alive(), "calls are under way until the gate opens"
    gate.set()
    closing.join(60)
    assert not closing.is_alive()
    assert len(seen) < 10_000
