"""What is counted of columns together, of sound and of text: which changes are found, and which cannot be."""

from collections.abc import Mapping

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.core.verdict import Outcome
from shared.drift.profiling import profile_of
from shared.drift.ranking import ranked
from shared.drift.scoring import FeatureScore, scored, verdict_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.featuretally import FeatureTally

LIMITS = DriftPolicy().limits

type Arrays = Mapping[str, NDArray[np.generic]]


def looked_at(reference: Arrays, traffic: Arrays) -> tuple[Outcome, list[FeatureScore]]:
    """What is found in traffic beside reference rows, and the features that drifted."""
    profile = profile_of(reference, {})
    assert profile is not None
    tally = FeatureTally(profile)
    rows = len(next(iter(traffic.values())))
    tally.saw(traffic, rows)
    scores = scored(profile, tally.take(), LIMITS)
    return verdict_of(scores, rows=rows, limits=LIMITS).outcome, [one for one in scores if one.drifted]


def together(rng: np.random.Generator, rows: int, correlation: float, columns: int = 3) -> Arrays:
    """Columns that are normal each, and correlated."""
    shared = rng.normal(size=(rows, 1))
    own = rng.normal(size=(rows, columns))
    return {"x": np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own}


@pytest.mark.parametrize("columns", [3, 10])
def test_columns_that_are_each_as_before_but_go_together_otherwise_are_drift_of_no_column(columns: int) -> None:
    rng = np.random.default_rng(1)
    reference = together(rng, 4_000, 0.8, columns)
    assert looked_at(reference, together(rng, 3_000, 0.8, columns))[0] is Outcome.PASS
    outcome, drifted = looked_at(reference, together(rng, 3_000, 0.4, columns))
    assert outcome is Outcome.FAIL
    assert [one.feature.source.kind for one in drifted] == ["reconstruction"]
    assert ranked(drifted) == []


def sound(rng: np.random.Generator, rows: int, *, loudness: float = 1.0, offset: float = 0.0) -> Arrays:
    """A second at 2 kHz: tones of several pitches in noise."""
    at = np.arange(2_000) / 2_000
    pitch = rng.uniform(50, 300, (rows, 1))
    wave = np.sin(2 * np.pi * (pitch * at + rng.random((rows, 1)))) + rng.normal(0, 0.3, (rows, 2_000))
    return {"wave": (loudness * rng.uniform(0.7, 1.3, (rows, 1)) * wave + offset).astype(np.float32)}


def test_sound_is_counted_by_summaries_that_tell_a_quiet_microphone_and_one_with_an_offset() -> None:
    rng = np.random.default_rng(2)
    reference = sound(rng, 600)
    outcome, drifted = looked_at(reference, sound(rng, 400))
    assert (outcome, drifted) == (Outcome.PASS, [])
    outcome, drifted = looked_at(reference, sound(rng, 400, loudness=0.5))
    assert outcome is Outcome.FAIL
    assert {"wave norm", "wave spread"} <= {one.feature.name for one in drifted}
    outcome, drifted = looked_at(reference, sound(rng, 400, offset=0.4))
    assert outcome is Outcome.FAIL
    assert "wave mean" in {one.feature.name for one in drifted}


def text(rng: np.random.Generator, rows: int, *, letters: str = "abcdefgh ", longer: int = 0) -> Arrays:
    """Free text, hardly a row like another."""
    lengths = rng.integers(20 + longer, 200 + longer, rows)
    return {"t": np.array([["".join(rng.choice(list(letters), length))] for length in lengths], dtype=object)}


def test_free_text_is_told_by_its_length_and_by_what_it_is_made_of() -> None:
    rng = np.random.default_rng(3)
    reference = text(rng, 600)
    assert looked_at(reference, text(rng, 400)) == (Outcome.PASS, [])
    assert "t length" in {one.feature.name for one in looked_at(reference, text(rng, 400, longer=120))[1]}
    for letters in ("XYZ!?123", "ABCDEFGH ", "абвгдежз "):
        outcome, drifted = looked_at(reference, text(rng, 400, letters=letters))
        assert outcome is Outcome.FAIL, letters
        assert any("projection" in one.feature.name for one in drifted)


def test_words_of_the_same_letters_in_another_order_are_another_text() -> None:
    rng = np.random.default_rng(4)

    def spoken(words: list[str], rows: int) -> Arrays:
        return {"t": np.array([[" ".join(rng.choice(words, 30))] for _ in range(rows)], dtype=object)}

    words = ["stale", "angel", "listen", "below", "earth", "night"]
    other = ["least", "glean", "silent", "elbow", "heart", "thing"]
    reference = spoken(words, 600)
    assert looked_at(reference, spoken(words, 400)) == (Outcome.PASS, [])
    outcome, drifted = looked_at(reference, spoken(other, 400))
    assert outcome is Outcome.FAIL
    # Single letters are as they were.
    assert {one.feature.name for one in drifted} <= {f"t projection {place}" for place in range(4, 8)}


def test_of_a_category_whose_shares_moved_the_category_is_to_blame() -> None:
    rng = np.random.default_rng(5)

    def rows(number: int, shares: tuple[float, ...] = (0.5, 0.3, 0.2)) -> Arrays:
        return {
            "x": rng.normal(size=(number, 20)),
            "plan": rng.choice(np.array(["free", "small", "large"]), (number, 1), p=shares),
            "land": rng.choice(np.array(["de", "fr", "uk"]), (number, 1)),
        }

    outcome, drifted = looked_at(rows(4_000), rows(2_000, (0.15, 0.3, 0.55)))
    assert outcome is Outcome.FAIL
    assert [one.feature.name for one in ranked(drifted)] == ["plan"]
