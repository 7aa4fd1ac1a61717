"""Rows by groups of subjects: they add, name nobody, and tell what rows are worth."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.telemetry.features import FeatureCounts
from shared.telemetry.subjects import GROUPS, Worth, grouped, groups_of, worth_of
from shared.watching.rollups import FeatureRollup

VECTORS = json.loads(Path(__file__).with_name("subject_groups.json").read_text())
ASKED = st.lists(st.tuples(st.text(st.characters(codec="utf-8"), max_size=5), st.integers(1, 50)), max_size=30)


def test_groups_are_those_of_the_golden_vectors() -> None:
    assert groups_of(list(VECTORS)).tolist() == list(VECTORS.values())


def test_consecutive_names_fall_as_drawn() -> None:
    """As evenly as by chance, and no more so: what is too even hides how many there are."""
    found = []
    for prefix in ("", "user-", "00000000", "a@example.org/", "customer:"):
        counts = np.bincount(groups_of([f"{prefix}{number}" for number in range(6_400)]), minlength=GROUPS)
        found.append(float(np.square(counts - 100).sum() / 100))
    # A chi-square of 63 degrees of freedom, five times.
    assert all(30 < one < 110 for one in found), found
    assert 47 < np.mean(found) < 80


@settings(max_examples=50, deadline=None)
@given(ASKED, st.integers(0, 30))
def test_groups_add_over_pods_and_hours(asked: list[tuple[str, int]], cut: int) -> None:
    parts = [asked[:cut], asked[cut:]]
    counts = [
        FeatureCounts(
            profile="p",
            rows=sum(rows for _, rows in part),
            cells=[],
            subjects=grouped([who for who, _ in part], [rows for _, rows in part]).tolist() if part else [],
        )
        for part in parts
    ]
    whole = FeatureCounts.sum_of(counts)
    wanted = grouped([who for who, _ in asked], [rows for _, rows in asked]).tolist()
    assert whole.subjects == (wanted if asked else [])
    assert FeatureCounts.sum_of(counts[::-1]) == whole


def test_counts_of_servers_that_told_of_no_subjects_can_be_read_and_added() -> None:
    old = FeatureCounts.model_validate_json('{"profile":"p","rows":3,"cells":[3]}')
    new = FeatureCounts(profile="p", rows=2, cells=[2], subjects=[2, *[0] * (GROUPS - 1)])
    assert FeatureCounts.sum_of([old, new]).subjects == new.subjects
    assert FeatureCounts.sum_of([old]).subjects == []
    with pytest.raises(InvalidInputError, match="64 groups"):
        FeatureCounts.sum_of([new, new.model_copy(update={"subjects": [1]})])
    assert "subjects" in FeatureRollup.model_json_schema()["$defs"]["FeatureCounts"]["properties"]


@pytest.mark.parametrize(("subjects", "each"), [(20, 1_000), (100, 1), (100, 50), (1_000, 7), (20_000, 3)])
def test_rows_of_so_many_subjects_are_worth_about_as_many(subjects: int, each: int) -> None:
    found = []
    for trial in range(20):
        groups = grouped([f"{trial}/{number}" for number in range(subjects)], [each] * subjects)
        found.append(worth_of(subjects * each, groups.tolist()).rows)
    # Each is off by 18 %; one that is worth more than its rows is held at them.
    assert 0.8 * subjects < np.median(found) <= min(1.2 * subjects, subjects * each)
    assert max(found) <= subjects * each


def test_few_that_ask_for_most_are_worth_few() -> None:
    many = [f"user {number}" for number in range(1_000)]
    groups = grouped([*many, "one"], [*[1] * 1_000, 1_000])
    assert 3 < worth_of(2_000, groups.tolist()).rows < 5
    assert worth_of(500, grouped(["one"], [500]).tolist()).rows == pytest.approx(1.0)


def test_rows_of_nobody_are_worth_as_many_as_they_are() -> None:
    assert worth_of(500, []) == worth_of(500, [0] * GROUPS) == Worth(500)
    assert worth_of(0, []) == Worth(0)
    both = worth_of(1_000, grouped(["one"], [100]).tolist())
    assert both.rows == pytest.approx(1_000**2 / (900 + 100**2))


def test_a_request_without_a_subject_stands_for_itself() -> None:
    assert grouped([None, None], [1, 1]).tolist() == [0] * GROUPS
    assert sorted(grouped([None, "one"], [30, 2]).tolist())[-3:] in ([0, 2, 30], [0, 0, 32])
    random.seed(1)  # what is drawn by chance lies beyond these bounds now and then
    spread = grouped([None] * 2_000, [5] * 2_000)
    assert 1_300 < worth_of(10_000, spread.tolist()).rows < 3_300
