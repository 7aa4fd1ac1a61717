"""What the gates do with equal versions whose requests do not fail each for itself.

Run `.venv/bin/python -m benchmarks.gates_dependence [ROLLOUTS]`; 100 a row by default, one process. Each is a canary at
10 % of 1,000 requests a tick, looked at 40 times, with every default gate and trigger (benchmarks/gates.py). In the
mean one request in 200 fails, and one in 200 is slow:

- stalls of both: one tick in twenty has all the trouble, whichever version answers. The tests allow for that;
- in runs: a failure or a slow answer brings others of the same version with it (a caller that tries again and stays
  with its version), so many in the mean. The tests take for granted that it does not;
- by subject: 500 subjects, of which some ask for most of the answers (lognormal, sigma 1.5) and one in twenty has all
  the trouble, whichever version answers; a subject stays with its version. The tests take that for granted too.

Told is the share of rollouts that are taken back, by the margins `error_harm` and `slow_harm` of the policy.
"""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.gates import CANDIDATE, STABLE, Source, canary, rolled_out
from shared.registry.rollout_policy import Gates
from shared.routing.plan import FULL_WEIGHT_BP
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import VersionCounts
from shared.validation.statistics.intervals import wilson

ROLLOUTS, LOAD, SHARE_BP, RATE = 100, 1_000, 1_000, 0.005
MARGINS = (0.0, 0.01, 0.05)
_FAST, _SLOW = bucket_index(60.0), bucket_index(400.0)


def counts(requests: int, failed: int, slow: int) -> VersionCounts:
    """Counts of a version, as far as so many can have failed and been slow."""
    failed = min(failed, requests)
    slow = min(slow, requests - failed)
    fast = requests - failed - slow
    return VersionCounts(
        requests=requests,
        errors=failed,
        latency_ms={bucket: count for bucket, count in ((_FAST, fast), (_SLOW, slow)) if count},
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """Troubles come in runs, of `mean` in the mean (geometric)."""

    mean: float
    draw: np.random.Generator

    def tick(self, look: int, weight_bp: int) -> dict[int, VersionCounts]:
        """As benchmarks.gates.Source."""
        del look
        requests = int(self.draw.poisson(LOAD))
        asked = int(self.draw.binomial(requests, weight_bp / FULL_WEIGHT_BP))
        sides = {CANDIDATE: asked, STABLE: requests - asked}
        return {version: counts(n, self._trouble(n), self._trouble(n)) for version, n in sides.items()}

    def _trouble(self, requests: int) -> int:
        runs = self.draw.poisson(requests * RATE / self.mean)
        return int(self.draw.geometric(1 / self.mean, runs).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stalls:
    """Troubles come to both versions at once, in one tick of twenty."""

    draw: np.random.Generator

    def tick(self, look: int, weight_bp: int) -> dict[int, VersionCounts]:
        """As benchmarks.gates.Source."""
        del look
        requests = int(self.draw.poisson(LOAD))
        asked = int(self.draw.binomial(requests, weight_bp / FULL_WEIGHT_BP))
        rate = 20 * RATE if self.draw.random() < 1 / 20 else 0.0
        sides = {CANDIDATE: asked, STABLE: requests - asked}
        return {
            version: counts(n, int(self.draw.binomial(n, rate)), int(self.draw.binomial(n, rate)))
            for version, n in sides.items()
        }


class Subjects:
    """Subjects that keep their version, some of which have all the trouble."""

    def __init__(self, draw: np.random.Generator) -> None:
        self._draw = draw
        asks = draw.lognormal(0.0, 1.5, 500)
        self._asks = asks / asks.sum()
        self._place = draw.random(500)
        self._trouble = np.where(np.arange(500) % 20 == 0, 20 * RATE, 0.0)

    def tick(self, look: int, weight_bp: int) -> dict[int, VersionCounts]:
        """As benchmarks.gates.Source."""
        del look
        requests = self._draw.multinomial(self._draw.poisson(LOAD), self._asks)
        failed = self._draw.binomial(requests, self._trouble)
        slow = self._draw.binomial(requests - failed, self._trouble)
        is_candidate = self._place < weight_bp / FULL_WEIGHT_BP
        return {
            CANDIDATE: _of(is_candidate, requests, failed, slow),
            STABLE: _of(~is_candidate, requests, failed, slow),
        }


def _of(side: NDArray[np.bool_], *found: NDArray[np.int64]) -> VersionCounts:
    requests, failed, slow = (int(each[side].sum()) for each in found)
    return counts(requests, failed, slow)


def taken_back(make: Callable[[np.random.Generator], Source], margin: float, rollouts: int) -> Counter[str]:
    """How many rollouts of equal versions are taken back, by the check that failed."""
    policy = canary(SHARE_BP, Gates(error_harm=margin, slow_harm=margin))
    ended = (rolled_out(make(np.random.default_rng([29, seed])), policy) for seed in range(rollouts))
    return Counter(end.failed for end in ended if end.failed)


def main() -> int:
    """Print the table."""
    rollouts = int(sys.argv[1]) if len(sys.argv) > 1 else ROLLOUTS
    rows: dict[str, Callable[[np.random.Generator], Source]] = {
        "each for itself": lambda draw: Runs(mean=1.0, draw=draw),
        "stalls of both": lambda draw: Stalls(draw=draw),
        "runs of 3": lambda draw: Runs(mean=3.0, draw=draw),
        "runs of 10": lambda draw: Runs(mean=10.0, draw=draw),
        "by subject": Subjects,
    }
    print(f"% of {rollouts} rollouts of equal versions taken back (95 % Wilson interval), by margin")
    for name, make in rows.items():
        for margin in MARGINS:
            failed = taken_back(make, margin, rollouts)
            false = failed.total()
            low, high = wilson(false, rollouts)
            print(
                f"{name:<16} | {margin:.1%} | {false / rollouts:>6.1%} ({low:.1%} to {high:.1%}) {dict(failed)}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
