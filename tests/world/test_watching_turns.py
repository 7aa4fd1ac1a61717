"""Turns: a call that has no time for all endpoints leaves none of them waiting for ever."""

import pytest

from shared.registry.documents import Model
from shared.rollout.endpoint import Endpoint
from shared.store.ports import BlobContainer, Container
from shared.watching.turns import CALL_S, PLACE, Turns
from tests.world.fakes import FakeBlobs, FakeClock, Fuse, Killed
from tests.world.watched import Watched
from tests.world.world import MODEL

NAMES = ("d", "a", "c", "b", "e")


class Seconds:
    """A monotonic clock in the test's hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def call(blobs: FakeBlobs, each_s: float, *, dies_at: str = "") -> list[str]:
    """What a call comes to where each endpoint takes so long."""
    seconds, found = Seconds(), list[str]()
    for name in Turns(blobs=blobs, monotonic=seconds).of(NAMES):
        if name == dies_at:
            return found
        found.append(name)
        seconds.now += each_s
    return found


def test_with_time_for_all_every_call_comes_to_all() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock())
    assert [sorted(call(blobs, 1.0)) for _ in range(3)] == [sorted(NAMES)] * 3


def test_without_time_for_all_the_next_call_carries_on_behind_the_last() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock())
    found = [call(blobs, CALL_S / 2) for _ in range(5)]
    assert found == [["a", "b"], ["c", "d"], ["e", "a"], ["b", "c"], ["d", "e"]]


def test_one_endpoint_that_takes_longer_than_a_call_keeps_no_other_waiting() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock())
    assert [call(blobs, 2 * CALL_S) for _ in range(6)] == [["a"], ["b"], ["c"], ["d"], ["e"], ["a"]]


def test_one_at_which_every_call_dies_keeps_no_other_waiting() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock())
    assert call(blobs, CALL_S / 10, dies_at="c") == ["a", "b"]
    assert call(blobs, CALL_S / 10, dies_at="c") == ["d", "e", "a", "b"]


def test_one_at_which_every_call_dies_within_seconds_keeps_no_other_waiting() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock())
    found = [call(blobs, 0.5, dies_at="c") for _ in range(4)]
    assert found == [["a", "b"], ["b"], [], ["d", "e", "a", "b"]]


def test_killed_while_it_keeps_its_place_a_call_leaves_the_old_place_or_a_new_one() -> None:
    for at in range(6):
        blobs = FakeBlobs(Fuse(), FakeClock())
        call(blobs, CALL_S / 2)
        blobs.fuse.at = blobs.fuse.calls + at
        try:
            call(blobs, CALL_S / 2)
        except Killed:
            blobs.fuse.at = None
        assert call(blobs, CALL_S / 2) in (["c", "d"], ["d", "e"], ["e", "a"])


def test_a_place_that_is_no_text_is_begun_from() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock())
    blobs.put(BlobContainer.REPORTS, PLACE, b"\xff\xfe", {})
    assert sorted(call(blobs, 1.0)) == sorted(NAMES)


@pytest.mark.parametrize("each_s", [CALL_S / 3, CALL_S])
def test_whoever_is_new_or_gone_in_between_no_one_is_passed_over(each_s: float) -> None:
    blobs, seconds = FakeBlobs(Fuse(), FakeClock()), Seconds()
    seen = set[str]()
    for number in range(14):
        names = [*NAMES, f"b{number % 2}"]
        for name in Turns(blobs=blobs, monotonic=seconds).of(names):
            seen.add(name)
            seconds.now += each_s
    assert seen == {*NAMES, "b0", "b1"}


def test_watching_that_has_time_for_one_endpoint_a_call_comes_to_each_in_its_turn() -> None:
    watched = Watched()
    other = Endpoint(endpoint="zzz", stable=watched.target(1), generation=1)
    watched.world.documents.create(Container.ENDPOINTS, other.to_body())
    watched.world.documents.create(Container.MODELS, Model(model="zzz").to_body())
    watched.world.watching.turns = Turns(blobs=watched.world.blobs, monotonic=Seconds(), call_s=0.0)

    def reported() -> list[bool]:
        return [bool(watched.world.watching.reports.latest(name)) for name in (MODEL, "zzz")]

    watched.world.watching.watch()
    assert reported() == [True, False]
    watched.world.watching.watch()
    assert reported() == [True, True]
