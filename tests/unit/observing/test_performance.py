"""How right serving versions were is told from labels, and only from those that came."""

from datetime import UTC, datetime, timedelta

import pytest

from shared.budgets.labels import LabelSum, label_key
from shared.budgets.sums import RequestSums
from shared.observing.performance import DAYS, performance
from shared.telemetry.feedback import Errors
from tests.unit.observing.test_metrics import values

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


def sums(**days: LabelSum) -> RequestSums:
    """Sums by `v<version>_<days ago>`."""
    labels = {}
    for name, one in days.items():
        version, ago = name.removeprefix("v").split("_")
        labels[label_key(int(version), NOW - timedelta(days=int(ago)))] = one
    return RequestSums(endpoint="m", since=NOW, labels=labels)


def test_accuracy_is_of_all_labels_of_the_last_days_and_of_no_earlier_one() -> None:
    found = values(
        *performance(
            [
                sums(
                    v3_0=LabelSum(labelled=10, correct=9),
                    v3_6=LabelSum(labelled=30, correct=15),
                    v3_7=LabelSum(labelled=1_000, correct=0),
                    v4_0=LabelSum(labelled=5, correct=5),
                )
            ],
            {("m", 3), ("other", 3)},
            NOW,
        )
    )
    assert found == {
        'model_labels{model="m",version="3"}': 40,
        'model_realised_accuracy_ratio{model="m",version="3"}': pytest.approx(24 / 40),
    }
    assert DAYS == 7


def test_the_error_of_numbers_is_their_mean_in_their_own_unit() -> None:
    errors = Errors(count=4, absolute=6_000_000, squared=12 * 10**12)
    found = values(*performance([sums(v1_1=LabelSum(numbers=errors))], {("m", 1)}, NOW))
    assert found == {
        'model_labels{model="m",version="1"}': 4,
        'model_realised_absolute_error{model="m",version="1"}': 1.5,
    }


def test_without_labels_there_is_no_accuracy_and_a_count_of_none() -> None:
    assert values(*performance([sums()], {("m", 1)}, NOW)) == {'model_labels{model="m",version="1"}': 0}
