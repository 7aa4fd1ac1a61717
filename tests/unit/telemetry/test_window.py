"""Windows: what they hold, that they merge exactly, and where they lie."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import ValidationError

from shared.core.slots import Slot
from shared.telemetry.feedback import MILLION
from shared.telemetry.histogram import bucket_index
from shared.telemetry.predictions import PredictionTally, bounded
from shared.telemetry.window import (
    MAX_NAMES,
    OTHERS,
    ShadowCounts,
    VersionCounts,
    Window,
    added_names,
    merge_counts,
    window_blob_name,
)

_KINDS = ("ok", "error", "fallback", "pinned", "pinned_error")
_NAMES = [f"signer {n}" for n in range(3 * MAX_NAMES)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A request, and all that a window counts of it."""

    kind: str
    latency_ms: float = 1.0
    answer: float | str = 0.0
    by: str = ""
    differs: float | None = None
    """By how much a shadow's number is off the answer's."""


_EVENTS = st.lists(
    st.builds(
        Event,
        kind=st.sampled_from(_KINDS),
        latency_ms=st.floats(0.01, 1e5),
        answer=st.sampled_from(["cat", "dog", "#other"]) | st.floats(-1e12, 1e12),
        by=st.sampled_from(["", *_NAMES, OTHERS]),
        differs=st.none() | st.floats(-1e12, 1e12) | st.floats(-2, 2),
    ),
    max_size=60,
)


def _counts(events: Sequence[Event]) -> VersionCounts:
    """As a server counts them: names one by one, within their bound."""
    kinds = Counter(event.kind for event in events)
    answered = [event for event in events if event.kind == "ok"]
    latencies = Counter(bucket_index(event.latency_ms) for event in answered)
    labels = Counter(event.answer for event in answered if isinstance(event.answer, str))
    tally = PredictionTally()
    tally.gave(np.array([event.answer for event in answered if isinstance(event.answer, float)]))
    overrides: dict[str, int] = {}
    for event in events:
        overrides = added_names([overrides, {event.by: 1}]) if event.by else overrides
    return VersionCounts(
        requests=kinds["ok"] + kinds["error"],
        errors=kinds["error"],
        fallbacks=kinds["fallback"],
        pinned=kinds["pinned"] + kinds["pinned_error"],
        pinned_errors=kinds["pinned_error"],
        latency_ms=dict(latencies),
        predictions=tally.counts | dict(labels),
        overrides=overrides,
        shadow=_shadow(events),
    )


def _shadow(events: Sequence[Event]) -> ShadowCounts | None:
    if not events:
        return None
    steps = [round(event.differs * MILLION) for event in events if event.differs is not None]
    return ShadowCounts(
        mirrored=len(events),
        shed=sum(event.kind == "error" for event in events),
        errors=sum(event.kind == "fallback" for event in events),
        compared=len(steps),
        disagreements=sum(step != 0 for step in steps),
        numbers=len(steps),
        difference_millionths=sum(steps),
        squared_millionths=sum(step * step for step in steps),
    )


def grouped(parts: Sequence[VersionCounts], rng: random.Random) -> VersionCounts:
    """Merged in groups of some, and these again, in any order, until one is left."""
    left = list(parts)
    while len(left) > 1:
        rng.shuffle(left)
        size = rng.randint(1, len(left))
        left = [merge_counts(left[:size]), *left[size:]]
    return left[0]


def through_json(counts: VersionCounts) -> VersionCounts:
    """As one that was written and read."""
    return VersionCounts.model_validate_json(counts.model_dump_json())


@settings(max_examples=40)
@given(events=_EVENTS, pods=st.integers(1, 5), rng=st.randoms())
def test_merging_windows_in_any_order_and_grouping_equals_observing_together(
    events: list[Event], pods: int, rng: random.Random
) -> None:
    shares: list[list[Event]] = [[] for _ in range(pods)]
    for event in events:
        rng.choice(shares).append(event)
    assert grouped([through_json(_counts(share)) for share in shares], rng) == _counts(events)


