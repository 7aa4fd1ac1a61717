"""How often a planted bad slice is found, and how many of the slices found are none.

Run `.venv/bin/python -m benchmarks.slices`. Every data set has 20 numeric columns, counts, flags and text of many
values, which are cut into some 200 slices. Power: a segment is worse by a gap; the bar is 95 % where it has 200 rows
and a gap of twice the policy's. False discoveries: no segment is worse, and any gap counts (the hardest case for the
correction), for classification and for skewed errors of a regression; the bar is 5 %. The peer is the same test
without the correction. Exits 1 where a bar is missed by more than chance explains.
"""

import sys

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.validation.statistics.evidence import Predictions
from shared.validation.statistics.slices import find_slices

TRIALS = 400
CHANCE = 1e-5
ANY_GAP = ValidationPolicy(slice_gap=1e-6)


def _columns(generator: np.random.Generator, rows: int) -> dict[str, NDArray[np.generic]]:
    numbers = [generator.normal(size=rows) for _ in range(16)]
    columns: dict[str, NDArray[np.generic]] = {f"x{i}": column for i, column in enumerate(numbers)}
    columns |= {f"twin{i}": numbers[i] + generator.normal(scale=0.1, size=rows) for i in range(4)}
    columns["count"] = generator.poisson(2.0, rows)
    columns["flag"] = generator.random(rows) < 0.1
    columns["city"] = (generator.pareto(1.0, rows) * 3).clip(0, 100).astype(int).astype(str)
    return columns


def _classified(correct: NDArray[np.bool_]) -> Predictions:
    zeros = np.zeros(len(correct), dtype=np.int64)
    return Predictions(task=Task.CLASSIFICATION, labels=zeros, predicted=(~correct).astype(np.int64), classes=(0, 1))


def _estimated(errors: NDArray[np.float64]) -> Predictions:
    return Predictions(task=Task.REGRESSION, labels=np.zeros((len(errors), 1)), predicted=errors[:, None])


def _power(generator: np.random.Generator) -> bool:
    print("a planted slice: % of data sets in which it is found, of others found beside it")
    print("  rows  slice   gap |   found   others")
    held = True
    for rows, size, gap in ((2_000, 200, 0.2), (10_000, 200, 0.2), (10_000, 500, 0.2), (10_000, 100, 0.3),
                            (10_000, 1_000, 0.15), (50_000, 2_500, 0.12)):  # fmt: skip
        found = others = 0
        for _ in range(TRIALS // 4):
            columns = _columns(generator, rows)
            bad = np.zeros(rows, dtype=bool)
            bad[generator.choice(rows, size, replace=False)] = True
            columns["segment"] = np.where(bad, "planted", "usual")
            correct = generator.random(rows) < np.where(bad, 0.92 - gap, 0.92)
            result = find_slices(_classified(correct), columns, policy=ValidationPolicy())
            hits = [one for one in result.findings if one.found]
            found += any(one.part == "planted" for one in hits)
            others += any(one.column != "segment" for one in hits)
        trials = TRIALS // 4
        is_barred = gap >= 0.2
        misses = is_barred and found < stats.binom.ppf(CHANCE, trials, 0.95)
        held &= not misses
        flag = "  below 95 %" if misses else "" if is_barred else "  (no bar: the gap is near the policy's)"
        print(f"{rows:>6} {size:>6} {gap:>5.2f} | {found / trials:>7.1%} {others / trials:>8.1%}{flag}")
    return held


def _false_discoveries(generator: np.random.Generator) -> bool:
    print(f"\nno bad slice, any gap counts: % of {TRIALS} data sets with one found")
    print("  rows            evidence | corrected   uncorrected")
    held = True
    for rows in (300, 1_000, 5_000):
        for evidence in ("right in 90 %", "right in 50 %", "exponential errors", "lognormal errors"):
            alarms = peer = 0
            for _ in range(TRIALS):
                if evidence.startswith("right"):
                    predictions = _classified(generator.random(rows) < (0.9 if "90" in evidence else 0.5))
                elif evidence.startswith("exponential"):
                    predictions = _estimated(generator.exponential(size=rows))
                else:
                    predictions = _estimated(generator.lognormal(size=rows))
                result = find_slices(predictions, _columns(generator, rows), policy=ANY_GAP)
                alarms += any(one.found for one in result.findings)
                peer += any(one.p_value <= 0.05 for one in result.findings)
            missed = alarms > stats.binom.ppf(1 - CHANCE, TRIALS, 0.05)
            held &= not missed
            flag = "  above 5 %" if missed else ""
            print(f"{rows:>6}  {evidence:>18} | {alarms / TRIALS:>9.1%} {peer / TRIALS:>13.1%}{flag}")
    return held


def main() -> int:
    """Run both; 0 where both bars are met."""
    generator = np.random.default_rng(16)
    held = [_power(generator), _false_discoveries(generator)]
    print("\nboth bars are met" if all(held) else "\na bar is missed")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
