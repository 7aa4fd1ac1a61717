"""How right serving versions are is told from labels that came, and beside them from what is estimated."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.budgets.labels import LabelSum, label_key
from shared.budgets.sums import RequestSums
from shared.observing.performance import DAYS, estimates, labelled, performance
from shared.registry.manifest import Task
from shared.telemetry.feedback import Errors
from shared.watching.documents import DriftReport, EstimateSummary, Measure
from tests.unit.observing.test_metrics import report, values

NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


def sums(**days: LabelSum) -> RequestSums:
    """Sums by `v<version>_<days ago>`."""
    labels = {}
    for name, one in days.items():
        version, ago = name.removeprefix("v").split("_")
        labels[label_key(int(version), NOW - timedelta(days=int(ago)))] = one
    return RequestSums(endpoint="m", since=NOW, labels=labels)


def told(given: RequestSums, *serving: tuple[str, int], tasks: Mapping[tuple[str, int], Task] = {}) -> dict[str, Any]:
    return values(*performance(labelled([given], set(serving), NOW), tasks))


def test_accuracy_is_of_all_labels_of_the_last_days_and_of_no_earlier_one() -> None:
    given = sums(
        v3_0=LabelSum(labelled=10, correct=9),
        v3_6=LabelSum(labelled=30, correct=15),
        v3_7=LabelSum(labelled=1_000, correct=0),
        v4_0=LabelSum(labelled=5, correct=5),
    )
    found = told(given, ("m", 3), ("other", 3))
    assert found == {
        'model_labels{model="m",version="3"}': 40,
        'model_realised_accuracy_ratio{model="m",version="3"}': pytest.approx(24 / 40),
    }
    assert DAYS == 7


def test_the_error_of_numbers_is_their_mean_in_their_own_unit() -> None:
    errors = Errors(count=4, absolute=6_000_000, squared=12 * 10**12)
    found = told(sums(v1_1=LabelSum(numbers=errors)), ("m", 1))
    assert found == {
        'model_labels{model="m",version="1"}': 4,
        'model_realised_absolute_error{model="m",version="1"}': 1.5,
    }


def test_a_label_that_is_a_whole_number_is_one_label_though_it_is_a_class_and_a_number() -> None:
    both = LabelSum(labelled=300, correct=285, numbers=Errors(count=300, absolute=15_000_000))
    assert told(sums(v1_0=both), ("m", 1))['model_labels{model="m",version="1"}'] == 300


def test_labels_that_are_whole_numbers_tell_of_what_the_versions_task_is() -> None:
    of = '{model="m",version="1"}'
    both = sums(v1_0=LabelSum(labelled=300, correct=285, numbers=Errors(count=300, absolute=15_000_000)))
    accuracy = {f"model_realised_accuracy_ratio{of}": 0.95}
    error = {f"model_realised_absolute_error{of}": 0.05}
    count = {f"model_labels{of}": 300}
    assert told(both, ("m", 1), tasks={("m", 1): Task.CLASSIFICATION}) == count | accuracy
    assert told(both, ("m", 1), tasks={("m", 1): Task.REGRESSION}) == count | error
    assert told(both, ("m", 1), tasks={("m", 2): Task.REGRESSION}) == count | accuracy | error, "it is not known"


def test_labels_that_are_of_one_kind_alone_tell_of_that_whatever_the_task() -> None:
    of = '{model="m",version="1"}'
    classes = told(sums(v1_0=LabelSum(labelled=4, correct=3)), ("m", 1), tasks={("m", 1): Task.REGRESSION})
    assert classes[f"model_realised_accuracy_ratio{of}"] == 0.75
    numbers = sums(v1_0=LabelSum(numbers=Errors(count=4, absolute=2_000_000)))
    assert told(numbers, ("m", 1), tasks={("m", 1): Task.CLASSIFICATION})[f"model_realised_absolute_error{of}"] == 0.5


def test_without_labels_there_is_no_accuracy_and_a_count_of_none() -> None:
    assert told(sums(), ("m", 1)) == {'model_labels{model="m",version="1"}': 0}


def estimating(**fields: Any) -> DriftReport:
    """A version in a role whose latest report has this estimate."""
    one = report()
    assert one.latest is not None
    return report(latest=one.latest.model_copy(update={"estimate": EstimateSummary(**fields)}))


def test_an_estimate_is_told_with_whether_it_may_gate_and_what_it_missed_by() -> None:
    of = 'model="m",version="3",variant="stable"'
    found = values(*estimates([estimating(measure=Measure.ACCURACY, value=0.91, may_gate=True, miss=0.012)]))
    assert found == {
        f"model_estimated_accuracy_ratio{{{of}}}": 0.91,
        f"model_estimate_may_gate{{{of}}}": 1,
        f"model_estimate_miss{{{of}}}": 0.012,
    }


def test_before_any_label_an_estimate_has_no_miss_and_may_not_gate() -> None:
    of = 'model="m",version="3",variant="stable"'
    found = values(*estimates([estimating(measure=Measure.ABSOLUTE_ERROR, value=4.5, may_gate=False)]))
    assert found == {f"model_estimated_absolute_error{{{of}}}": 4.5, f"model_estimate_may_gate{{{of}}}": 0}
    met = values(*estimates([estimating(measure=Measure.ACCURACY, value=0.9, may_gate=True, miss=0.0)]))
    assert met[f"model_estimate_miss{{{of}}}"] == 0


def test_a_version_without_an_estimate_and_a_record_that_is_older_tell_of_none() -> None:
    older = report().model_dump(mode="json")
    assert older["latest"].pop("estimate") is None
    assert values(*estimates([DriftReport.model_validate(older), report(latest=None)])) == {}
