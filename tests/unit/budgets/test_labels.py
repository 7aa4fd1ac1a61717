"""Label sums: bounded, whatever versions labels claim to be on."""

from datetime import UTC, datetime, timedelta

import pytest
from aks_serving.feedback import MAX_AGE

from shared.budgets.labels import MAX_SUMS, LabelSum, label_key, with_labels
from shared.budgets.sums import MOST_MARKS, Mark, RequestSums
from shared.store.documents import checked_document
from shared.store.ports import Container
from shared.telemetry.feedback import Errors, Feedback, FeedbackCounts, FeedbackTally, Key
from shared.telemetry.histogram import bucket_index, quantile
from shared.telemetry.window import Window

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def window(sequence: int, *rows: FeedbackCounts) -> Window:
    return Window(
        endpoint="m",
        pod="a",
        sequence=sequence,
        generation=1,
        started_at=NOW,
        ended_at=NOW,
        loaded=[3],
        versions={},
        feedback=list(rows),
    )


def labelled(version: int, count: int = 1, *, days_ago: int = 0) -> FeedbackCounts:
    return FeedbackCounts(
        version=version,
        generation=1,
        role="stable",
        reason="assigned",
        hour=NOW - timedelta(days=days_ago),
        count=count,
        labelled=count,
        correct=count,
    )


def test_labels_on_made_up_versions_push_out_neither_what_is_served_nor_what_has_many() -> None:
    sums: dict[str, LabelSum] = with_labels({}, [window(0, labelled(2, 500, days_ago=9))], NOW)
    for at in range(20):
        made_up = [labelled(1_000 * at + n, 2) for n in range(10, 210)]
        sums = with_labels(sums, [window(at + 1, labelled(3, days_ago=at), *made_up)], NOW)
    assert len(sums) == MAX_SUMS
    assert sums[label_key(2, NOW - timedelta(days=9))].labelled == 500
    assert all(sums[label_key(3, NOW - timedelta(days=at))].labelled == 1 for at in range(20))


def test_up_to_the_bound_every_version_is_kept_and_long_past_days_are_not() -> None:
    rows = [labelled(version) for version in range(1, MAX_SUMS + 1)]
    assert len(with_labels({}, [window(0, *rows, labelled(1, days_ago=46))], NOW)) == MAX_SUMS


def test_labels_that_are_large_numbers_are_summed_in_a_document() -> None:
    """A single error of a hundred has a square beyond what a document's numbers may be."""
    rows = []
    for off in (1_000.0, 1e9):
        tally = FeedbackTally()
        key = Key(version=3, generation=1, role="stable", reason="assigned", hour=NOW)
        tally.add(Feedback(key=key, numbers=(off, -off)))
        rows += tally.take()
    sums = RequestSums(endpoint="m", since=NOW, labels=with_labels({}, [window(0, *rows)], NOW))
    document = checked_document(Container.ENDPOINTS, sums.model_dump(mode="json"))
    found = RequestSums.model_validate_json(document.text)
    assert found == sums
    assert found.labels[label_key(3, NOW)].numbers.squared == 4 * (10**18 + 10**30)


def test_labels_that_come_after_whatever_time_fit_into_a_document_beside_the_marks_of_many_pods() -> None:
    delays = dict.fromkeys(range(bucket_index(0.0), bucket_index(MAX_AGE.total_seconds()) + 1), 999999)
    large = Errors(count=10**9, error=-(10**24), absolute=10**24, squared=10**39, label=10**24, label_squared=10**39)
    sums: dict[str, LabelSum] = {}
    for number in range(MAX_SUMS):
        row = labelled(number // 45 + 1, 10**9, days_ago=number % 45).model_copy(
            update={"delay_s": delays, "numbers": large}
        )
        sums = with_labels(sums, [window(number, row)], NOW)
    assert len(sums) == MAX_SUMS
    marks = {f"model-server-7f9c4d-{n:05d}-0123ab": Mark(sequence=10**4, ended_at=NOW) for n in range(MOST_MARKS)}
    document = RequestSums(endpoint="m", since=NOW, labels=sums, marks=marks).model_dump(mode="json")
    checked_document(Container.ENDPOINTS, document)


@pytest.mark.parametrize("delay_s", [0.0, 0.4, 1.0, 59.0, 3_600.0, 5 * 86_400.0, MAX_AGE.total_seconds()])
def test_a_delay_is_told_as_a_second_or_within_18_percent_of_what_it_was(delay_s: float) -> None:
    row = labelled(3).model_copy(update={"delay_s": {bucket_index(delay_s): 1}})
    found = quantile(with_labels({}, [window(0, row)], NOW)[label_key(3, NOW)].delay_s, 0.5)
    assert found is not None
    assert found == pytest.approx(max(1.0, delay_s), rel=0.18)
