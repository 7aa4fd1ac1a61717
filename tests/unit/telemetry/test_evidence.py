"""Windows that were not read yet: each once, several at a time, none of what is no window of the endpoint."""

import contextlib
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.core.errors import InvalidInputError
from shared.core.threads import AT_ONCE
from shared.routing.prediction import PredictionId
from shared.store.ports import Blob, BlobContainer, BlobInfo
from shared.telemetry.evidence import ASKED, FEW_GAPS, LISTING, windows_after
from shared.telemetry.feedback import FeedbackCounts
from shared.telemetry.window import VersionCounts, Window, window_blob_name
from tests.world.fakes import FakeBlobs, FakeClock, Fuse

AT = datetime(2026, 11, 21, 8, 59, 50, tzinfo=UTC)


def window(pod: str, sequence: int, *, at: datetime = AT, **changes: Any) -> Window:
    fields: dict[str, Any] = {
        "endpoint": "digits",
        "pod": pod,
        "sequence": sequence,
        "generation": 1,
        "started_at": at - timedelta(seconds=5),
        "ended_at": at,
        "loaded": [1],
    }
    return Window(**(fields | changes))


def stored(*windows: Window, blobs: FakeBlobs | None = None) -> FakeBlobs:
    blobs = blobs or FakeBlobs(Fuse(), FakeClock(AT))
    for one in windows:
        name = window_blob_name("digits", one.ended_at, one.pod, one.sequence)
        blobs.put(BlobContainer.TELEMETRY, name, one.model_dump_json().encode(), {})
    return blobs


def found(blobs: FakeBlobs, marks: dict[str, int] | None = None, *, since: datetime = AT) -> list[tuple[str, int]]:
    read = windows_after(blobs, "digits", marks or {}, since, since + timedelta(seconds=30))
    return [(one.pod, one.sequence) for one in read]


def test_what_was_read_is_not_fetched_again() -> None:
    blobs = stored(*(window(pod, sequence) for pod in ("a", "b-1") for sequence in range(3)))
    assert found(blobs, {"a": 1, "b-1": 2}) == [("a", 2)]
    assert len(blobs.reads) == 1


def test_a_window_of_numbers_that_no_pod_counts_is_left_out_and_told_of(caplog: pytest.LogCaptureFixture) -> None:
    blobs = stored(window("a", 1), window("b", 1, versions={1: VersionCounts(requests=2**62)}), window("c", 1))
    assert found(blobs) == [("a", 1), ("c", 1)]
    assert f"{window_blob_name('digits', AT, 'b', 1)} is left out: no pod counts so" in caplog.text


def test_a_window_is_read_whatever_the_ids_that_its_feedback_was_on() -> None:
    given = []
    for digits in range(1, 20):
        with contextlib.suppress(InvalidInputError):
            given.append(PredictionId.parse(f"digits.{'9' * digits}.{'9' * digits}.sa.k3qx7m2p4z.6740a1f2.1f"))
    rows = [
        FeedbackCounts(
            version=one.version, generation=one.generation, role="stable", reason="assigned", hour=one.at, count=1
        )
        for one in given
    ]
    assert len(rows) > 1
    assert found(stored(window("a", 1, feedback=rows))) == [("a", 1)]


def test_windows_of_both_hours_that_the_time_touches_are_found_and_of_clocks_that_are_minutes_off() -> None:
    late, early = AT - timedelta(minutes=4), AT + timedelta(minutes=4)
    assert found(stored(window("a", 1, at=late), window("b", 1), window("c", 1, at=early))) == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]


def test_what_is_no_window_or_another_endpoint_s_is_left_out_and_hides_no_other() -> None:
    blobs = stored(window("a", 1), window("c", 1, endpoint="other"), window("d", 1))
    name = window_blob_name("digits", AT, "b", 1)
    for number, data in enumerate((b"", b"{", b"[]", json.dumps({"pod": "b"}).encode(), b" " * 1_000_001)):
        blobs.put(BlobContainer.TELEMETRY, name.replace("b-", f"b{number}-"), data, {})
    assert found(blobs) == [("a", 1), ("d", 1)]


class Together(FakeBlobs):
    """Answers no read before as many are asked for as may be at once."""

    barrier = threading.Barrier(AT_ONCE, timeout=60)

    def read(self, container: BlobContainer, name: str, *, max_bytes: int) -> Blob | None:
        self.barrier.wait()
        return super().read(container, name, max_bytes=max_bytes)


def test_windows_are_read_side_by_side_in_their_order() -> None:
    blobs = stored(*(window(f"p{n:02d}", 1) for n in range(2 * AT_ONCE)), blobs=Together(Fuse(), FakeClock(AT)))
    assert found(blobs) == [(f"p{n:02d}", 1) for n in range(2 * AT_ONCE)]


class Listed(FakeBlobs):
    """Tells how many names were taken of its lists."""

    taken = 0

    def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
        for info in super().list(container, prefix):
            self.taken += 1
            yield info


def test_no_more_are_fetched_ahead_than_are_read_at_once() -> None:
    blobs = Listed(Fuse(), FakeClock(AT))
    stored(*(window(f"p{n:03d}", 1) for n in range(5 * AT_ONCE)), blobs=blobs)
    assert next(windows_after(blobs, "digits", {}, AT, AT)).pod == "p000"
    assert len(blobs.reads) <= AT_ONCE
    assert blobs.taken <= AT_ONCE + 1


