"""The features most to blame come first, also where features go together."""

import numpy as np
import pytest
from numpy.typing import NDArray

from shared.drift.limits import Limits
from shared.drift.profiling import profile_of
from shared.drift.ranking import ranked
from shared.drift.scoring import scored
from shared.telemetry.featuretally import FeatureTally

FEATURES = 20


@pytest.mark.parametrize("correlation", [0.0, 0.8])
def test_an_injected_feature_is_among_the_first_three(correlation: float) -> None:
    generator = np.random.default_rng(1)

    def rows(count: int) -> NDArray[np.float64]:
        common = generator.normal(size=(count, 1))
        own = generator.normal(size=(count, FEATURES))
        result: NDArray[np.float64] = np.sqrt(correlation) * common + np.sqrt(1 - correlation) * own
        return result

    profile = profile_of({"x": rows(2_000)}, {})
    assert profile is not None
    found = 0
    for trial in range(20):
        window = rows(1_000)
        at = trial % FEATURES
        match trial % 4:
            case 0:
                window[:, at] += 0.5
            case 1:
                window[:, at] *= 2.0
            case 2:
                window[generator.random(1_000) < 0.1, at] = np.nan
            case _:
                # All move with the common cause; one the most.
                window += 0.4
                window[:, at] += 0.4
        tally = FeatureTally(profile)
        tally.saw({"x": window}, 1_000)
        first = [score.feature.name for score in ranked(scored(profile, tally.take(), Limits()))[:3]]
        found += f"x[{at}]" in first
    assert found >= 19


def test_answers_and_errors_of_reconstruction_are_not_to_blame() -> None:
    generator = np.random.default_rng(2)
    table = generator.normal(size=(400, 4))
    profile = profile_of({"x": table}, {"y": table[:, 0]})
    assert profile is not None
    tally = FeatureTally(profile)
    tally.saw({"x": table, "y": table[:, 0] + 9}, 400)
    scores = scored(profile, tally.take(), Limits())
    assert len(scores) == 6
    assert {score.feature.name for score in ranked(scores)} == {"x[0]", "x[1]", "x[2]", "x[3]"}
