"""A version's traffic beside the stable version's in the same hours: what they can be compared by, hour for hour.

Each version is counted by its own profile, and where they count what comes in differently, the stable version by that
of the other too: what came in is then compared in the other's bins. Where it is not counted so, those features can be
compared that have the same bins in both. What two versions answer differs by nature: it is compared only where both
profiles hold it in the same bins. A season, a busy night or a sale moves both sides, and is no fault of the
candidate's: so of each hour as many rows of either side are taken, those of the side with more being scaled down.
Otherwise a share that grows from hour to hour would set the candidate's evening beside stable's morning. Of subjects,
too, what counts is how they share in those rows. Loads numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from shared.drift.looks import Looks
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import (
    AnswerSource,
    CategoryFeature,
    Feature,
    NumberFeature,
    Profile,
    ReconstructionSource,
)
from shared.telemetry.subjects import GROUPS, worth_of

type Cells = NDArray[np.int64]
type Floats = NDArray[np.float64]
type Hours = Mapping[datetime, FeatureCounts]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What two versions had in the same hours, as many rows of each."""

    first: FeatureCounts
    second: FeatureCounts
    by_hour: Sequence[FeatureCounts]
    """The first's, by hour; and how many independent rows those of each hour are worth."""
    worth_by_hour: Sequence[float]
    looks: Looks
    """What all rows are worth: the second's are the reference."""


class Common:
    """The features by which two versions can be compared."""

    def __init__(self, profile: Profile, other: Profile | None, *, by_first: bool = False) -> None:
        """`by_first`: both sides are counted by the first profile; `other` is the second version's own."""
        theirs = {feature.name: feature for feature in other.features} if other else {}
        held = [
            feature
            for feature in profile.features
            if (by_first and not isinstance(feature.source, AnswerSource))
            or _is_alike(feature, theirs.get(feature.name))
        ]
        self.profile = Profile(rows=profile.rows, features=tuple(held))
        """Of those features alone, as the first profile has them."""
        self.missing = tuple(feature.name for feature in profile.features if feature not in held)
        self._cells = tuple(_places(of, self.profile) for of in (profile, profile if by_first else other))

    def beside(self, hours: Hours, others: Hours, *, part: int = 0) -> Compared:
        """The counts of both sides, as many rows of each. `part` is as shared.drift.looks.Looks has it."""
        pairs = [(counts, others[hour]) for hour, counts in sorted(hours.items()) if hour in others]
        # Whole rows are made of the sum: of an hour's few rows they would be those of the most frequent bins alone.
        exact, total = np.zeros((2, self.profile.width)), 0
        groups, by_hour, worth = np.zeros((2, GROUPS)), [], []
        for counts, other in pairs:
            rows = min(counts.rows, other.rows)
            if rows:
                total += rows
                for at, found in enumerate((counts, other)):
                    scaled = np.array(found.cells, dtype=np.float64)[self._cells[at]] * (rows / found.rows)
                    in_groups = np.array(found.subjects or [0] * GROUPS) * (rows / found.rows)
                    exact[at] += scaled
                    groups[at] += in_groups
                    if not at:
                        by_hour.append(self._counts(scaled, rows))
                        worth.append(worth_of(rows, in_groups).rows)
        first, second = (self._counts(side, total) for side in exact)
        actual, reference = (worth_of(total, of) for of in groups)
        return Compared(
            first=first,
            second=second,
            by_hour=by_hour,
            worth_by_hour=worth,
            looks=Looks(reference=reference, actual=actual, part=part),
        )

    def _counts(self, exact: Floats, rows: int) -> FeatureCounts:
        return FeatureCounts(profile=self.profile.id, rows=rows, cells=_whole(self.profile, exact, rows).tolist())


def _is_alike(one: Feature, other: Feature | None) -> bool:
    # What a reconstruction is made of all columns by is its own.
    if other is None or one.source != other.source or isinstance(one.source, ReconstructionSource):
        return False
    if isinstance(one, NumberFeature) and isinstance(other, NumberFeature):
        return one.edges == other.edges
    if isinstance(one, CategoryFeature) and isinstance(other, CategoryFeature):
        return (one.categories, set(one.rare)) == (other.categories, set(other.rare))
    return False


def _places(profile: Profile | None, part: Profile) -> Cells:
    """Where the cells of a part's features stand among all."""
    cells = profile.cells() if profile else {}
    held = [np.arange(cells[feature.name].start, cells[feature.name].stop) for feature in part.features]
    return np.concatenate(held).astype(np.int64) if held else np.zeros(0, dtype=np.int64)


def _whole(profile: Profile, exact: Floats, rows: int) -> Cells:
    """Each feature's cells in whole rows: the bins by largest remainder, so that they add up to so many."""
    found = np.rint(exact).astype(np.int64)
    start = 0
    for feature in profile.features:
        bins = slice(start, start + feature.bins)
        down = np.floor(exact[bins]).astype(np.int64)
        missing = max(0, rows - int(down.sum()))
        down[np.argsort(down - exact[bins], kind="stable")[:missing]] += 1
        found[bins] = down
        if isinstance(feature, NumberFeature):
            # Those that are infinite are among those that are not missing.
            found[bins.stop] = min(found[bins.stop], rows - down[-1])
        start += feature.width
    return found
