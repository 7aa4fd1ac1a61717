"""Lifecycle events whose sink was down are told again by timer: one that is down for hours loses none of them, and
leaves no work behind.

Their queue tries a message for less than a minute; then it is a dead letter, which this puts back: after a minute, and
after twice as long each time it fails again, at most an hour. What its sink has not taken in about a day is left for a
person. A letter is put back once for each time that it was kept, however many look at it and whatever they die of.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import islice
from typing import Protocol

from pydantic import ValidationError

from shared.core.clock import Clock
from shared.core.errors import ConflictError
from shared.core.messages import PublishEvent, Queue
from shared.deadletters.documents import DeadLetter, LetterState
from shared.registration.documents import NO_MODEL
from shared.store.unreadable import Unreadable

AT_ONCE = 200
MOST_TIMES = 30
"""How often a letter is put back at most."""
_FIRST_WAIT = timedelta(minutes=1)
_LONGEST_WAIT = timedelta(hours=1)
_DOUBLED = 6
"""After so many waits the longest one is reached."""


class Letters(Protocol):
    """Finds dead letters."""

    def readable(
        self,
        *,
        partition: str | None = None,
        left_out: set[str] | None = None,
        unreadable: list[Unreadable] | None = None,
        **fields: str | int | bool,
    ) -> Iterator[DeadLetter]:
        """The letters with these values in their fields, as far as they can be read."""
        ...


class Replays(Protocol):
    """Puts dead letters back."""

    def replay(self, identity: str, *, by: str, reason: str = "", command_id: str = "") -> DeadLetter:
        """Put one back, once for each `command_id`. Raises ConflictError where it does not wait."""
        ...


class EventRetries:
    """Has the events told again that could not be told. Several at once do no harm."""

    def __init__(self, *, letters: Letters, replays: Replays, clock: Clock, at_once: int = AT_ONCE) -> None:
        """A call puts back `at_once` at most."""
        self._at_once = at_once
        self._letters = letters
        self._replays = replays
        self._clock = clock

    def tell_again(self) -> int:
        """Put back those that have waited long enough. How many."""
        now = self._clock.now()
        kept = self._letters.readable(
            partition=NO_MODEL, state=LetterState.KEPT.value, queue=Queue.LIFECYCLE_EVENTS.value
        )
        put_back = 0
        for letter in list(islice((one for one in kept if is_due(one, now)), self._at_once)):
            try:
                self._replays.replay(
                    letter.id, by="slipway", reason="its sink may be back", command_id=f"again-{letter.count}"
                )
            except ConflictError:
                continue
            put_back += 1
        return put_back


def is_due(letter: DeadLetter, now: datetime) -> bool:
    """Whether a letter is an event that is to be told again now."""
    return letter.count <= MOST_TIMES and now - letter.last_seen_at >= wait_of(letter.count) and _is_event(letter)


def wait_of(count: int) -> timedelta:
    """How long a letter waits that was kept so often."""
    return _LONGEST_WAIT if count > _DOUBLED else _FIRST_WAIT * 2 ** max(0, count - 1)


def _is_event(letter: DeadLetter) -> bool:
    # Of another message nobody here knows whether it may be sent again.
    try:
        PublishEvent.model_validate(letter.body.message())
    except ValidationError:
        return False
    return True
