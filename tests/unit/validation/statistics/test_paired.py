"""The paired tests hold their level, exactly where they claim to, and their scores are those of the literature."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from shared.validation.statistics.evidence import Floats
from shared.validation.statistics.paired import (
    LEVEL,
    MAX_EXACT_ROWS,
    Discordance,
    PairedErrors,
    _exact_tail,
    mcnemar,
    p_value_above,
    tango_interval,
    tango_score,
)

TABLES = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 200)).map(
    lambda t: Discordance(n=t[0] + t[1] + t[2], gained=t[0], lost=t[1])
)


def critical_score(n: int, margin: float) -> float:
    """The least score that passes: the p-value falls as the score rises."""
    low, high = 0.0, 10.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (low, middle) if _exact_tail(middle, n, -margin) <= LEVEL else (middle, high)
    return high


def drawn(shape: str, generator: np.random.Generator, size: tuple[int, int]) -> Floats:
    """Absolute errors of a shape."""
    if shape == "normal":
        return np.abs(generator.normal(size=size))
    return generator.exponential(size=size) if shape == "exponential" else generator.lognormal(size=size)


@settings(max_examples=40, deadline=None)
@given(table=TABLES, margin=st.floats(0.01, 0.3))
def test_tangos_score_is_the_difference_over_its_constrained_deviation(table: Discordance, margin: float) -> None:
    """Against the likelihood maximised numerically where the difference is the margin."""

    def unlikely(lost: float) -> float:
        gain = lost - margin
        rest = 1 - lost - gain
        terms = ((table.gained, gain), (table.lost, lost), (table.n - table.gained - table.lost, rest))
        return -sum(count * math.log(max(share, 1e-300)) for count, share in terms if count)

    found = optimize.minimize_scalar(
        unlikely, bounds=(margin, (1 + margin) / 2), method="bounded", options={"xatol": 1e-12}
    )
    variance = table.n * (2 * found.x - margin - margin**2)
    wanted = (table.gained - table.lost + table.n * margin) / math.sqrt(variance)
    score = tango_score(np.array([table.gained]), np.array([table.lost]), table.n, -margin)[0]
    assert score == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize(("n", "margin"), [(12, 0.1), (20, 0.05), (25, 0.2)])
def test_the_exact_p_value_is_the_greatest_probability_over_all_shares_that_differ(n: int, margin: float) -> None:
    """Against every table's probability by scipy's trinomial distribution, on a grid of shares."""
    tables = np.array([(g, x) for g, x in product(range(n + 1), repeat=2) if g + x <= n])
    gained, lost = tables.T
    scores = tango_score(gained, lost, n, -margin)
    counts = np.column_stack([gained, lost, n - gained - lost])
    shares = [(loss - margin, loss, 1 + margin - 2 * loss) for loss in np.linspace(margin, (1 + margin) / 2, 300)]
    chances = np.array([stats.multinomial.pmf(counts, n, share) for share in shares])
    for seen in range(0, len(tables), 7):
        greatest = chances[:, scores >= scores[seen] - 1e-9].sum(axis=1).max()
        table = Discordance(n=n, gained=int(gained[seen]), lost=int(lost[seen]))
        assert p_value_above(table, -margin) == pytest.approx(greatest, abs=0.002)


@pytest.mark.parametrize("n", [30, 140, 160, 1_000, 3_000])
def test_a_candidate_worse_by_the_margin_passes_at_most_as_often_as_stated(n: int) -> None:
    """1,000 simulations a setting; were the level held, chance alone would break a bound once in 100,000 times."""
    margin, trials = 0.02, 1_000
    needed = critical_score(n, margin)
    generator = np.random.default_rng(n)
    for discordant in (0.02, 0.03, 0.05, 0.1, 0.3, 0.6, 1.0):
        gain, loss = (discordant - margin) / 2, (discordant + margin) / 2
        drawn_tables = generator.multinomial(n, [gain, loss, max(0.0, 1 - gain - loss)], trials).astype(float)
        passed = tango_score(drawn_tables[:, 0], drawn_tables[:, 1], n, -margin) >= needed
        assert passed.sum() <= stats.binom.ppf(1 - 1e-5, trials, LEVEL), discordant


@pytest.mark.parametrize("n", [200, 1_000])
def test_an_equal_candidate_passes_where_rows_suffice(n: int) -> None:
    # One row in fifty differs: the deviation of the difference is 0.01 at 200 rows, 0.0045 at 1,000.
    drawn_tables = np.random.default_rng(n).multinomial(n, [0.01, 0.01, 0.98], 1_000).astype(float)
    passed = tango_score(drawn_tables[:, 0], drawn_tables[:, 1], n, -0.02) >= critical_score(n, 0.02)
    assert passed.mean() >= {200: 0.45, 1_000: 0.97}[n]


def test_models_that_agree_on_every_row_pass_from_149_rows_on() -> None:
    # 0.98^149 is the first power below 5 %.
    assert p_value_above(Discordance(n=148, gained=0, lost=0), -0.02) > LEVEL
    assert p_value_above(Discordance(n=149, gained=0, lost=0), -0.02) <= LEVEL


@pytest.mark.parametrize("margin", [0.01, 0.05])
def test_beyond_the_exact_rows_the_p_value_goes_on_smoothly(margin: float) -> None:
    exact, normal = (
        p_value_above(Discordance(n=n, gained=round(0.05 * n), lost=round((0.05 + margin * 0.85) * n)), -margin)
        for n in (MAX_EXACT_ROWS, MAX_EXACT_ROWS + 200)
    )
    assert normal == pytest.approx(exact, rel=0.15)


@settings(max_examples=40, deadline=None)
@given(TABLES)
def test_the_interval_holds_the_difference_and_mirrors(table: Discordance) -> None:
    low, high = tango_interval(table)
    assert -1 <= low <= table.difference <= high <= 1
    assert tango_interval(table.mirrored) == pytest.approx((-high, -low), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(TABLES)
def test_mcnemars_p_value_is_the_binomial_tests(table: Discordance) -> None:
    differing = table.gained + table.lost
    wanted = stats.binomtest(table.gained, differing).pvalue if differing else 1.0
    assert mcnemar(table) == pytest.approx(wanted)


def test_without_skew_the_test_of_means_is_students() -> None:
    generator = np.random.default_rng(5)
    half = generator.normal(1.0, 0.3, 40)
    champion = np.ones(80)
    candidate = np.concatenate([half, 2 - half])  # symmetrical about 1
    wanted = stats.ttest_1samp(candidate - 1.02 * champion, 0.0, alternative="less").pvalue
    assert PairedErrors.of(candidate, champion).p_value_below(1.02) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("shape", ["normal", "exponential", "lognormal"])
def test_errors_higher_by_the_margin_pass_at_most_as_often_as_stated(shape: str) -> None:
    """Simulated at the margin; the bound would be broken by chance once in 100,000 times were the level held."""
    trials, n, margin = 400, 60, 0.02
    generator = np.random.default_rng(len(shape))
    passed = 0
    for _ in range(trials):
        shared, own, other = drawn(shape, generator, (3, n))
        champion, candidate = shared + other, (shared + own) * (1 + margin)
        passed += PairedErrors.of(candidate, champion).p_value_below(1 + margin) <= LEVEL
    assert passed <= stats.binom.ppf(1 - 1e-5, trials, LEVEL)


def test_the_ratios_interval_ends_where_its_tests_do() -> None:
    generator = np.random.default_rng(6)
    champion = generator.exponential(size=200)
    moments = PairedErrors.of(champion * generator.uniform(0.8, 1.2, 200), champion)
    low, high = moments.interval()
    assert low < moments.candidate / moments.champion < high
    assert moments.p_value_above(low) == pytest.approx(LEVEL, rel=1e-3)
    assert moments.p_value_below(high) == pytest.approx(LEVEL, rel=1e-3)
