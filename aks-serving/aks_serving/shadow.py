"""Shadows: versions that get copies of answered requests, and whose outputs are compared with the answers, and dropped.

A request is copied once it is answered, and what it held of the plan's counts is held until its copies are done with.
A shadow gets the share `mirror_bp` of the requests that the plan assigned, drawn by a hash of the subject that knows
nothing of the assignment's (the same subjects, whatever the rollout does), or at random where there is no subject.
Requests whose caller named the version are not copied. Copies run in spare capacity alone (aks_serving.spare).

Compared are the first output, where one value that differs in any row makes the request a disagreement, and the
numbers of the first floating-point output. Numbers agree within RTOL of the answer's, or ATOL; all else must be equal.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from aks_serving.batches import Results, run_calls
from aks_serving.counts import Asked, Kind, Tally, add_shadow
from aks_serving.errors import ModelRunError
from aks_serving.lanes import Lane
from aks_serving.spare import Copy, Spare, Target
from aks_serving.tensors import Array, Feeds, is_real
from shared.core.errors import InvalidInputError
from shared.routing.assignment import bucket
from shared.routing.plan import FULL_WEIGHT_BP, Route, RoutePlan
from shared.telemetry.feedback import MILLION
from shared.telemetry.window import ShadowCounts

if TYPE_CHECKING:
    from aks_serving.predictor import Ask
    from aks_serving.taking import FeatureCounter

log = logging.getLogger(__name__)

RTOL, ATOL = 1e-3, 1e-5
_MAX_DIFFERENCE = 1e15
"""A difference beyond it enters no sum: its square, summed, might be no finite number."""
_EXACT = 2.0**53
"""Up to it sums of whole numbers are exact as floats."""


class Mirrors:
    """The shadows of one snapshot. Used from the event loop alone."""

    def __init__(self, mirrors: Sequence["Mirror"], lanes: Mapping[int, Lane]) -> None:
        self._mirrors = mirrors
        self._lanes = lanes
        self._spare = mirrors[0].spare
        self._copy_all = all(mirror.copies_all for mirror in mirrors)
        self._shed = 0
        """Requests that every shadow was to get and none had room for, since they were counted last."""

    def copy(self, ask: "Ask", results: Results, start: int, stop: int) -> None:
        """Copy a request that was answered with its rows of the results. Never raises."""
        if ask.kind is Kind.PINNED or self._sheds(1):
            return
        try:
            given: Sequence[Array] | None = None
            for mirror in self._mirrors:
                if mirror.chooses(ask.subject) and mirror.has_room():
                    given = given or _kept(results, start, stop)
                    mirror.offer(ask, self._lanes[ask.route.version], given)
        except Exception:
            log.exception("copying a request for the shadows went wrong")

    def copy_together(self, asks: "Sequence[Ask]", results: Results, *, but: "Sequence[Ask]" = ()) -> None:
        """Copy the requests of a batch that the plan assigned, `but` those that were not answered. Never raises."""
        if self._sheds(len(asks) - len(but)):
            return
        start = 0
        for ask in asks:
            stop = start + (ask.rows or 0)
            if ask not in but:
                self.copy(ask, results, start, stop)
            start = stop

    def counted_by(self, counters: "Mapping[int, FeatureCounter]") -> None:
        """Have the features of what is copied counted, by version."""
        for mirror in self._mirrors:
            mirror.counter = counters.get(mirror.version)

    def count(self) -> None:
        """Take what was copied or shed since the last time into the counts."""
        for mirror in self._mirrors:
            mirror.shed(self._shed)
            mirror.count_fresh()
        self._shed = 0

    def _sheds(self, requests: int) -> bool:
        """Whether no copy of so many requests need be made at all, which must cost next to nothing."""
        if self._copy_all and self._spare.is_full:
            self._shed += requests
            return True
        return False


class Mirror(Target):
    """One shadow of one snapshot."""

    def __init__(self, route: Route, lane: Lane, tally: Tally, spare: Spare, *, plan: RoutePlan) -> None:
        self.loaded = lane.loaded
        self.endpoint = plan.endpoint
        self.version = route.version
        self._share_bp = route.mirror_bp
        self._salt = f"shadow {route.version} of {plan.salt}"
        self._lane = lane
        self._tally = tally
        self.spare = spare
        self._takes_same: dict[int, bool] = {}
        self._mirrored = self._shed = 0
        self.counter: FeatureCounter | None = None
        """What counts the features of what is copied, where anything does."""
        self._ran: deque[tuple[Feeds, Sequence[Array], Asked]] = deque()
        """Inputs and outputs of runs that are not counted yet, and whose requests they were."""

    def chooses(self, subject: str | None) -> bool:
        """Whether a subject's requests are copied; without one, whether this request is."""
        if self._share_bp == FULL_WEIGHT_BP:
            return True
        if subject is None:
            return random.randrange(FULL_WEIGHT_BP) < self._share_bp  # noqa: S311 - a draw, no secret
        return bucket(self._salt, subject) < self._share_bp

    @property
    def copies_all(self) -> bool:
        """Whether every request is to be copied."""
        return self._share_bp == FULL_WEIGHT_BP

    def shed(self, requests: int) -> None:
        """Count the copies of so many requests as shed."""
        self._mirrored += requests
        self._shed += requests

    def has_room(self) -> bool:
        """Whether a copy need be made at all; counts what is shed at once, which must cost next to nothing."""
        self._mirrored += 1
        if self.spare.is_full:
            self._shed += 1
            return False
        return True

    def offer(self, ask: "Ask", ran: Lane, given: Sequence[Array]) -> None:
        """Have a copy run in spare capacity."""
        if self.spare.offer(self, self._copy(ask, ran, given)):
            self._tally.in_flight += 1
        else:
            self._shed += 1

    def count_fresh(self) -> None:
        """Take what was copied or shed since the last time into the counts."""
        if self._mirrored:
            add_shadow(self._tally.of(self.version).shadowed(), ShadowCounts(mirrored=self._mirrored, shed=self._shed))
            self._mirrored = self._shed = 0

    def run(self, copies: Sequence[Copy]) -> ShadowCounts:
        for copy in copies:
            if copy.reread is not None:
                try:
                    copy.feeds = copy.reread()
                except InvalidInputError:
                    return ShadowCounts(errors=1)  # such a copy runs alone
        return self._compared(copies)

    def _compared(self, copies: Sequence[Copy]) -> ShadowCounts:
        """Run copies, of which only the guilty fail: the halves of a batch that fails are run again."""
        outcome = run_calls(self.loaded, copies)
        if isinstance(outcome, ModelRunError):
            if len(copies) == 1:
                return ShadowCounts(errors=1)
            middle = len(copies) // 2
            counts = self._compared(copies[:middle])
            add_shadow(counts, self._compared(copies[middle:]))
            return counts
        if self.counter is not None:
            ran = (
                [(outcome, copies)]
                if isinstance(outcome, Results)
                else zip(outcome, ([copy] for copy in copies), strict=True)
            )
            for result, of in ran:
                if isinstance(result, Results):
                    self._ran.append((result.feeds, result.arrays, _asked(of)))
        if isinstance(outcome, Results):
            return compared([copy.given for copy in copies], outcome.arrays)
        total = ShadowCounts()
        for copy, result in zip(copies, outcome, strict=True):
            one = compared([copy.given], result.arrays) if isinstance(result, Results) else ShadowCounts(errors=1)
            add_shadow(total, one)
        return total

    def count(self, copies: int, counts: ShadowCounts) -> None:
        tally = self._tally.of(self.version)
        add_shadow(tally.shadowed(), counts)
        while self._ran and self.counter is not None:
            self.counter.saw(tally, *self._ran.popleft())
        self._tally.in_flight -= copies
        self.spare.used_s[self._lane] = perf_counter()

    def _copy(self, ask: "Ask", ran: Lane, given: Sequence[Array]) -> Copy:
        lane = self._lane
        same = self._takes_same.get(ran.model.version)
        if same is None:
            same = ran.model.signature.inputs == lane.model.signature.inputs and ran.layout == lane.layout
            self._takes_same[ran.model.version] = same
        if same or ask.read is None:
            rows = ask.rows if lane.batchable else None
            return Copy(given, packed=ask.packed, feeds=ask.feeds, rows=rows, key=ask.key, subject=ask.subject)
        read, signature = ask.read, lane.model.signature
        return Copy(given, reread=lambda: read(signature), held_bytes=ask.held_bytes, subject=ask.subject)


