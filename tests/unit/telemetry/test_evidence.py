"""Windows that were not read yet: each once, several at a time, none of what is no window of the endpoint."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.store.ports import Blob, BlobContainer, BlobInfo
from shared.telemetry.evidence import AT_ONCE, windows_after
from shared.telemetry.window import Window, window_blob_name
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

    barrier = threading.Barrier(AT_ONCE, timeout=10)

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