def test_the_latest_minutes_alone_are_listed_and_what_a_pod_wrote_before_a_gap() -> None:
    before = [AT - timedelta(minutes=90 - n) for n in range(3)]
    others = [window(f"other-{n}", 0, at=before[0] - timedelta(minutes=1)) for n in range(100)]
    windows = [window(pod, n, at=at) for pod in ("a", "a-b", "c") for n, at in enumerate(before)]
    blobs = Listed(Fuse(), FakeClock(AT))
    stored(*others, *windows, window("a", 3), window("c", 3), window("new", 0), blobs=blobs)
    marks = {"a": 0, "a-b": 0, "c": 2}
    read = windows_after(blobs, "digits", marks, AT - timedelta(hours=3), AT, recent=AT)
    # What only `a-b` wrote in minutes that were not asked for is left; nothing of `a` is overtaken.
    assert [(one.pod, one.sequence) for one in read] == [("a", 1), ("a", 2), ("a", 3), ("c", 3), ("new", 0)]
    # Those of the latest minutes, and back to where the gap begins those of `a`, with which `a-b` begins too.
    assert blobs.taken == 3 + 2 * 2


def test_hours_that_are_asked_for_are_listed_whole() -> None:
    hour = AT.replace(minute=0, second=0) - timedelta(hours=1)
    blobs = stored(*(window(f"p{n}", 0, at=hour + timedelta(minutes=5 * n)) for n in range(16)))
    read = windows_after(blobs, "digits", {}, hour - timedelta(hours=3), AT, recent=AT, hours=[hour])
    assert [one.pod for one in read] == [f"p{n}" for n in range(12)]


def test_gaps_of_many_pods_are_filled_by_minutes_that_are_listed_once_for_all() -> None:
    pods = [f"p{n:02d}" for n in range(3 * FEW_GAPS)]
    blobs = Listed(Fuse(), FakeClock(AT))
    late = [AT - timedelta(minutes=30 - n) for n in range(4)]
    stored(*(window(pod, n, at=at) for pod in pods for n, at in enumerate(late)), blobs=blobs)
    stored(*(window(pod, 4) for pod in pods), blobs=blobs)
    since = AT - timedelta(hours=2)
    read = windows_after(blobs, "digits", dict.fromkeys(pods, 0), since, AT, recent=AT)
    assert [(one.pod, one.sequence) for one in read] == [(pod, n) for pod in pods for n in (1, 2, 3, 4)]
    # The latest minute, a few pods by themselves, and three minutes once.
    assert blobs.taken <= len(pods) + 3 * FEW_GAPS + 3 * len(pods)


def test_windows_that_lie_under_their_hour_alone_are_found_by_whoever_lists_any_of_it() -> None:
    blobs = FakeBlobs(Fuse(), FakeClock(AT))
    for pod in ("a-1", "0b"):
        for sequence, at in enumerate((AT - timedelta(minutes=70), AT - timedelta(minutes=20), AT)):
            one = window(pod, sequence, at=at)
            name = f"digits/{at:%Y-%m-%dT%H}/{pod}-{sequence:010d}.json"
            blobs.put(BlobContainer.TELEMETRY, name, one.model_dump_json().encode(), {})
    stored(window("new", 0), blobs=blobs)
    latest = [("0b", 1), ("0b", 2), ("a-1", 1), ("a-1", 2), ("new", 0)]
    assert found(blobs, {"0b": 0, "a-1": 0}) == latest
    read = windows_after(blobs, "digits", {}, AT - timedelta(hours=2), AT)
    assert sorted((one.pod, one.sequence) for one in read) == [("0b", 0), *latest[:2], ("a-1", 0), *latest[2:]]


def test_a_list_ends_when_there_is_no_time_and_nothing_behind_it_is_read() -> None:
    earlier = [window(f"p{n:04d}", 0, at=AT - timedelta(hours=1)) for n in range(2 * ASKED)]
    blobs = Listed(Fuse(), FakeClock(AT))
    stored(*earlier, window("p0999", 1), blobs=blobs)
    marks = {one.pod: 0 for one in earlier[: ASKED // 2]}
    since = AT - timedelta(hours=2)
    read = list(windows_after(blobs, "digits", marks, since, AT, goes_on=lambda: False))
    assert [one.pod for one in read] == [f"p{n:04d}" for n in range(ASKED // 2, blobs.taken - 1)]
    assert ASKED // 2 < blobs.taken - 1 <= ASKED


def test_without_time_many_short_listings_end_as_one_long_one_does() -> None:
    # Of each pod all but one window is missing, and is looked for through two hours of minutes in which little lies.
    blobs = stored(*(window(f"p{pod}", 3) for pod in range(FEW_GAPS)))
    listed = list[str]()

    class Listed(FakeBlobs):
        def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
            listed.append(prefix)
            return super().list(container, prefix)

    counted = Listed(Fuse(), FakeClock(AT))
    counted.held = blobs.held
    read = windows_after(counted, "digits", {}, AT, AT, earliest=AT - timedelta(hours=2), goes_on=lambda: False)
    assert list(read) == []
    assert len(listed) <= ASKED // LISTING + 1
