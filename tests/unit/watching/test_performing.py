"""A drop of performance: by labels, by an estimate that labels bear out, and never by one that they do not."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from shared.budgets.labels import LabelSum, label_key, with_labels
from shared.core.verdict import Outcome, Verdict
from shared.drift.coding import codes_of
from shared.drift.performance import PerformanceModel, fitted
from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.featurecolumns import Columns
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.feedback import Errors, FeedbackCounts
from shared.telemetry.profile import Profile
from shared.telemetry.window import Window
from shared.watching.performing import Performing, perform
from shared.watching.report import Performance

NOW = datetime(2026, 11, 21, tzinfo=UTC)
RNG = np.random.default_rng(3)


def rows(number: int, moved: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A model that is right more often the smaller x is."""
    x = RNG.normal(moved, 1.0, (number, 1))
    right = RNG.random(number) < np.clip(0.85 - 0.2 * x[:, 0], 0.05, 0.99)
    return {"x": x, "label": (x > 0).astype(np.float64)}, right.astype(np.float64)


def made() -> tuple[Profile, PerformanceModel]:
    arrays, right = rows(4_000)
    profile = profile_of({"x": arrays["x"]}, {"label": arrays["label"]})
    assert profile is not None
    model = fitted(profile, codes_of(profile, Columns([(arrays, 4_000)])), right)
    assert model is not None
    return profile, model


PROFILE, MODEL = made()


def counts(moved: float = 0.0, number: int = 2_000) -> FeatureCounts:
    tally = FeatureTally(PROFILE)
    tally.saw(rows(number, moved)[0], number)
    return tally.take()


TODAY = counts(0.48, 8_000)
ALIKE = counts(0.0, 40_000)


def labels(share: float, number: int = 400) -> LabelSum:
    return LabelSum(labelled=number, correct=round(share * number), delay_s={30: number})


def found(
    by_day: Mapping[int, LabelSum], *, moved: float = 0.0, days: int = 12, policy: DriftPolicy | None = None
) -> tuple[Verdict, Performance]:
    """`by_day` are labels on the predictions of so many days ago."""
    result = perform(
        Performing(
            is_regression=False,
            level=MODEL.level,
            model=MODEL,
            labels={NOW - timedelta(days=ago): one for ago, one in by_day.items()},
            days={NOW - timedelta(days=ago): counts() for ago in range(1, days + 1)},
            labels_since=NOW - timedelta(days=1),
        ),
        PROFILE,
        counts(moved),
        policy or DriftPolicy(),
    )
    assert result is not None
    return result


def test_labels_that_say_it_got_worse_are_a_drop_and_the_sentence_says_that_they_are_labels() -> None:
    verdict, figures = found({1: labels(0.7)})
    assert verdict.outcome is Outcome.FAIL
    assert "by 400 labels, half of them within" in verdict.sentence
    assert (figures.realised, figures.labels) == (0.7, 400)


def test_an_estimate_is_no_alarm_until_labels_have_borne_it_out() -> None:
    verdict, figures = found({}, moved=1.5)
    assert (verdict.outcome, verdict.advisory, figures.may_gate) == (Outcome.INCONCLUSIVE, True, False)
    assert "no day that is over has an estimate and 30 labels yet: the estimate does not gate" in verdict.sentence


def test_a_calibrated_estimate_is_an_alarm_before_any_label_of_the_day_comes() -> None:
    verdict, figures = found({ago: labels(MODEL.level) for ago in range(2, 13)}, moved=1.5)
    assert figures.may_gate
    assert verdict.outcome is Outcome.FAIL
    assert "by an estimate without labels" in verdict.sentence


def test_an_estimate_that_labels_contradict_gates_nothing() -> None:
    verdict, figures = found({ago: labels(0.5) for ago in range(2, 13)}, moved=1.5)
    assert (verdict.outcome, figures.may_gate) == (Outcome.INCONCLUSIVE, False)


def test_an_estimate_that_is_off_by_almost_the_drop_it_is_to_find_gates_nothing() -> None:
    """Eleven days of labels say that nothing dropped, while the estimate is low by almost the limit all along."""
    history = {NOW - timedelta(days=ago): labels(MODEL.level) for ago in range(2, 13)}
    result = perform(
        Performing(
            is_regression=False,
            level=MODEL.level,
            model=MODEL,
            labels=history,
            days={day: counts(0.25, 8_000) for day in history},
            labels_since=NOW - timedelta(days=1),
        ),
        PROFILE,
        counts(0.45, 8_000),
        DriftPolicy(),
    )
    assert result is not None
    verdict, figures = result
    assert figures.level is not None
    assert figures.estimate is not None
    assert figures.level - figures.estimate > 0.05
    assert (verdict.outcome, figures.may_gate) == (Outcome.INCONCLUSIVE, False)


