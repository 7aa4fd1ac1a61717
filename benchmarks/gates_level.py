"""How often the test of error and slow rates calls equal versions different, over tens of thousands of rollouts.

Run `.venv/bin/python -m benchmarks.gates_level [ROLLOUTS]`; 2,500 a setting by default, 24 settings, one process. The
settings are those of benchmarks/gates.py: error rates, shares, loads of ten to 10,000 requests a tick, a season in both
versions; 40 looks, one each tick. That runs rollouts through all of their code, this the tests that the level is of,
for many rollouts at once: `ManyTests` bets as shared.sequential.excess does, number for number
(tests/unit/sequential/test_level.py). Exits 1 where more are taken back than the level says.
"""

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.gates import CHANCE, LEVEL, LOOKS, RATES
from shared.sequential import excess
from shared.sequential.excess import Claim, ExcessTest
from shared.validation.statistics.intervals import wilson

ROLLOUTS = 2_500
SLOW = 0.01
"""The share of slow answers."""
SHARES = {"10 %": (1_000,) * LOOKS, "50 %": (5_000,) * LOOKS, "10, 50 %": (1_000,) * 10 + (5_000,) * (LOOKS - 10)}

type Floats = NDArray[np.float64]
type Counts = NDArray[np.int64]


class ManyTests:
    """Tests that the candidate is worse, margin 0, of many rollouts at once. Counts are of shape [rollouts, 4]."""

    def __init__(self, rollouts: int) -> None:
        stakes = len(ExcessTest(claim=Claim.WORSE, margin=0.0).state.log_stakes)
        self._log_share = -np.log(stakes)
        self._fixed = np.array([(p1, p2) for p2 in excess._LEVELS for p1 in excess._LEVELS if p1 > p2])  # noqa: SLF001 - the same bets
        self._log_stakes = np.full((rollouts, stakes), np.log(0.5) + self._log_share)
        self._blocks = np.zeros(rollouts)
        self._remembered = np.zeros((rollouts, 4))
        self._pending = np.zeros((rollouts, 4), dtype=np.int64)
        self.log_peak: Floats = np.zeros(rollouts)

    def add(self, counts: Counts) -> None:
        """Requests and failures of the candidate, requests and failures of stable, of a block of each rollout."""
        self._pending += counts
        ready = np.flatnonzero((self._pending[:, 0] > 0) & (self._pending[:, 2] > 0))
        block = self._pending[ready].astype(np.float64)
        self._pending[ready] = 0
        self._blocks[ready] += 1
        self._log_stakes[ready] += _log_factors(block, *self._alternatives(ready))
        remembered = self._remembered[ready] + block
        remembered[remembered[:, 0] + remembered[:, 2] > excess._MEMORY_REQUESTS] /= 2  # noqa: SLF001
        self._remembered[ready] = remembered
        blocks = self._blocks[ready]
        share = 0.5 / np.log2(blocks + 1) - 0.5 / np.log2(blocks + 2)
        self._log_stakes[ready] = np.logaddexp(self._log_stakes[ready], (np.log(share) + self._log_share)[:, None])
        kept = np.log(0.5 / np.log2(blocks + 2))
        evidence = np.logaddexp(kept, np.logaddexp.reduce(self._log_stakes[ready], axis=1))
        self.log_peak[ready] = np.maximum(self.log_peak[ready], evidence)

    def _alternatives(self, ready: Counts) -> tuple[Floats, Floats]:
        """Both rates of each alternative, [ready rollouts, stakes]."""
        n1, failed1, n2, failed2 = self._remembered[ready].T
        p1, p2 = _rate(n1, failed1), _rate(n2, failed2)
        odds = (p2 / (1 - p2))[:, None]
        beyond = _within(1 / (1 + np.exp(-np.array(excess._LOG_ODDS)) / odds))  # noqa: SLF001
        first = np.hstack([np.tile(self._fixed[:, 0], (len(ready), 1)), p1[:, None], beyond])
        second = np.hstack(
            [np.tile(self._fixed[:, 1], (len(ready), 1)), np.repeat(p2[:, None], 1 + beyond.shape[1], 1)]
        )
        return first, second


