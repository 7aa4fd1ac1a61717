"""Label sums: bounded, whatever versions labels claim to be on."""

from datetime import UTC, datetime, timedelta

from shared.budgets.labels import MAX_SUMS, LabelSum, label_key, with_labels
from shared.telemetry.feedback import FeedbackCounts
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