def _asked(copies: Sequence[Copy]) -> Asked:
    return [copy.subject for copy in copies], [copy.given[0].shape[0] for copy in copies] if len(copies) > 1 else ()


def mirrors_of(plan: RoutePlan, lanes: Mapping[int, Lane], tally: Tally) -> Mirrors | None:
    """The shadows of a plan that are loaded and get copies, or None where there are none."""
    mirrors = [
        Mirror(route, lanes[route.version], tally, lanes[route.version].spare, plan=plan)
        for route in plan.shadows
        if route.mirror_bp and route.version in lanes
    ]
    return Mirrors(mirrors, lanes) if mirrors else None


def compared(given: Sequence[Sequence[Array]], shown: Sequence[Array]) -> ShadowCounts:
    """Compare what was answered to each of several requests, whose first dimension is rows, with all that the shadow
    gave, in the same order. Pure.
    """
    if len(given) > 1 and len({tuple((array.shape[1:], array.dtype) for array in part) for part in given}) == 1:
        rows = [part[0].shape[0] for part in given]
        joined = [np.concatenate(arrays) for arrays in zip(*given, strict=True)]
        starts = np.cumsum([0, *rows[:-1]])
        return _counted(joined, shown, lambda differs: int(np.logical_or.reduceat(differs, starts).sum()), len(given))
    if len(given) > 1:
        total, start = ShadowCounts(), 0
        for part in given:
            stop = start + part[0].shape[0]
            add_shadow(total, compared([part], [array[start:stop] for array in shown]))
            start = stop
        return total
    return _counted(given[0], shown, lambda differs: int(differs.any()), 1)


