"""How often a candidate that is worse by just the margin passes, and how often an equal one does.

Run `.venv/bin/python -m benchmarks.noninferiority`. Classification: for each number of rows and share of rows on
which the models differ, 20,000 simulated tables at the margin; the peer is Tango's score without the exact tail, on
the same tables. Regression: 2,000 simulated pairs of errors of several shapes; the peer is Student's t. The bar is 5
%. Exits 1 where a rate is above it by more than chance explains. Last, what no test of means can hold: a candidate
that is like the champion but for rare rows, of which the data may have none.
"""

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats

from shared.validation.statistics.evidence import Floats
from shared.validation.statistics.paired import LEVEL, Discordance, PairedErrors, p_value_above, tango_score

MARGIN = 0.02
ROWS = (30, 75, 140, 200, 500, 1_000, 3_000, 10_000)
DISCORDANT = (0.02, 0.03, 0.05, 0.1, 0.3, 0.6, 1.0)
TRIALS, PAIRS = 20_000, 2_000
CHANCE = 1e-5


def _tables(generator: np.random.Generator, n: int, discordant: float, worse: float) -> tuple[Floats, Floats]:
    gain, loss = (discordant - worse) / 2, (discordant + worse) / 2
    drawn = generator.multinomial(n, [gain, loss, max(0.0, 1 - gain - loss)], TRIALS).astype(np.float64)
    return drawn[:, 0], drawn[:, 1]


def _passing(gained: Floats, lost: Floats, n: int) -> Floats:
    """Whether each table passes. Equal tables are tested once, through the function that validation calls."""
    tables, place = np.unique(np.column_stack([gained, lost]).astype(np.int64), axis=0, return_inverse=True)
    scores = tango_score(tables[:, 0].astype(float), tables[:, 1].astype(float), n, -MARGIN)
    passes = np.zeros(len(tables), dtype=bool)
    # The p-value falls as the score rises: only the border between passing and not is searched.
    order = np.argsort(scores)
    low, high = -1, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        g, x = tables[order[middle]].tolist()
        if p_value_above(Discordance(n=n, gained=g, lost=x), -MARGIN) <= LEVEL:
            high = middle
        else:
            low = middle
    passes[order[high:]] = True
    return passes[place.ravel()].astype(np.float64)


def _classification(generator: np.random.Generator) -> bool:
    print(f"accuracy, margin {MARGIN}, {TRIALS} simulations a setting: % that pass")
    print("  rows  differ | worse by the margin: exact   Tango alone | equal: exact")
    held = True
    limit = stats.binom.ppf(1 - CHANCE, TRIALS, LEVEL) / TRIALS
    for n in ROWS:
        for discordant in DISCORDANT:
            gained, lost = _tables(generator, n, discordant, MARGIN)
            false = _passing(gained, lost, n).mean()
            peer = (tango_score(gained, lost, n, -MARGIN) >= stats.norm.ppf(1 - LEVEL)).mean()
            equal = _passing(*_tables(generator, n, discordant, 0.0), n).mean()
            held &= bool(false <= limit)
            flag = "" if false <= limit else "  above 5 %"
            print(f"{n:>6}  {discordant:>6.0%} | {false:>26.2%} {peer:>13.2%} | {equal:>12.2%}{flag}")
    return held


SHAPES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Floats]] = {
    "normal": lambda g, size: np.abs(g.normal(size=size)),
    "laplace": lambda g, size: np.abs(g.laplace(size=size)),
    "exponential": lambda g, size: g.exponential(size=size),
    "lognormal": lambda g, size: g.lognormal(size=size),
    "skewed": lambda g, size: g.gamma(0.3, size=size),
}


def _regression(generator: np.random.Generator) -> bool:
    print(f"\nmean absolute error, margin {MARGIN:.0%} of the champion's, {PAIRS} simulations a setting: % that pass")
    print("  rows        errors  overlap | worse by the margin: Johnson     Student | equal: Johnson")
    held = True
    limit = stats.binom.ppf(1 - CHANCE, PAIRS, LEVEL) / PAIRS
    for n in (30, 100, 1_000, 10_000):
        for shape, draw in SHAPES.items():
            for overlap in (0.5, 0.95):
                false = peer = equal = 0
                for _ in range(PAIRS if n < 10_000 else PAIRS // 4):
                    both, own, other = draw(generator, (3, n))
                    champion = overlap * both + (1 - overlap) * other
                    same = overlap * both + (1 - overlap) * own
                    worse = PairedErrors.of(same * (1 + MARGIN), champion)
                    false += worse.p_value_below(1 + MARGIN) <= LEVEL
                    peer += _student(same * (1 + MARGIN) - (1 + MARGIN) * champion) <= LEVEL
                    equal += PairedErrors.of(same, champion).p_value_below(1 + MARGIN) <= LEVEL
                trials = PAIRS if n < 10_000 else PAIRS // 4
                bound = limit if trials == PAIRS else stats.binom.ppf(1 - CHANCE, trials, LEVEL) / trials
                held &= bool(false / trials <= bound)
                flag = "" if false / trials <= bound else "  above 5 %"
                print(
                    f"{n:>6}  {shape:>12}  {overlap:>7.0%} | {false / trials:>28.2%} {peer / trials:>11.2%} |"
                    f" {equal / trials:>14.2%}{flag}"
                )
    return held


def _rare(generator: np.random.Generator) -> None:
    print("\nlike the champion but for rare rows, worse by the margin on average: % that pass (no bar)")
    for n in (100, 1_000, 10_000):
        for rarity in (0.01, 0.05, 0.2):
            passed = 0
            for _ in range(PAIRS // 4):
                champion = np.abs(generator.normal(size=n))
                extra = generator.exponential(MARGIN * np.sqrt(2 / np.pi) / rarity, n)
                candidate = champion + np.where(generator.random(n) < rarity, extra, 0.0)
                passed += PairedErrors.of(candidate, champion).p_value_below(1 + MARGIN) <= LEVEL
            print(f"{n:>6}  one row in {1 / rarity:>3.0f} | {passed / (PAIRS // 4):>7.2%}")


def _student(values: Floats) -> float:
    return float(stats.t.cdf(values.mean() / (values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1))


def main() -> int:
    """Run both; 0 where the level holds in every setting."""
    generator = np.random.default_rng(14)
    held = [_classification(generator), _regression(generator)]
    _rare(generator)
    print("\nthe level holds" if all(held) else "\nthe level does not hold")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
