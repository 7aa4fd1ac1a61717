"""What both sides of a comparison have of each feature, from counts of one profile. Loads numpy."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.core.errors import InvalidInputError
from shared.telemetry.features import MOST_SPREADS, STEPS, FeatureCounts
from shared.telemetry.profile import Feature, NumberFeature, Profile
from shared.telemetry.subjects import GROUPS

type Counts = NDArray[np.int64]
type Floats = NDArray[np.float64]

_MOST_STEPS = MOST_SPREADS * STEPS
"""Of one row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side's cells of a feature."""

    bins: Counts
    infinite: int = 0
    steps: int = 0
    squares: int = 0

    @property
    def rows(self) -> int:
        """All rows."""
        return int(self.bins.sum())

    @property
    def unusable(self) -> int:
        """Rows that are missing, infinite or unseen."""
        return int(self.bins[-1]) + self.infinite

    @property
    def usable(self) -> Floats:
        """Rows that are usable, and those that are not. Shape [2]."""
        return np.array([self.rows - self.unusable, self.unusable], dtype=np.float64)


def check_counts(profile: Profile, counts: FeatureCounts) -> None:
    """Raises InvalidInputError where counts are not of this profile, or contradict themselves."""
    if counts.profile != profile.id or len(counts.cells) != profile.width:
        raise InvalidInputError(
            f"counts by profile {counts.profile[:12]} in {len(counts.cells)} cells cannot be held against profile "
            f"{profile.id[:12]} with {profile.width}: take those of the same profile"
        )
    if len(counts.subjects) not in {0, GROUPS} or sum(counts.subjects) > counts.rows:
        raise InvalidInputError(
            f"{sum(counts.subjects)} rows in {len(counts.subjects)} groups of subjects were found, and wanted are "
            f"{counts.rows} at most, in {GROUPS}: the counts are damaged"
        )
    start = 0
    for feature in profile.features:
        bins = counts.cells[start : start + feature.bins]
        if min(bins) < 0 or sum(bins) != counts.rows:
            raise InvalidInputError(
                f"feature {feature.name!r} was counted {sum(bins)} times in {counts.rows} rows: the counts are damaged"
            )
        if isinstance(feature, NumberFeature):
            infinite, steps, squares = counts.cells[start + feature.bins : start + feature.width]
            are_possible = 0 <= infinite <= counts.rows - bins[-1] and abs(steps) <= counts.rows * _MOST_STEPS
            if not are_possible or not 0 <= squares <= counts.rows * _MOST_STEPS**2:
                raise InvalidInputError(
                    f"feature {feature.name!r}: {infinite} infinite rows, and sums of {steps} and {squares}, cannot be "
                    f"of {counts.rows} rows, {bins[-1]} of them missing: the counts are damaged"
                )
        start += feature.width


def by_feature(
    profile: Profile, counts: FeatureCounts, beside: FeatureCounts | None
) -> Iterator[tuple[Feature, Side, Side]]:
    """Each feature with the reference's side, or that of the counts beside, and the counts'."""
    for feature, place in zip(profile.features, profile.cells().values(), strict=True):
        actual = _side(feature, counts.cells[place])
        if beside is not None:
            yield feature, _side(feature, beside.cells[place]), actual
        else:
            infinite = feature.infinite if isinstance(feature, NumberFeature) else 0
            yield feature, Side(bins=np.array(feature.counts, dtype=np.int64), infinite=infinite), actual


def _side(feature: Feature, cells: Sequence[int]) -> Side:
    bins = np.array(cells[: feature.bins], dtype=np.int64)
    if not isinstance(feature, NumberFeature):
        return Side(bins=bins)
    infinite, steps, squares = cells[feature.bins :]
    return Side(bins=bins, infinite=infinite, steps=steps, squares=squares)
