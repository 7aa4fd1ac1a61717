"""Feedback on predictions: a body read, each piece joined to its prediction, and counted into the endpoint's window.

A body is counted whole or not at all. A prediction's id says all that its feedback needs, so that nothing is looked up
and feedback may come late, at any pod, of versions that nobody serves any more. Where the user is all that is known, it
is the version that the plan gives that user now, which another may have answered: it is counted apart (`by_user`), so
that no gate goes by it.

What is sent twice is counted once, as long as this process remembers it: the latest 50,000 to 100,000 predictions. One
that is told of anew later than that, or at another process, is counted again.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from hashlib import sha256

import msgspec

from aks_serving.feedback_items import Accepted, FeedbackItem, read_items, said_of
from aks_serving.serving import Serving, Servings
from aks_serving.subjects import body_subject
from shared.core.clock import Clock
from shared.core.errors import InvalidInputError, SlipwayError, UnavailableError
from shared.routing.plan import Route
from shared.routing.prediction import PredictionId
from shared.telemetry.feedback import BY_USER, MAX_ROWS, Feedback, FeedbackTally, Key, hour_of

MAX_AGE = timedelta(days=90)
CLOCK_SKEW = timedelta(minutes=5)
MAX_AHEAD = 10
"""Plans that another server may have applied, and answered under, and this one not yet."""
_REMEMBERED = 50_000
"""Keys of 8 bytes, of which two such sets are held: 7 MB in a process to which that much feedback comes."""
_AT_ONCE = 25
_VALUE, _LABEL = 0, 1


class FullError(UnavailableError):
    """The window has no room for more kinds of feedback."""

    def __init__(self) -> None:
        super().__init__(
            "feedback", "this window has feedback on as many versions and hours as it holds; the next begins in seconds"
        )


class FeedbackIntake:
    """Takes feedback in. Used from the event loop alone."""

    def __init__(self, servings: Callable[[], Servings], clock: Clock) -> None:
        """`servings` is what answers the endpoints now."""
        self._servings = servings
        self._clock = clock
        self._known = _Known()
        self._counting = asyncio.Lock()

    async def take(self, body: bytes) -> Accepted:
        """Count a body's feedback. Raises InvalidInputError, NotFoundError and UnavailableError; nothing is counted
        then. Of a batch, what is wrong with a piece names that.

        A large body is read and counted in parts, so that predictions wait for none of it for longer than a
        millisecond; what answers the endpoints may be replaced meanwhile.
        """
        now = self._clock.now()
        read: list[_Joined] = []
        items, is_batch = read_items(body)
        for number, item in enumerate(items, start=1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                read.append(_joined(item, number, self._servings(), now))
            except SlipwayError as error:
                if is_batch:
                    error.args = (f"$.feedback[{number - 1}]: {error}",)  # as the decoder names what it refuses
                raise
        async with self._counting:
            accepted = await self._count(read)
        return Accepted(accepted=accepted, repeated=len(read) - accepted)

    async def _count(self, read: list["_Joined"]) -> int:
        found = self._servings()
        for endpoint in {joined.endpoint for joined in read}:
            keys = {joined.feedback.key for joined in read if joined.endpoint == endpoint}
            if len(keys) > MAX_ROWS:
                raise InvalidInputError(
                    f"the body has feedback on {len(keys)} combinations of version, plan, role, reason and hour, and a "
                    f"window holds {MAX_ROWS}: order it by when the predictions were made, and send as many bodies as "
                    f"leave at most {MAX_ROWS} to each, none before the last was taken"
                )
            if not found.named(endpoint).tally.feedback.has_room(keys):
                raise FullError
        accepted = 0
        for number, joined in enumerate(read, start=1):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            # Where an endpoint is gone by now, the snapshot that was found takes its feedback.
            tally = (self._servings().get(joined.endpoint) or found[joined.endpoint]).tally
            accepted += _counted(joined, tally.feedback, self._known)
        return accepted


class _Known:
    """The feedback that came lately, by 8 bytes of each."""

    __slots__ = ("_newer", "_older")

    def __init__(self) -> None:
        self._newer: set[int] = set()
        self._older: set[int] = set()

    def __contains__(self, key: int) -> bool:
        return key in self._newer or key in self._older

    def add(self, key: int) -> None:
        if len(self._newer) >= _REMEMBERED:
            self._newer, self._older = set(), self._newer
        self._newer.add(key)


class _Joined(msgspec.Struct):
    """A piece of feedback, the endpoint that it is counted at, and the key by which it is known when it comes again."""

    endpoint: str
    feedback: Feedback
    known_as: int | None


def _joined(item: FeedbackItem, number: int, servings: Servings, now: datetime) -> _Joined:
    if item.prediction_id is not None:
        return _of_prediction(item, item.prediction_id, servings, now)
    return _of_user(item, number, servings, now)


def _of_prediction(item: FeedbackItem, prediction_id: str, servings: Servings, now: datetime) -> _Joined:
    if item.user_id is not None or item.model is not None:
        raise InvalidInputError("a prediction_id says it all: leave out user_id and model, or the prediction_id")
    prediction = PredictionId.parse(prediction_id)
    serving = servings.named(prediction.endpoint)
    if prediction.generation > serving.plan.generation + MAX_AHEAD:
        raise InvalidInputError(
            f"the prediction is of generation {prediction.generation} of the plan, and this server is at "
            f"{serving.plan.generation}: send the id that an answer named"
        )
    age = now - prediction.at
    if age < -CLOCK_SKEW:
        raise InvalidInputError(
            f"the prediction was made at {prediction.at:%Y-%m-%dT%H:%M:%SZ}, which is to come: it is "
            f"{now:%Y-%m-%dT%H:%M:%SZ} here: send the id that an answer named, and set the clock that is wrong"
        )
    if age > MAX_AGE:
        raise InvalidInputError(
            f"the prediction was made at {prediction.at:%Y-%m-%dT%H:%M:%SZ}, and it is {now:%Y-%m-%dT%H:%M:%SZ} here: "
            f"feedback is taken for {MAX_AGE.days} days"
        )
    key = Key(
        version=prediction.version,
        generation=prediction.generation,
        role=prediction.role.value,
        reason=prediction.reason.value,
        hour=hour_of(prediction.at),
    )
    drawn = sha256(prediction_id.encode()).digest()
    feedback = _feedback(item, key, drawn, delay_s=age.total_seconds())
    return _Joined(serving.plan.endpoint, feedback, int.from_bytes(drawn[8:15]))


def _of_user(item: FeedbackItem, number: int, servings: Servings, now: datetime) -> _Joined:
    if item.user_id is None or item.user_id == "":
        raise InvalidInputError("it says neither prediction_id nor user_id: say which prediction it is of")
    serving = servings.named(item.model)
    if serving.plan.pods is not None:
        raise InvalidInputError(
            f"{serving.plan.endpoint} is rolled out pod by pod, so that a user has no version: send the prediction_id"
        )
    if serving.elsewhere and serving.plan.routes:
        raise InvalidInputError(
            f"versions of {serving.plan.endpoint} have pods of their own, between which the Gateway draws for each "
            "request, so that a user has no version: send the prediction_id"
        )
    subject = body_subject(item.user_id)
    route = _route_of(serving, subject)
    key = Key(
        version=route.version,
        generation=serving.plan.generation,
        role=route.role.value,
        reason=BY_USER,
        hour=hour_of(now),
    )
    drawn = sha256(f"{serving.plan.endpoint}\0{subject}\0{now.timestamp()}\0{number}".encode()).digest()
    return _Joined(serving.plan.endpoint, _feedback(item, key, drawn, delay_s=None), None)


def _route_of(serving: Serving, subject: str) -> Route:
    """Whose a subject is under the plan; where this pod's guard took the candidate out of traffic, stable's."""
    candidate, stable = serving.candidate, serving.stable
    is_open = candidate is not None and (candidate.version not in serving.tripped or stable is None)
    if candidate is not None and is_open and serving.share.holds(subject):
        return candidate
    if stable is None:
        raise serving.absent(None)
    return stable


def _feedback(item: FeedbackItem, key: Key, drawn: bytes, *, delay_s: float | None) -> Feedback:
    said = said_of(item)
    coin = int.from_bytes(drawn[:8]) / 2**64
    return Feedback(key=key, delay_s=delay_s, value=said.value, coin=coin, classes=said.classes, numbers=said.numbers)


def _counted(joined: _Joined, tally: FeedbackTally, known: _Known) -> bool:
    """Count of a piece of feedback what was not known; whether anything was."""
    feedback = joined.feedback
    if joined.known_as is not None:
        parts = {
            _VALUE: feedback.value is not None,
            _LABEL: feedback.classes is not None or feedback.numbers is not None,
        }
        keys = {part: joined.known_as << 1 | part for part, given in parts.items() if given}
        new = {part for part, key in keys.items() if key not in known}
        if not new:
            return False
        for part in new:
            known.add(keys[part])
        feedback = _parts(feedback, new)
    tally.add(feedback)
    return True


def _parts(feedback: Feedback, new: set[int]) -> Feedback:
    has_label = _LABEL in new
    return Feedback(
        key=feedback.key,
        delay_s=feedback.delay_s,
        value=feedback.value if _VALUE in new else None,
        coin=feedback.coin,
        classes=feedback.classes if has_label else None,
        numbers=feedback.numbers if has_label else None,
    )
