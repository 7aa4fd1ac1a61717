"""How much less rows of hours with levels of their own are worth to a mean, and that a daily cycle is no such level."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.drift.directions import design_effects

BEGUN = datetime(2026, 11, 21, tzinfo=UTC)


def effect(days: int, *, level: float = 0.0, swing: float = 0.0, rows: int = 400) -> float:
    """Of the mean of rows of variance 1, the median over many."""
    rng = np.random.default_rng(1)
    at = np.arange(24 * days)
    means = rng.normal(size=(len(at), 200)) * np.sqrt(1 / rows + level**2) + swing * np.sin(np.pi * at / 12)[:, None]
    hours = [BEGUN + timedelta(hours=int(one)) for one in at]
    return float(np.median(design_effects(means, np.ones(200), np.full(len(at), float(rows)), hours)))


@pytest.mark.parametrize("days", [1, 3])
def test_rows_of_independent_hours_are_worth_what_they_are_and_those_of_a_level_each_a_row_together(days: int) -> None:
    assert 1.0 <= effect(days) < 1.1
    assert effect(days, level=0.2) == pytest.approx(1 + 400 * 0.2**2, rel=0.15)


def test_what_an_hour_of_the_day_usually_is_is_no_level_once_the_day_was_seen_before() -> None:
    assert effect(3, swing=1.0) < 1.1
    # Before, nobody can tell it from one.
    assert effect(1, swing=1.0) > 100


def test_of_few_hours_nothing_is_known_and_what_never_varies_has_no_effect() -> None:
    hours = [BEGUN + timedelta(hours=at) for at in range(7)]
    wild = np.random.default_rng(1).normal(size=(7, 2))
    assert design_effects(wild, np.ones(2), np.full(7, 100.0), hours).tolist() == [1.0, 1.0]
    eight = [*hours, BEGUN + timedelta(hours=7)]
    assert design_effects(np.zeros((8, 2)), np.zeros(2), np.full(8, 100.0), eight).tolist() == [1.0, 1.0]
