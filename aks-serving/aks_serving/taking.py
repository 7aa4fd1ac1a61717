"""Takes down what one version is asked and answers, and counts it by its reference profile, and by those beside it.

Taking down is for the event loop, and costs a request little; counting is for the thread of aks_serving.features.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from aks_serving.batches import bytes_of
from aks_serving.counts import Asked, VersionTally
from aks_serving.profiles import names_of
from aks_serving.tensors import Array, Feeds
from shared.telemetry.features import FeatureCounts, beside_key
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile
from shared.telemetry.subjects import grouped

if TYPE_CHECKING:
    from aks_serving.features import Features

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 1024
_BYTES_AT_ONCE = 8_000_000


class Fate(StrEnum):
    """What became of a row that was to be looked at."""

    COUNTED = "counted"
    LEFT_OUT = "left_out"
    """It was not in the share that is counted."""
    DROPPED = "dropped"
    """The thread could not keep up."""
    WITHOUT_PROFILE = "without_profile"
    """Its version has a profile, which could not be read."""


class FeatureCounter:
    """Counts what one version does in one role. On the event loop, but for what is said to be on the thread.

    `profile` is None where it could not be read: rows are then counted by number alone. By `profiles` they are counted,
    each under its key: the version's own, and those `beside` it.
    """

    def __init__(
        self,
        features: "Features",
        endpoint: str,
        key: str,
        profile: Profile | None,
        outputs: Sequence[str],
        *,
        beside: tuple[Profile, ...] = (),
    ) -> None:
        """`outputs` are the names of the version's outputs, in its order."""
        self.endpoint = endpoint
        self.key = key
        self.profile = profile
        self.beside = beside
        self.profiles = {} if profile is None else {key: profile}
        self.profiles |= {beside_key(key, other.id): other for other in beside}
        wanted = {name for one in self.profiles.values() for name in names_of(one)}
        self._wanted = frozenset(wanted)
        self._outputs = tuple((place, name) for place, name in enumerate(outputs) if name in wanted)
        self._features = features
        self._tallies: dict[str, FeatureTally] = {}
        self._fresh = Batch()
        self._dropped = 0
        self._dropped_later = 0
        """Of what was handed over. The thread's."""

    def saw(self, tally: VersionTally, feeds: Feeds, outputs: Sequence[Array], asked: Asked = ((), ())) -> None:
        """Rows were answered: `outputs` in the signature's order. No array changes afterwards. Never raises.

        `asked` says whose requests they are and of how many rows each, in the rows' order; empty where nobody knows.
        """
        try:
            rows = len(next(iter(feeds.values())))
            if not self.profiles:
                tally.looked_at(Fate.WITHOUT_PROFILE, rows)
                return
            wanted = self._wanted
            arrays = {name: array for name, array in feeds.items() if name in wanted}
            for place, name in self._outputs:
                arrays[name] = outputs[place]
            self._take_down(tally, arrays, rows, (asked[0], (rows,)) if len(asked[0]) == 1 else asked)
        except Exception:
            log.exception("rows of %s of endpoint %s are lost to the feature window", self.key, self.endpoint)

    def _take_down(self, tally: VersionTally, arrays: dict[str, Array], rows: int, asked: Asked) -> None:
        features = self._features
        chosen = features.chosen(rows)
        if chosen is not None and len(chosen) < rows:
            tally.looked_at(Fate.LEFT_OUT, rows - len(chosen))
            asked = _chosen_of(asked, chosen, rows)
            arrays, rows = {name: array[chosen] for name, array in arrays.items()}, len(chosen)
            if not rows:
                return
        features.saw(self)
        fresh = self._fresh
        if features.is_behind:
            self._dropped += rows
            tally.looked_at(Fate.DROPPED, rows)
            return
        # A subject is the caller's to name, however long.
        size_bytes = bytes_of(arrays) + sum([len(subject) for subject in asked[0] if subject is not None])
        fresh.parts.append((arrays, rows))
        fresh.subjects += asked[0]
        fresh.sizes += asked[1]
        fresh.rows += rows
        fresh.size_bytes += size_bytes
        tally.looked_at(Fate.COUNTED, rows)
        if features.holds(size_bytes) or fresh.rows >= _ROWS_AT_ONCE or fresh.size_bytes >= _BYTES_AT_ONCE:
            self._fresh = Batch()
            features.hand_over(self, fresh)

    def taken(self) -> "Taken":
        """What is to be written now, which is forgotten here."""
        taken = Taken(self, self._fresh, self._dropped)
        self._fresh, self._dropped = Batch(), 0
        return taken

    def fold(self, batch: "Batch") -> None:
        """Count rows. On the thread."""
        groups = _grouped(batch)
        for key, profile in self.profiles.items():
            try:
                tally = self._tallies.get(key)
                if tally is None:
                    tally = self._tallies[key] = FeatureTally(profile)
                for arrays, rows in batch.parts:
                    tally.saw(arrays, rows)
                tally.fold()
                if groups is not None:
                    tally.asked_by(groups)
            except Exception:
                what = "%d rows of %s of endpoint %s are lost to the feature window"
                log.exception(what, batch.rows, key, self.endpoint)

    def drop(self, batch: "Batch") -> None:
        """Count no rows, but that they were dropped. On the thread."""
        self._dropped_later += batch.rows

    def take_dropped(self) -> int:
        """How many rows were dropped since the last time. On the thread."""
        rows, self._dropped_later = self._dropped_later, 0
        return rows

    def take(self) -> dict[str, FeatureCounts]:
        """What was counted since the last time, by key. On the thread."""
        return {key: tally.take() for key, tally in self._tallies.items()}


@dataclass(slots=True)
class Batch:
    """Rows as they came, to be counted together."""

    parts: list[tuple[Mapping[str, Array], int]] = field(default_factory=list)
    rows: int = 0
    size_bytes: int = 0
    subjects: list[str | None] = field(default_factory=list)
    """Of the requests that they came in, as far as they are known; and so many rows each."""
    sizes: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a counter had when its window closed: rows that are not counted yet, and how many were dropped."""

    counter: FeatureCounter
    batch: Batch
    dropped: int


def _chosen_of(asked: Asked, chosen: Array, rows: int) -> Asked:
    """The requests with the rows that were chosen of each."""
    subjects, sizes = asked
    if sum(sizes) != rows:  # nobody knows
        return (), ()
    of_request = np.repeat(np.arange(len(sizes)), sizes)[chosen]
    return subjects, np.bincount(of_request, minlength=len(sizes)).tolist()


def _grouped(batch: Batch) -> Array | None:
    """Its rows by groups of subjects; None where they cannot be told, or are all independent."""
    if sum(batch.sizes) > batch.rows:
        log.error("%d rows came with subjects of %d: the subjects are lost", batch.rows, sum(batch.sizes))
        return None
    try:
        groups = grouped(batch.subjects, batch.sizes)
    except Exception:
        log.exception("the subjects of %d rows are lost to the feature window", batch.rows)
        return None
    return groups if groups.any() else None
