"""The short form of benchmarks/gates.py: rollouts through their ticks, of versions that are alike and of worse ones."""

import numpy as np
import pytest
from scipy import stats

from benchmarks import gates_dependence
from benchmarks.gates import CHANCE, LEVEL, SHARES, Ended, Traffic, Version, canary, equal, rolled_out, settings
from shared.registry.rollout_policy import GateName

ERRORS, LATENCY = {GateName.ERROR_RATE}, {GateName.SLOW_RATE, GateName.P99_MS}


def test_versions_that_are_alike_are_rarely_taken_back_though_looked_at_on_every_tick() -> None:
    # Every rate, share and season is among them.
    ended = [equal(setting, seed=seed) for setting in list(settings())[::5] for seed in range(2)]
    # At 5 % each, ten rollouts see more than two false aborts once in a hundred times.
    assert sum(bool(end.failed) for end in ended) <= 2
    assert all(end.looks > 10 for end in ended if not end.failed)


def taken_back(candidate: Version, *, is_seasonal: bool = False) -> Ended:
    draw = np.random.default_rng(4)
    traffic = Traffic(
        candidate=candidate, stable=Version(error_rate=0.001), load=1_000, is_seasonal=is_seasonal, draw=draw
    )
    return rolled_out(traffic, canary(SHARES[0]))


@pytest.mark.parametrize(
    ("candidate", "checks", "most"),
    [
        (Version(error_rate=0.5), ERRORS, 200),
        (Version(error_rate=0.05), ERRORS, 500),
        (Version(error_rate=0.01), ERRORS, 3_000),
        (Version(error_rate=0.001, slower=2.0), LATENCY, 500),
        (Version(error_rate=0.001, tail_slower=2.0), LATENCY, 4_000),
    ],
)
@pytest.mark.parametrize("is_seasonal", [False, True])
def test_a_worse_version_is_taken_back_within_so_many_of_its_requests(
    candidate: Version, checks: set[GateName], most: int, *, is_seasonal: bool
) -> None:
    ended = taken_back(candidate, is_seasonal=is_seasonal)
    assert ended.failed in checks
    assert ended.requests <= most


def test_a_season_in_both_takes_nothing_back() -> None:
    assert not taken_back(Version(error_rate=0.001), is_seasonal=True).failed


@pytest.mark.long
def test_in_each_setting_and_in_all_no_more_are_taken_back_than_the_level_says() -> None:
    found, each = list(settings()), 30
    false = {setting.name: sum(bool(equal(setting, seed).failed) for seed in range(each)) for setting in found}
    # By chance alone, at 5 % each, one run in 100,000 would see more.
    assert sum(false.values()) <= stats.binom.ppf(1 - CHANCE, each * len(found), LEVEL), false
    assert max(false.values()) <= stats.binom.ppf(1 - CHANCE, each, LEVEL), false


def test_stalls_that_touch_both_versions_take_nothing_back() -> None:
    assert not gates_dependence.taken_back(lambda draw: gates_dependence.Stalls(draw=draw), 0.0, 8)
