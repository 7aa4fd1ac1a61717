"""Which version answers a request, and what happens when it cannot.

A subject's version is decided by the plan and the subject alone, so every pod decides alike; but a pod sends no subject
to a candidate that its own guard has tripped. Where the candidate fails a request (it raises, hangs, is not loaded, or
does not take inputs that stable takes), stable answers it, within the request's deadline, and the error counts against
the candidate. A version that the caller named answers or fails by itself.

The guard hears of a candidate's failure when its request ends, whatever stable then did but fail too. Where a candidate
gets no more traffic, stable answers what still waits for it, as in place of one that failed, and nothing counts against
the candidate.
"""

import logging
import math
import random
from abc import abstractmethod
from collections.abc import Callable, Sequence
from time import perf_counter

from aks_serving.batches import Results, bytes_of
from aks_serving.calls import NORMAL, Call
from aks_serving.counts import Kind
from aks_serving.errors import (
    ElsewhereError,
    ExpiredError,
    LateError,
    LostError,
    ModelRunError,
    NotServingError,
    OverloadedError,
)
from aks_serving.lanes import Lane
from aks_serving.model import Signature
from aks_serving.probe import row_count
from aks_serving.serving import CANDIDATE_FAILED, CANDIDATE_OK, STABLE_FAILED, STABLE_OK, Serving
from aks_serving.tensors import Feeds
from shared.core.errors import InvalidInputError, SlipwayError
from shared.core.tracing import Span
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route

log = logging.getLogger(__name__)

_WRONG = "the server made an error; its log says which"
_ASSIGNED = Kind.ASSIGNED
_NEVER, _IF_ANSWERED, _ALWAYS = range(3)
"""When the guard hears of a run that gave nothing. Where stable answered, the request could be answered in time."""

type Read = Callable[[Signature], Feeds]
"""Reads a request's inputs as a signature wants them, in its order. Raises InvalidInputError."""

_REFUSED: tuple[tuple[type[SlipwayError], str], ...] = (
    (OverloadedError, "overloaded"),
    (ExpiredError, "expired"),
    (InvalidInputError, "invalid"),
    (ElsewhereError, "elsewhere"),
)