@pytest.mark.parametrize("seed", range(2))
def test_however_many_names_and_numbers_the_grouping_of_windows_does_not_matter(seed: int) -> None:
    """Beyond the bounds of both, which hypothesis does not come to by itself."""
    rng = random.Random(seed)

    def drawn(scale: int) -> Event:
        answer = rng.choice([-1, 1]) * 10.0 ** rng.uniform(-scale, scale)
        return Event(kind="ok", answer=answer, by=rng.choice(_NAMES), differs=answer)

    shares = [[drawn(rng.choice([1, 8])) for _ in range(rng.choice([20, 400]))] for _ in range(20)]
    parts = [_counts(share) for share in shares]
    whole = merge_counts(parts)
    assert len(whole.overrides) == MAX_NAMES
    assert len({key.partition(":")[0] for part in parts for key in part.predictions}) > 1
    for _ in range(5):
        assert grouped(parts, rng) == whole
    together = _counts([event for share in shares for event in share])
    # A server counts numbers in fewer buckets than a sum may have: what is counted together is coarser.
    assert whole.model_copy(update={"predictions": {}}) == together.model_copy(update={"predictions": {}})
    assert bounded(whole.predictions) == together.predictions


def test_sums_beyond_what_json_numbers_hold_exactly_are_text_in_json_and_documents_take_them() -> None:
    great = 3 * 10**40 + 7
    counts = ShadowCounts(difference_millionths=-great, squared_millionths=great)
    written = json.loads(counts.model_dump_json())
    assert (written["difference_millionths"], written["squared_millionths"]) == (str(-great), str(great))
    assert ShadowCounts.model_validate(written) == counts
    assert ShadowCounts.model_validate(counts.model_dump()) == counts
    assert json.loads(ShadowCounts(difference_millionths=2**53 - 1).model_dump_json())["difference_millionths"] == (
        2**53 - 1
    )
    with pytest.raises(ValidationError):
        ShadowCounts.model_validate({"squared_millionths": str(-great)})


FORMER = {"mirrored": 5, "shed": 0, "errors": 0, "compared": 5, "disagreements": 1, "numbers": 5}
"""A shadow's counts as servers wrote them before their sums were whole numbers."""


@pytest.mark.parametrize(
    ("sums", "read"),
    [
        ({"difference": -0.5, "difference_squared": 0.25}, (-500_000, 250_000_000_000)),
        ({"difference": 0.0, "difference_squared": 0}, (0, 0)),
        ({"difference": 1e150, "difference_squared": 1e300}, (int(1e150) * MILLION, int(1e300) * MILLION**2)),
    ],
)
def test_a_window_of_an_older_server_with_a_shadow_is_read(sums: dict[str, float], read: tuple[int, int]) -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC).isoformat()
    old = {"endpoint": "churn", "pod": "pod", "sequence": 1, "generation": 3, "started_at": now, "ended_at": now}
    old |= {"loaded": [1, 2], "versions": {"2": {"requests": 0, "shadow": FORMER | sums}}}
    shadow = Window.model_validate_json(json.dumps(old)).versions[2].shadow
    assert shadow is not None
    assert (shadow.difference_millionths, shadow.squared_millionths) == read
    assert (shadow.disagreements, ShadowCounts.model_validate(shadow.model_dump())) == (1, shadow)


def test_sums_that_are_no_numbers_are_refused_whatever_they_are_called() -> None:
    for wrong in ("x", float("inf"), None):
        with pytest.raises(ValidationError):
            ShadowCounts.model_validate(FORMER | {"difference": wrong})


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


def test_a_window_says_its_pod_s_slot_and_nothing_where_there_is_none() -> None:
    at = datetime(2026, 7, 23, 10, tzinfo=UTC)
    plain = Window(endpoint="churn", pod="p", sequence=1, generation=1, started_at=at, ended_at=at, loaded=[])
    assert "slot" not in json.loads(plain.model_dump_json())
    slotted = plain.model_copy(update={"slot": Slot.GREEN})
    assert json.loads(slotted.model_dump_json())["slot"] == "green"
    for window in (plain, slotted):
        assert Window.model_validate_json(window.model_dump_json()) == window
