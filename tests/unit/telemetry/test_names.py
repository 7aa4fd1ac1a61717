"""Names of windows: whatever minutes are asked for, the prefixes find those of them, each once, and no others."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.telemetry.names import MINUTE, minute_of, place_of, prefixes, window_name

MIDNIGHT = datetime(2026, 11, 21, tzinfo=UTC)
MINUTES = [MIDNIGHT + MINUTE * n for n in range(-90, 300)]
TIMES = st.integers(min_value=0, max_value=200 * 60).map(lambda s: MIDNIGHT + timedelta(seconds=s))


@given(since=TIMES, length_s=st.integers(min_value=0, max_value=90 * 60))
def test_each_window_of_the_minutes_asked_for_is_found_by_one_prefix(since: datetime, length_s: int) -> None:
    until = since + timedelta(seconds=length_s)
    asked = list(prefixes("m", since, until))
    for at in MINUTES:
        name = window_name("m", at, "p", 0)
        is_asked = minute_of(since) <= at <= until
        assert sum(name.startswith(prefix) for prefix in asked) == is_asked, (name, asked)
    assert len(asked) <= 40


def test_prefixes_are_in_the_order_of_time_and_as_wide_as_may_be() -> None:
    asked = prefixes("m", MIDNIGHT + 49 * MINUTE, MIDNIGHT + 131 * MINUTE)
    assert list(asked) == [
        "m/2026-11-21T00/",
        "m/2026-11-21T00-49/",
        "m/2026-11-21T00-5",
        "m/2026-11-21T01",
        "m/2026-11-21T02/",
        "m/2026-11-21T02-0",
        "m/2026-11-21T02-10/",
        "m/2026-11-21T02-11/",
    ]


def test_a_window_s_name_tells_its_pod_and_sequence() -> None:
    assert place_of(window_name("m/features", MIDNIGHT, "pod-1a-0", 12)) == ("pod-1a-0", 12)
    assert [place_of(name) for name in ("m/x.json", "m/-1.json", "m/p-x.json", "m/p-\u0663.json")] == [None] * 4
