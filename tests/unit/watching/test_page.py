"""The page of a drift report: it shows what the report says, escapes all that came from outside, and asks for nothing
from elsewhere.
"""

import re
from datetime import UTC, datetime, timedelta

import numpy as np

from shared.drift.calibration import Realised
from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.featuretally import FeatureTally
from shared.watching.assessing import Seen, assess
from shared.watching.page import render_html
from shared.watching.report import DriftDetails, Performance, Quality

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


def moved(trend: tuple[float, ...] = (0.5, 3.0)) -> DriftDetails:
    """Two hours of two inputs, of which `far` moved more than `near`, and some of `far` are missing."""
    rng = np.random.default_rng(2)
    profile = profile_of({"x": rng.normal(size=(4_000, 2))}, {}, names={"x": ("near", "far")})
    assert profile is not None
    hours = {}
    for at, by in enumerate(trend):
        table = rng.normal(size=(500, 2)) + np.array([0.6 * by, by])
        table[:50, 1] = np.nan
        tally = FeatureTally(profile)
        tally.saw({"x": table}, 500)
        hours[AT - timedelta(hours=2 - at)] = tally.take()
    quality = Quality(hours=2, hours_with_rows=2, windows=2, left_out=0, healthy_windows=0)
    seen = Seen(
        model="m",
        endpoint="m",
        version=3,
        role="stable",
        since=AT - timedelta(hours=2),
        until=AT,
        profile=profile,
        hours=hours,
        quality=quality,
    )
    return assess(seen, DriftPolicy(span_h=2)).details


def section(page: str, begins: str) -> str:
    """A part of the page, from an element to the next heading."""
    return page.split(begins, 1)[1].split("<h2", 1)[0]


def heights(plot: str, kind: str) -> list[float]:
    """Of the bars of a kind in a plot."""
    return [float(height) for height in re.findall(rf'height="([\d.]+)" class="{kind}"', plot)]


def test_the_inputs_stand_in_the_order_of_blame() -> None:
    report = moved()
    page = render_html(report, limit=0.2)
    assert report.ranked[0] == "far"
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", section(page, '<h2 id="ranked">'))
    assert captions[: len(report.ranked)] == list(report.ranked)
    table = section(page, "<h2>Against the reference data</h2>")
    assert re.findall(r"<tr><td>(.*?)</td>", table)[: len(report.ranked)] == list(report.ranked)


def test_each_distribution_shows_the_reference_s_shares_beside_the_traffic_s() -> None:
    report = moved()
    page = render_html(report, limit=0.2)
    figures = next(one for one in report.features if one.name == "far")
    plot = re.search(r"<figure>((?:(?!</figure>).)*)<figcaption>far</figcaption>", page, re.DOTALL)
    assert plot is not None
    sides = [heights(plot[1], kind) for kind in ("reference", "validation")]
    shares = [np.array(side) / sum(side) for side in (figures.reference, figures.actual)]
    top = max(share.max() for share in shares)
    for found, wanted in zip(sides, shares, strict=True):
        np.testing.assert_allclose(found, 150 * wanted / top, atol=0.06)
    assert sides[0] != sides[1]


def test_the_trend_has_each_hour_s_psi_and_rows() -> None:
    report = moved()
    part = section(render_html(report, limit=0.2), '<h2 id="trend">')
    plot = re.search(r'aria-label="PSI of far by hour".*?points="([^"]*)"', part, re.DOTALL)
    assert plot is not None
    psi = [point.psi["far"] for point in report.trend]
    assert psi[0] < psi[1]
    heights_up = [110 - float(point.split(",")[1]) for point in plot[1].split()]
    np.testing.assert_allclose(heights_up, [110 * value / max(psi) for value in psi], atol=0.06)
    assert f"{psi[-1]:.3g} at the end" in part
    assert part.count(": 500 rows</title>") == 2


def test_verdicts_stand_with_their_figures_and_what_is_missing_with_its_share() -> None:
    report = moved()
    page = render_html(report, limit=0.2)
    (verdict,) = report.verdicts
    assert f'<td class="chip {verdict.outcome}">{verdict.outcome}' in page
    assert verdict.sentence.split(":")[0] in section(page, "<h2>Verdicts</h2>")
    quality = section(page, '<h2 id="quality">')
    assert re.search(r"<tr><td>far</td><td class=\"number\">10.00%</td>", quality)
    assert "<td>near</td>" not in quality


def test_performance_shows_both_sources_the_delay_and_each_day_s_estimate_beside_its_labels() -> None:
    days = tuple(
        Realised(estimate=0.9, estimate_error=0.01, realised=by, realised_error=0.01, labels=1_200)
        for by in (0.8125, 0.8875)
    )
    performance = Performance(
        measure="accuracy",
        level=0.9321,
        estimate=0.8765,
        interval=(0.8512, 0.9018),
        realised=0.8642,
        realised_interval=(0.8433, 0.8851),
        labels=1_234,
        delay_s=95.0,
        calibration="in 2 windows: does not gate",
        history=days,
    )
    report = moved().model_copy(update={"performance": performance})
    part = section(render_html(report, limit=0.2), '<h2 id="performance">')
    for said in (
        "accuracy 0.9321",
        "0.8765 (0.8512 to 0.9018)",
        "by 1,234 labels",
        "0.8642 (0.8433 to 0.8851), half of which came within about 95 s",
        "in 2 windows: does not gate",
    ):
        assert said in part
    rows = [re.findall(r">([^<]+)</td>", row) for row in part.split('<tr class="day">')[1:]]
    assert rows == [["1,200", "0.9", "0.8125", "0.0875"], ["1,200", "0.9", "0.8875", "0.0125"]]
