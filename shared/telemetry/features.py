"""Feature counts: what one pod, or many, saw of one version's traffic, in the bins of its reference profile.

A flat row of whole numbers, which add: counts of any pods, in any order and any grouping, are the counts of all rows at
once, exactly. Sums of values are kept in whole steps of 1/1024 of the reference's standard deviation for that reason.
Loads numpy where something is added.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self

from msgspec import Meta, field

from shared.core.contracts import Aware, Contract, Count, First
from shared.core.errors import InvalidInputError
from shared.telemetry.names import window_name
from shared.telemetry.subjects import GROUPS

STEPS = 1024
"""Of a standard deviation."""
MOST_SPREADS = 64
"""A value farther from the mean is summed as if it were so far away."""
MAX_CELL = 2**62

type Cell = Annotated[int, Meta(ge=-MAX_CELL, le=MAX_CELL)]


class FeatureCounts(Contract, frozen=True, kw_only=True):
    """Rows, counted by a profile: its cells, in its order.

    Of each number: rows by bin, the missing last; infinite ones; of the finite ones the sum of z = (x - mean) / spread
    in whole steps of 1/STEPS, and that of the squares of these steps. Of each category: rows by bin.

    `subjects` are rows by groups of the subjects that asked for them (shared.telemetry.subjects); empty where no
    request named one. Rows that are in none are independent.
    """

    profile: str
    rows: Count = 0
    cells: list[Cell]
    subjects: list[Count] = field(default_factory=list)

    @classmethod
    def sum_of(cls, parts: Sequence["FeatureCounts"]) -> Self:
        """The counts of all rows, of one part or more. A sum of squares that is more than a cell holds is held at that:
        a billion rows come to it that all lie MOST_SPREADS away. Raises InvalidInputError where two profiles counted
        them, and where they are more than can be counted.
        """
        profiles = sorted({(part.profile, len(part.cells)) for part in parts})
        if len(profiles) != 1:
            named = ", ".join(f"{profile[:12]} ({width} cells)" for profile, width in profiles) or "none"
            raise InvalidInputError(f"counts of one profile can be added, and these are of {named}")
        import numpy as np  # noqa: PLC0415

        total, size = np.zeros(profiles[0][1], dtype=np.int64), np.zeros(profiles[0][1])
        for part in parts:
            cells = np.array(part.cells, dtype=np.int64)
            total += cells
            size += np.abs(cells)
        rows = sum(part.rows for part in parts)
        if rows > MAX_CELL:
            raise InvalidInputError(f"there are {rows:.3g} rows, and {MAX_CELL} can be counted: add fewer at once")
        total[size > MAX_CELL] = MAX_CELL
        return cls(
            profile=profiles[0][0],
            rows=rows,
            cells=total.tolist(),
            subjects=_added([part.subjects for part in parts if part.subjects]),
        )


class FeatureWindow(Contract, frozen=True, kw_only=True):
    """What one pod saw of the versions of one endpoint, in some minutes. Written once, and never changed.

    `versions` is keyed by the version and what it was to its endpoint, as in `3:stable`, and by `beside_key`. `share`
    of the rows were counted, drawn at random; `dropped` rows of them were not, by the same keys, since the pod could
    not keep up.
    """

    schema_version: First = 1
    endpoint: str
    pod: str
    sequence: Count
    started_at: Aware
    ended_at: Aware
    share: Annotated[float, Meta(gt=0, le=1)] = 1.0
    versions: dict[str, FeatureCounts] = field(default_factory=dict)
    dropped: dict[str, Count] = field(default_factory=dict)


def _added(parts: Sequence[Sequence[int]]) -> list[int]:
    """The sums of rows by group. Raises InvalidInputError where the groups are not as many."""
    if len({len(part) for part in parts}) > 1:
        raise InvalidInputError(f"rows by groups of subjects are of {GROUPS} groups, and these differ in number")
    return [sum(group) for group in zip(*parts, strict=True)]


def beside_key(key: str, profile: str) -> str:
    """The key of a version's counts by the profile of another that it is compared with, as in `3:stable@<digest>`: the
    same rows once more, in that one's bins.
    """
    return f"{key}@{profile}"


def feature_window_blob_name(endpoint: str, ended_at: datetime, pod: str, sequence: int) -> str:
    """Where a feature window is stored, within the telemetry container, by the minute of its end."""
    return window_name(feature_folder(endpoint), ended_at, pod, sequence)


def feature_folder(endpoint: str) -> str:
    """What the feature windows of an endpoint lie in."""
    return f"{endpoint}/features"
