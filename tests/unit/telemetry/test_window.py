import itertools
import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import VersionCounts, Window, merge_counts, window_blob_name

_events = st.lists(st.tuples(st.sampled_from(["ok", "error", "fallback", "pinned"]), st.floats(0.01, 1e5)), max_size=40)


def _counts(events: list[tuple[str, float]]) -> VersionCounts:
    latency: dict[int, int] = {}
    for what, latency_ms in events:
        if what == "ok":
            latency[bucket_index(latency_ms)] = latency.get(bucket_index(latency_ms), 0) + 1
    kinds = [what for what, _ in events]
    return VersionCounts(
        requests=kinds.count("ok") + kinds.count("error"),
        errors=kinds.count("error"),
        fallbacks=kinds.count("fallback"),
        pinned=kinds.count("pinned"),
        latency_ms=latency,
    )


@given(events=_events, cuts=st.lists(st.integers(0, 40), max_size=4))
def test_merging_windows_equals_observing_together(events: list[tuple[str, float]], cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(events)) for cut in cuts), len(events)]
    parts = [_counts(events[start:end]) for start, end in itertools.pairwise(edges)]
    assert merge_counts(parts) == _counts(events)


@given(left=_events, right=_events)
def test_the_order_of_merging_does_not_matter(left: list[tuple[str, float]], right: list[tuple[str, float]]) -> None:
    a, b = _counts(left), _counts(right)
    assert merge_counts([a, b]) == merge_counts([b, a])


def test_a_window_keeps_its_integer_keys_through_json() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    window = Window(
        endpoint="churn",
        pod="pod",
        sequence=1,
        generation=3,
        started_at=now,
        ended_at=now,
        loaded=[1],
        failed={2: "digest"},
        versions={1: VersionCounts(requests=1, latency_ms={-42: 1})},
    )
    text = window.model_dump_json()
    assert Window.model_validate_json(text) == window
    assert json.loads(text)["versions"]["1"]["latency_ms"] == {"-42": 1}


def test_the_blob_name_is_of_the_minute_in_utc_and_sorts_by_sequence() -> None:
    late = datetime(2026, 3, 2, 0, 30, tzinfo=timezone(timedelta(hours=2)))
    assert window_blob_name("churn", late, "pod-a", 7) == "churn/2026-03-01T22-30/pod-a-0000000007.json"
    assert window_blob_name("churn", late, "p", 9) < window_blob_name("churn", late, "p", 10)


def test_an_unknown_field_or_a_negative_count_is_refused() -> None:
    with pytest.raises(ValidationError):
        VersionCounts.model_validate({"requests": -1})
    with pytest.raises(ValidationError):
        VersionCounts.model_validate({"wishes": 1})
