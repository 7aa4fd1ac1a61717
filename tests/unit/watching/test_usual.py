"""Chance is judged by the version's own healthy windows: where they differ, one that differs as much is no drift."""

from datetime import UTC, datetime, timedelta

import numpy as np

from shared.core.verdict import Outcome
from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile
from shared.watching.assessing import Seen, assess
from shared.watching.report import Quality

AT = datetime(2026, 11, 21, tzinfo=UTC)
ROWS = 600
LEVELS = 0.6
"""Standard deviations by which an hour's mean is off that of all hours."""


def hour_of(profile: Profile, rng: np.random.Generator, *levels: float) -> FeatureCounts:
    """Rows of an hour, each column moved."""
    tally = FeatureTally(profile)
    tally.saw({"x": rng.normal(size=(ROWS, 3)) + np.array(levels)}, ROWS)
    return tally.take()


def outcome(profile: Profile, hour: FeatureCounts, healthy: list[FeatureCounts]) -> tuple[Outcome, tuple[str, ...]]:
    """What is found in an hour, and the features that drifted."""
    seen = Seen(
        model="m",
        endpoint="m",
        version=1,
        role="stable",
        since=AT - timedelta(hours=1),
        until=AT,
        profile=profile,
        hours={AT - timedelta(hours=1): hour},
        first=AT - timedelta(days=3),
        healthy=healthy,
        quality=Quality(hours=1, hours_with_rows=1, windows=1, left_out=0, healthy_windows=len(healthy)),
    )
    found = assess(seen, DriftPolicy(span_h=1)).details
    return found.verdicts[0].outcome, tuple(one.name for one in found.features if one.drifted)


def test_an_hour_as_uneven_as_healthy_ones_are_is_no_drift_and_one_far_beyond_them_is() -> None:
    rng = np.random.default_rng(4)
    # The reference is of all hours: it has their levels in it.
    rows = rng.normal(size=(6_000, 3)) + np.repeat(rng.normal(0.0, LEVELS, (60, 3)), 100, axis=0)
    profile = profile_of({"x": rows}, {}, names={"x": ("a", "b", "c")})
    assert profile is not None
    healthy = [hour_of(profile, rng, *rng.normal(0.0, LEVELS, 3)) for _ in range(30)]
    uneven = hour_of(profile, rng, 1.3 * LEVELS, -0.3 * LEVELS, 0.1)
    assert outcome(profile, uneven, []) == (Outcome.FAIL, ("a",))
    assert outcome(profile, uneven, healthy)[0] is Outcome.PASS
    found, drifted = outcome(profile, hour_of(profile, rng, 0.0, 8 * LEVELS, 0.0), healthy)
    assert (found, drifted[0]) == (Outcome.FAIL, "b")
