"""The page of a drift report: all that came from outside is escaped, and it asks for nothing from elsewhere."""

import re
from datetime import UTC, datetime, timedelta

import numpy as np

from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.featuretally import FeatureTally
from shared.watching.assessing import Seen, assess
from shared.watching.page import render_html
from shared.watching.report import DriftDetails, Quality

EVIL = "<script>alert(1)</script>"
AT = datetime(2026, 11, 21, tzinfo=UTC)


def details(rows: int) -> DriftDetails:
    rng = np.random.default_rng(1)
    texts = np.array([EVIL, "b\"'><img src=x>"])[rng.integers(0, 2, (400, 1))]
    profile = profile_of({"x": rng.normal(size=(400, 1)), "t": texts}, {}, names={"x": (EVIL,)})
    assert profile is not None
    tally = FeatureTally(profile)
    if rows:
        tally.saw({"x": rng.normal(3.0, 1.0, (rows, 1)), "t": np.array([[EVIL]] * rows)}, rows)
    counts = tally.take()
    quality = Quality(hours=2, hours_with_rows=2, windows=2, left_out=1, healthy_windows=0)
    seen = Seen(
        model="m",
        endpoint="m",
        version=3,
        role="stable",
        since=AT - timedelta(hours=2),
        until=AT,
        profile=profile,
        hours={AT - timedelta(hours=2): counts, AT - timedelta(hours=1): counts} if rows else {},
        quality=quality,
    )
    return assess(seen, DriftPolicy()).details


def test_names_and_categories_are_escaped_and_nothing_is_fetched() -> None:
    page = render_html(details(300), limit=0.2)
    assert EVIL not in page
    assert "<img" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not re.search(r"(?:src|href)=\"?http|<script|@import|url\(", page)
    assert page.count("<svg") >= 5
    assert "of which 1 could not be used" in page


def test_a_report_of_nothing_has_a_page_too() -> None:
    page = render_html(details(0), limit=None)
    assert "no rows of version 3 were counted" in page
    assert "<svg" not in page