class Ask(Call):
    """One prediction, from its assignment to its answer. Used from the event loop alone.

    Made with its inputs either `packed`, in the layout that all versions of the snapshot have, or to be read by `read`
    for the version that runs it.
    """

    __slots__ = ("blame", "kind", "read", "route", "serving", "subject")

    span: Span | None = None
    """The request's span, where it has one."""

    def __init__(
        self,
        serving: Serving,
        started_s: float,
        packed: bytes | None = None,
        rows: int | None = None,
        read: Read | None = None,
        held_bytes: int = 0,
        deadline_s: float = math.inf,
        priority: int = NORMAL,
    ) -> None:
        """`held_bytes` is what `read` holds. By position: one is made for each request."""
        self.serving = serving
        self.started_s = started_s
        self.packed = packed
        self.rows = rows
        self.feeds = None
        self.key = None
        self.input_bytes = 0 if packed is None else len(packed)
        self.held_bytes = held_bytes
        self.read = read
        self.deadline_s = deadline_s
        self.priority = priority
        self.kind = _ASSIGNED
        self.blame = _ALWAYS

    @abstractmethod
    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:
        """Answer with the call's part of the results. Raises InvalidInputError for an answer that cannot be given."""

    @abstractmethod
    def refuse(self, error: SlipwayError) -> None:
        """Answer with an error."""

    def begin(self, *, version: int | None, subject: str | None) -> None:
        """Have the request answered, now or later. Never raises."""
        # Held until a fallback is done too, so that the snapshot's window is not closed for good between the two runs.
        self.serving.tally.in_flight += 1
        self.subject = subject
        try:
            route = self.route = self._assigned(subject) if version is None else self._named(version)
            lane = self.serving.lanes.get(route.version)
            if lane is not None and self.read is None:
                lane.submit(self)
            else:
                self._run(lane)
        except SlipwayError as error:
            self._end(error)
        except Exception:
            log.exception("a request could not be begun")
            self._end(SlipwayError(_WRONG))

    def answered(self, results: Results, start: int, stop: int, now_s: float) -> None:
        serving, kind = self.serving, self.kind
        tally = serving.tally_of(self.route.version)
        tally.answered(kind, (now_s - self.started_s) * 1e3)
        if kind is Kind.ASSIGNED:
            first = results.arrays[0]
            tally.predictions.gave(first if results.whole else first[start:stop])
            features = serving.features.get(self.route.version)
            if features is not None:
                features.saw(tally, results.asked(start, stop), results.of(start, stop), ((self.subject,), ()))
            serving.seen[CANDIDATE_OK if self.route.role is Role.CANDIDATE else STABLE_OK] += 1
        elif kind is Kind.FALLBACK and self.blame != _NEVER:
            serving.seen[CANDIDATE_FAILED] += 1
        try:
            self.give(results, start, stop, now_s)
        except InvalidInputError as error:
            self.refuse(error)
        else:
            if serving.mirrors is not None:
                serving.mirrors.copy(self, results, start, stop)
        serving.tally.in_flight -= 1

    def failed(self, error: SlipwayError) -> None:
        serving = self.serving
        if isinstance(error, ModelRunError):
            serving.tally_of(self.route.version).failed(self.kind, (perf_counter() - self.started_s) * 1e3)
            serving.faults.tell(serving.plan, self.route.version, error, self.span)
        if isinstance(error, (ModelRunError, LostError)) and self._may_fall_back():
            self.blame = _blame(error)
            try:
                self._fall_back()
            except SlipwayError as second:
                self._end(second)
            except Exception:
                log.exception("a request that the candidate failed could not be given to stable")
                self._end(SlipwayError(_WRONG))
            return
        if self.kind is Kind.ASSIGNED and isinstance(error, ModelRunError):
            serving.seen[STABLE_FAILED if self.route.role is Role.STABLE else CANDIDATE_FAILED] += 1
        self._end(error)

    def dropped(self) -> None:
        self._failed_late()
        self.serving.tally.in_flight -= 1
        self.serving.tally.refuse("cancelled")

    @property
    def waits_for_candidate(self) -> bool:
        """Whether the plan assigned it to a candidate that stable can stand in for."""
        return self._may_fall_back()

    def divert(self) -> None:
        """Have stable answer, in place of a candidate that it no longer waits for. Never raises."""
        self.blame = _NEVER
        try:
            self._fall_back()
        except SlipwayError as error:
            self._end(error)
        except Exception:
            log.exception("a request that waited for the candidate could not be given to stable")
            self._end(SlipwayError(_WRONG))

    def _assigned(self, subject: str | None) -> Route:
        serving = self.serving
        candidate, stable = serving.candidate, serving.stable
        weight_bp = serving.candidate_weight_bp
        if candidate is not None and weight_bp:
            if subject is not None:
                falls = serving.share.holds(subject)
            else:
                falls = random.randrange(FULL_WEIGHT_BP) < weight_bp  # noqa: S311 - a draw, no secret
            if falls and (candidate.version not in serving.tripped or stable is None):
                return candidate
        if stable is None:
            raise serving.absent(None)
        return stable

    def _named(self, version: int) -> Route:
        serving = self.serving
        route = serving.routes.get(version)
        if route is None or version not in serving.lanes:
            raise serving.absent(version)
        self.kind = Kind.PINNED
        return route

    def _run(self, lane: Lane | None) -> None:
        if lane is None:
            if self._may_fall_back():
                self._instead_of_candidate()
                return
            raise _not_loaded(self.serving, self.route)
        if self.read is not None:
            try:
                self._read_for(lane)
            except InvalidInputError:
                if not self._may_fall_back():
                    raise
                self._instead_of_candidate()
                return
        lane.submit(self)

    def _may_fall_back(self) -> bool:
        stable = self.serving.stable
        return (
            self.kind is Kind.ASSIGNED
            and self.route.role is Role.CANDIDATE
            and stable is not None
            and stable.version in self.serving.lanes
        )

    def _instead_of_candidate(self) -> None:
        """Stable answers what the candidate cannot take. What stable refuses too is the caller's error, not its."""
        candidate = self.route.version
        stable = self.serving.stable
        if stable is not None:
            self._read_for(self.serving.lanes[stable.version])
        waited_ms = (perf_counter() - self.started_s) * 1e3
        self.serving.tally_of(candidate).failed(Kind.ASSIGNED, waited_ms)
        self._fall_back()

    def _fall_back(self) -> None:
        stable = self.serving.stable
        if stable is None:
            raise NotServingError(f"endpoint {self.serving.plan.endpoint!r}", "it has no stable version")
        self.kind, self.route = Kind.FALLBACK, stable
        lane = self.serving.lanes[stable.version]
        self._read_for(lane)
        lane.submit(self)

    def _read_for(self, lane: Lane) -> None:
        if self.read is None:
            return
        feeds = self.read(lane.model.signature)
        self.packed = self.feeds = self.key = self.rows = None
        if lane.batchable:
            self.rows = row_count(feeds)
        if lane.layout is not None and self.rows:
            self.packed = feeds[lane.layout.name].tobytes()
            self.input_bytes = len(self.packed)
        else:
            self.feeds = feeds
            self.input_bytes = bytes_of(feeds)
            self.key = tuple(array.shape[1:] for array in feeds.values()) if self.rows else None

    def _failed_late(self) -> None:
        """The candidate failed, and stable had no time or room left to answer."""
        if self.kind is Kind.FALLBACK and self.blame == _ALWAYS:
            self.serving.seen[CANDIDATE_FAILED] += 1

    def _end(self, error: SlipwayError) -> None:
        if isinstance(error, (ExpiredError, OverloadedError)):
            self._failed_late()
        self.serving.tally.in_flight -= 1
        why = next((why for kind, why in _REFUSED if isinstance(error, kind)), None)
        if why is not None:
            self.serving.tally.refuse(why)
        self.refuse(error)


def divert_waiting(lane: Lane) -> None:
    """Have stable answer what still waits for a candidate that gets no more traffic. What runs goes on."""
    _divert(lane.take_back(lambda call: isinstance(call, Ask) and call.waits_for_candidate))


def divert_late_halves(lane: Lane, now_s: float) -> None:
    """Have stable answer what waits in a half of a batch that the candidate failed, once half of the time that it is
    allowed is gone. Whether the candidate would fail it is not known, so nothing counts against the candidate.
    """

    def is_late(call: Call) -> bool:
        gone_s, allowed_s = now_s - call.started_s, call.deadline_s - call.started_s
        return gone_s >= allowed_s / 2 and isinstance(call, Ask) and call.waits_for_candidate

    _divert(lane.take_back(is_late, halves=True))


def _divert(calls: Sequence[Call]) -> None:
    for call in calls:
        if isinstance(call, Ask):
            call.divert()


def _blame(error: SlipwayError) -> int:
    if isinstance(error, LostError):
        return _NEVER
    return _IF_ANSWERED if isinstance(error, LateError) else _ALWAYS


def _not_loaded(serving: Serving, route: Route) -> NotServingError:
    reason = serving.failed.get(route.version, "it is not loaded")
    return NotServingError(f"version {route.version} of endpoint {serving.plan.endpoint!r}", reason)