def test_half_of_the_drop_is_as_far_as_an_estimate_may_be_off() -> None:
    def may_gate(off: float) -> bool:
        result = perform(
            Performing(
                is_regression=False,
                level=MODEL.level,
                model=MODEL,
                labels={NOW - timedelta(days=ago): labels(MODEL.level - off, 40_000) for ago in range(2, 32)},
                days={NOW - timedelta(days=ago): ALIKE for ago in range(2, 32)},
                labels_since=NOW - timedelta(days=1),
            ),
            PROFILE,
            TODAY,
            DriftPolicy(performance_drop=0.08),
        )
        assert result is not None
        return result[1].may_gate

    assert [may_gate(0.02), may_gate(0.05)] == [True, False]


def test_what_an_estimate_missed_by_counts_against_its_evidence() -> None:
    """Both may gate, and say the same of today; of one, days were off by 0.02 now and then."""

    def told(off: float) -> Verdict:
        by_day = {ago: labels(MODEL.level + off * (-1) ** ago, 40_000) for ago in range(2, 32)}
        result = perform(
            Performing(
                is_regression=False,
                level=MODEL.level,
                model=MODEL,
                labels={NOW - timedelta(days=ago): one for ago, one in by_day.items()},
                days={NOW - timedelta(days=ago): ALIKE for ago in by_day},
                labels_since=NOW - timedelta(days=1),
            ),
            PROFILE,
            TODAY,
            DriftPolicy(performance_drop=0.07),
        )
        assert result is not None
        assert result[1].may_gate
        return result[0]

    assert told(0.0).outcome is Outcome.FAIL
    doubtful = told(0.0262)
    assert (doubtful.outcome, "may be chance" in doubtful.sentence) == (Outcome.INCONCLUSIVE, True)


def test_as_it_was_at_validation_it_passes_and_few_labels_conclude_nothing() -> None:
    assert found({1: labels(MODEL.level)})[0].outcome is Outcome.PASS
    few, _ = found({1: labels(0.2, number=20)})
    assert few.outcome is Outcome.INCONCLUSIVE


def test_intervals_hold_no_accuracy_above_one_and_no_error_below_nought() -> None:
    verdict, figures = found({1: labels(1.0, number=150)})
    assert figures.realised_interval is not None
    assert verdict.interval == figures.realised_interval
    assert 0.9 < figures.realised_interval[0] < figures.realised_interval[1] == 1.0
    assert found({1: labels(0.0, number=150)})[0].interval == pytest.approx((0.0, 0.0179), abs=1e-4)
    errors = Errors(count=3, absolute=9_000_000, squared=81 * 10**12)
    seen = Performing(is_regression=True, level=2.0, labels={NOW: LabelSum(numbers=errors)}, labels_since=NOW)
    result = perform(seen, None, None, DriftPolicy())
    assert result is not None
    assert result[1].realised_interval == pytest.approx((0.0, 3.0 + 1.96 * math.sqrt(18 / 3)), abs=1e-3)


def test_a_drop_that_may_be_chance_is_none() -> None:
    verdict, _ = found({1: labels(MODEL.level - 0.055, number=100)})
    assert (verdict.outcome, "may be chance" in verdict.sentence) == (Outcome.INCONCLUSIVE, True)


def test_a_regression_drops_where_its_error_grows() -> None:
    def told(absolute: float) -> Outcome:
        each = round(absolute * 1e6)
        numbers = Errors(count=500, absolute=500 * each, squared=500 * each * each)
        result = perform(
            Performing(is_regression=True, level=2.0, labels={NOW: LabelSum(numbers=numbers)}, labels_since=NOW),
            None,
            None,
            DriftPolicy(performance_drop=0.1),
        )
        assert result is not None
        return result[0].outcome

    assert [told(2.1), told(2.3)] == [Outcome.PASS, Outcome.FAIL]


def test_labels_are_summed_by_the_day_of_their_prediction_and_forgotten_after_a_while() -> None:
    def window(sequence: int, hour: datetime, correct: int, reason: str = "assigned") -> Window:
        row = FeedbackCounts.model_validate(
            {
                "version": 2,
                "generation": 1,
                "role": "stable",
                "reason": reason,
                "hour": hour,
                "count": 10,
                "labelled": 10,
                "correct": correct,
                "delay_s": {16: 10},
            }
        )
        return Window(
            endpoint="m",
            pod="p",
            sequence=sequence,
            generation=1,
            started_at=NOW,
            ended_at=NOW,
            loaded=[2],
            feedback=[row],
        )

    yesterday = NOW - timedelta(days=1)
    windows = [window(1, NOW, 7), window(2, yesterday, 3), window(3, NOW, 1), window(4, NOW, 9, "pinned")]
    sums = with_labels({}, windows, NOW)
    assert sums == {
        label_key(2, yesterday): LabelSum(labelled=10, correct=3, delay_s={16: 10}),
        label_key(2, NOW): LabelSum(labelled=20, correct=8, delay_s={16: 20}),
    }
    assert with_labels(sums, [], NOW + timedelta(days=45, hours=1)) == {label_key(2, NOW): sums[label_key(2, NOW)]}