def _rate(requests: Floats, failed: Floats) -> Floats:
    return _within((failed + excess._PRIOR_FAILED) / (requests + excess._PRIOR_REQUESTS))  # noqa: SLF001


def _within(rate: Floats) -> Floats:
    return np.clip(rate, excess._LEAST_RATE, 1 - excess._LEAST_RATE)  # noqa: SLF001


def _log_factors(block: Floats, p1: Floats, p2: Floats) -> Floats:
    """As shared.sequential.evariable.log_factor, margin 0."""
    n1, failed1, n2, failed2 = (each[:, None] for each in block.T)
    n = n1 + n2
    q = (n1 * p1 + n2 * p2) / n
    good_q = np.log1p(-q)
    found = (n1 - failed1) * (np.log1p(-p1) - good_q) + failed1 * np.log(p1 / q)
    found += (n2 - failed2) * (np.log1p(-p2) - good_q) + failed2 * np.log(p2 / q)
    none1, none2, all1, all2 = (1 - p1) / (1 - q), (1 - p2) / (1 - q), p1 / q, p2 / q
    largest = np.maximum(n1 * none1 + n2 * none2, np.maximum(n1 * all1 + n2 * all2, n1 * none1 + n2 * all2))
    result: Floats = np.where(p1 > p2, found - n * np.log(largest / n), 0.0)
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Rollouts of equal versions."""

    rate: float
    share: str
    is_seasonal: bool


def proven(setting: Setting, rollouts: int) -> tuple[int, int]:
    """Of how many rollouts the errors, or the slow answers, are proven worse at some look."""
    draw = np.random.default_rng([31, round(setting.rate * 1e6), len(setting.share), setting.is_seasonal])
    load = 10 ** draw.uniform(1, 4, rollouts)
    errors, slow = ManyTests(rollouts), ManyTests(rollouts)
    for look, weight_bp in enumerate(SHARES[setting.share]):
        # Up to three times the trouble.
        height = 1 + (1 - np.cos(2 * np.pi * look / 20)) * setting.is_seasonal
        requests = draw.poisson(load)
        candidate = draw.binomial(requests, weight_bp / 10_000)
        arms = (candidate, requests - candidate)
        failed = [draw.binomial(arm, setting.rate * height) for arm in arms]
        late = [draw.binomial(arm - bad, SLOW * height) for arm, bad in zip(arms, failed, strict=True)]
        errors.add(np.column_stack([arms[0], failed[0], arms[1], failed[1]]))
        slow.add(np.column_stack([arms[0] - failed[0], late[0], arms[1] - failed[1], late[1]]))
    needed = -np.log(LEVEL / 2)
    by_errors, by_slow = errors.log_peak >= needed, slow.log_peak >= needed
    return int(by_errors.sum()), int((by_errors | by_slow).sum())


def main() -> int:
    """Print the table; 0 where no setting has more than the level says, beyond chance."""
    from scipy import stats  # noqa: PLC0415

    rollouts = int(sys.argv[1]) if len(sys.argv) > 1 else ROLLOUTS
    limit = stats.binom.ppf(1 - CHANCE, rollouts, LEVEL)
    held, total = True, [0, 0]
    print(f"equal versions, {rollouts} rollouts a setting, {LOOKS} looks: % proven worse at some look (95 % Wilson)")
    for rate in RATES:
        for share in SHARES:
            for is_seasonal in (False, True):
                by_errors, by_either = proven(Setting(rate=rate, share=share, is_seasonal=is_seasonal), rollouts)
                low, high = wilson(by_either, rollouts)
                held &= bool(by_either <= limit)
                total[0], total[1] = total[0] + by_either, total[1] + rollouts
                print(
                    f"{rate:>6.1%} errors, share {share:>8}{', a season in both' if is_seasonal else '':<18} | "
                    f"{by_either / rollouts:>6.2%} ({low:.2%} to {high:.2%}), by errors {by_errors / rollouts:.2%}",
                    flush=True,
                )
    low, high = wilson(total[0], total[1])
    print(f"all {total[1]}: {total[0] / total[1]:.2%} ({low:.2%} to {high:.2%})")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
