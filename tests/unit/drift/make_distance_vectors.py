"""Writes distance_vectors.json: counts in bins with the distances that scipy gives, or the formula where it has none.

Run `.venv/bin/python -m tests.unit.drift.make_distance_vectors`.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from scipy import stats
from scipy.spatial import distance

VECTORS = Path(__file__).with_name("distance_vectors.json")


def case_of(name: str, reference: list[int], actual: list[int], positions: list[float]) -> dict[str, Any]:
    """A case with what each distance is to give."""
    p, q = (np.array(side) / sum(side) for side in (reference, actual))
    samples = [np.repeat(positions, side) for side in (reference, actual)]
    wanted = {
        "psi": _psi(reference, actual, 0.5),
        "jensen_shannon": float(distance.jensenshannon(p, q, base=2)),
        "hellinger": math.sqrt(0.5 * sum((math.sqrt(a) - math.sqrt(b)) ** 2 for a, b in zip(p, q, strict=True))),
        "kolmogorov_smirnov": float(stats.ks_2samp(*samples).statistic),
        "wasserstein": float(stats.wasserstein_distance(*samples)),
    }
    if min(*reference, *actual):
        wanted["psi_without_pseudocount"] = _psi(reference, actual, 0.0)
    pooled = np.array(reference) + np.array(actual)
    if (pooled * min(sum(reference), sum(actual)) / pooled.sum() >= 5).all():
        tested = stats.chi2_contingency([reference, actual], correction=False)
        wanted |= {"chi_square": float(tested.statistic), "p_value": float(tested.pvalue)}
        noise = stats.chi2.ppf(0.95, len(reference) - 1) * (1 / sum(reference) + 1 / sum(actual))
        wanted["psi_noise"] = float(noise)
    return {"name": name, "reference": reference, "actual": actual, "positions": positions, "distances": wanted}


def _psi(reference: list[int], actual: list[int], pseudocount: float) -> float:
    held = [(a + pseudocount, b + pseudocount) for a, b in zip(reference, actual, strict=True) if a + b]
    before, after = sum(a for a, _ in held), sum(b for _, b in held)
    return sum((b / after - a / before) * math.log((b / after) / (a / before)) for a, b in held)


def main() -> None:
    """Write the file beside this one."""
    generator = np.random.default_rng(2_020)
    cases = [
        case_of("the same", [10, 20, 30], [10, 20, 30], [0.0, 1.0, 2.0]),
        case_of("apart", [10, 0, 0], [0, 0, 7], [-1.0, 0.0, 4.0]),
        case_of("an empty bin on one side", [50, 50, 0], [40, 40, 20], [0.0, 0.5, 0.75]),
        case_of("an empty bin on both sides", [50, 0, 50], [30, 0, 70], [0.0, 0.5, 0.75]),
        case_of("one row each", [1, 0], [0, 1], [0.0, 1.0]),
    ]
    for bins, before, after in (
        (10, 1_000, 1_000),
        (10, 100_000, 300),
        (5, 80, 60),
        (20, 5_000, 50_000),
        (12, 20_000, 500),
        (66, 9_000, 9_000),
    ):
        shares = generator.dirichlet(np.full(bins, 5.0), 2)
        reference, actual = (generator.multinomial(n, s).tolist() for n, s in zip((before, after), shares, strict=True))
        positions = np.sort(generator.normal(size=bins)).round(6).tolist()
        cases.append(case_of(f"{bins} bins, {before} and {after} rows", reference, actual, positions))
    VECTORS.write_text(json.dumps({"scipy": scipy.__version__, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
