"""How often the test of two error rates trips an equal candidate, and how soon it trips a worse one.

Run `.venv/bin/python -m benchmarks.guard [TRIALS]`; 10,000 trials a setting by default. First, equal arms, looked at
after every block, blocks growing from 10 requests to thousands; a share of false trips above its level by more than
chance explains (one in 100,000) exits 1. Then, against a stable that fails one request in 1,000, how many requests of
the candidate it takes until the guard trips at level 0.001. Beside it what Argo Rollouts and Flagger do: a threshold on
the candidate's rate, a rollback after three failed checks in a row. The peer knows stable's true rate; its threshold is
the lowest that keeps false trips over a day of checks, one a minute, at the guard's level; its check is as long as
serves it best. Last, what that threshold does where both arms fail one request in 50 for an hour.
"""

import functools
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy import stats

from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessTest
from shared.validation.statistics.intervals import wilson

TRIALS, WORSE_TRIALS = 10_000, 200
SIZES = tuple(round(10 * 1.35**step) for step in range(20))
LEVELS = (0.05, 0.001)
CHANCE = 1e-5
RATES, SHARES = (0.0, 0.001, 0.01, 0.05, 0.2, 0.5), (0.01, 0.05, 0.2, 0.5)
STABLE_RATE, CHECKS = 0.001, 1_440
CHECK_SIZES = (10, 20, 50, 100, 200, 500, 1_000, 2_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """Equal arms: for each block its size, the candidate's share, and the rates of its two halves."""

    name: str
    blocks: tuple[tuple[int, float, float, float], ...]


def _settings() -> Iterator[Equal]:
    for rate in RATES:
        for share in SHARES:
            blocks = tuple((size, share, rate, rate) for size in SIZES)
            yield Equal(name=f"{rate:>6.1%} errors, share {share:>4.0%}", blocks=blocks)
    wave = [0.001 + 0.1 * (1 + math.sin(place)) for place in range(len(SIZES) + 1)]
    drifting = tuple((size, 0.05, wave[i], wave[i + 1]) for i, size in enumerate(SIZES))
    yield Equal(name="both drift, within blocks too", blocks=drifting)
    ramped = tuple((size, (0.01, 0.5)[i % 2], wave[i], wave[i]) for i, size in enumerate(SIZES))
    yield Equal(name="both drift, share 1 and 50 %", blocks=ramped)
    uneven = tuple(((5, 5_000)[i % 2], 0.2, 0.02, 0.02) for i in range(len(SIZES)))
    yield Equal(name="blocks of 5 and 5,000 in turn", blocks=uneven)
    outages = tuple((size, 0.05, float(i % 5 == 4), float(i % 5 == 4)) for i, size in enumerate(SIZES))
    yield Equal(name="an outage every fifth block", blocks=outages)


def _false_trips(setting: Equal, trials: int) -> list[int]:
    generator = np.random.default_rng([14, *setting.name.encode()])
    trips = [0] * len(LEVELS)
    columns = []
    for size, share, *rates in setting.blocks:
        first = generator.binomial((size + 1) // 2, share, trials)
        second = generator.binomial(size // 2, share, trials)
        failed = generator.binomial(first, rates[0]) + generator.binomial(second, rates[1])
        stable_failed = generator.binomial((size + 1) // 2 - first, rates[0])
        stable_failed += generator.binomial(size // 2 - second, rates[1])
        columns.append(np.stack([first + second, failed, size - first - second, stable_failed], axis=1))
    for trial in np.stack(columns, axis=1).tolist():
        test = ExcessTest(claim=Claim.WORSE, margin=0.0)
        for candidate, candidate_failed, stable, stable_failed in trial:
            test.add(
                Block(
                    candidate=candidate, candidate_failed=candidate_failed, stable=stable, stable_failed=stable_failed
                )
            )
        for place, level in enumerate(LEVELS):
            trips[place] += test.proves(level)
    return trips


def _calibration(pool: ProcessPoolExecutor, trials: int) -> bool:
    print(f"equal arms, {trials} simulations a setting, {len(SIZES)} looks: % that trip (95 % Wilson interval)")
    print("                              | " + "   ".join(f"{f'level {level:.1%}':>20}" for level in LEVELS))
    limits = [stats.binom.ppf(1 - CHANCE, trials, level) for level in LEVELS]
    held = True
    settings = list(_settings())
    for setting, trips in zip(settings, pool.map(_false_trips, settings, [trials] * len(settings)), strict=True):
        cells = []
        for false, limit in zip(trips, limits, strict=True):
            low, high = wilson(false, trials)
            cells.append(f"{false / trials:>6.2%} ({low:.2%}-{high:.2%}){'' if false <= limit else ' ABOVE'}")
            held &= bool(false <= limit)
        print(f"{setting.name:<29} | " + "   ".join(cells), flush=True)
    return held


def _requests_until_trip(rate: float, share: float, seed: int, level: float = 0.001) -> int:
    """The candidate's requests until the guard trips; blocks of 20 requests."""
    generator = np.random.default_rng(seed)
    test = ExcessTest(claim=Claim.WORSE, margin=0.0)
    while not test.proves(level):
        candidate = int(generator.binomial(20, share))
        test.add(
            Block(
                candidate=candidate,
                candidate_failed=int(generator.binomial(candidate, rate)),
                stable=20 - candidate,
                stable_failed=int(generator.binomial(20 - candidate, STABLE_RATE)),
            )
        )
    return test.total.candidate


def _trips_within(failing: float, checks: int) -> float:
    """The chance of three failed checks in a row within so many."""
    states = np.array([1.0, 0.0, 0.0, 0.0])
    step = np.zeros((4, 4))
    step[:3, 0] = 1 - failing
    step[[0, 1, 2], [1, 2, 3]] = failing
    step[3, 3] = 1.0
    return float((states @ np.linalg.matrix_power(step, checks))[3])


@functools.cache
def _threshold(size: int, level: float) -> int:
    """The fewest failures in a check of so many requests that may fail it."""
    failures = 1
    while _trips_within(float(stats.binom.sf(failures - 1, size, STABLE_RATE)), CHECKS) > level:
        failures += 1
    return failures


def _peer(rate: float, level: float = 0.001) -> tuple[float, int]:
    """Mean requests until the threshold trips, and the check's size at which they are fewest."""
    found = []
    for size in CHECK_SIZES:
        failing = float(stats.binom.sf(_threshold(size, level) - 1, size, rate))
        if failing > 0:
            found.append((size * (1 - failing**3) / ((1 - failing) * failing**3) if failing < 1 else 3.0 * size, size))
    return min(found)


def _power(pool: ProcessPoolExecutor) -> None:
    print(f"\nrequests of the candidate until it trips at level 0.001, stable fails {STABLE_RATE:.1%}")
    print("candidate fails   share | guard: median    mean    90 % | three failed checks: mean (best check)")
    for rate in (0.01, 0.02, 0.05, 0.2, 1.0):
        peer, size = _peer(rate)
        for share in (0.05, 0.2):
            seeds = range(WORSE_TRIALS)
            found = list(pool.map(_requests_until_trip, [rate] * len(seeds), [share] * len(seeds), seeds, chunksize=10))
            median, late = np.quantile(found, [0.5, 0.9])
            print(
                f"{rate:>15.0%} {share:>7.0%} | {median:>13.0f} {np.mean(found):>7.0f} {late:>7.0f} |"
                f" {peer:>25.0f} ({size})",
                flush=True,
            )


def _season() -> None:
    print(
        "\nwhere both arms fail one request in 50 for 60 checks: % that the tuned threshold takes back (guard: above)"
    )
    for size in CHECK_SIZES:
        failures = _threshold(size, 0.001)
        tripped = _trips_within(float(stats.binom.sf(failures - 1, size, 0.02)), 60)
        print(f"  checks of {size:>5} requests, at least {failures} failed: {tripped:.1%}")


def main() -> int:
    """Run all; 0 where no equal candidate trips more often than the level says."""
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    with ProcessPoolExecutor(2) as pool:
        held = _calibration(pool, trials)
        _power(pool)
    _season()
    print("\nthe levels hold" if held else "\na level does not hold")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