def _counted(
    given: Sequence[Array], shown: Sequence[Array], disagreements: Callable[[Array], int], requests: int
) -> ShadowCounts:
    first = _differs(given[0], shown[0])
    counts = ShadowCounts(compared=requests, disagreements=requests if first is None else disagreements(first))
    number = next((place for place, array in enumerate(given) if is_real(array)), None)
    if (
        number is None
        or number >= len(shown)
        or not is_real(shown[number])
        or shown[number].shape != given[number].shape
    ):
        return counts
    differences = _differences(given[number], shown[number])
    differences = differences[np.abs(differences) < _MAX_DIFFERENCE]  # which no NaN is
    counts.numbers = differences.size
    # Rounded one by one: a sum is the same however its parts came. A millionth is a tenth of what counts as equal.
    counts.difference_millionths, counts.squared_millionths = _sums(np.rint(differences * MILLION))
    return counts


def _sums(whole: Array) -> tuple[int, int]:
    """The sum of whole numbers, floats of any shape, and that of their squares: exact."""
    squares = np.square(whole)
    if whole.size * squares.max(initial=0.0) < _EXACT:
        return int(whole.sum()), int(squares.sum())
    numbers = [int(one) for one in whole.ravel().tolist()]
    return sum(numbers), sum(one * one for one in numbers)


def _differs(given: Array, shown: Array) -> Array | None:
    """Whether each row differs; None where nothing can be compared."""
    if given.shape != shown.shape or (given.dtype.kind == "O") != (shown.dtype.kind == "O"):
        return None
    if is_real(given) or is_real(shown):
        wanted, difference = given.astype(np.float64), _differences(given, shown)
        alike = np.where(
            np.isfinite(difference),
            np.abs(difference) <= ATOL + RTOL * np.abs(wanted),
            (given == shown) | (np.isnan(wanted) & np.isnan(shown.astype(np.float64))),
        )
    else:
        alike = np.asarray(given == shown, dtype=bool)
    return ~alike.all(axis=tuple(range(1, alike.ndim))) if alike.ndim else ~alike.reshape(1)


def _differences(given: Array, shown: Array) -> Array:
    with np.errstate(invalid="ignore", over="ignore"):
        return shown.astype(np.float64) - given.astype(np.float64)


def _kept(results: Results, start: int, stop: int) -> Sequence[Array]:
    """A request's part of the results, without holding on to the whole batch's."""
    return results.arrays if results.whole else [array[start:stop].copy() for array in results.arrays]
