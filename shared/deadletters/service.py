"""Dead letters: what failed for the last time is kept with its reason, and put back by one command.

- An attempt that fails is noted with its error, for the queue keeps the message and not the reason.
- A message that failed for the last time is kept. One that cannot be read is kept at once: trying again cannot help.
- A letter is replayed once: the change of its state carries the message in its outbox. Should it fail again, it is kept
  again, as the same letter with a higher count.
- A replay or a discard that is sent again under its id, because its answer was lost, answers with the letter as it is.
- A letter whose message succeeds in the end, by whatever way it came again, is settled by that.

While letters of a queue wait, an alert about the queue fires.
"""

from collections.abc import Callable
from itertools import islice

from shared.alerts.documents import AlertRule
from shared.alerts.service import AlertService
from shared.core.clock import Clock
from shared.core.errors import InvalidInputError, NotFoundError
from shared.core.messages import Queue
from shared.deadletters.documents import (
    BLOB_POISON_QUEUE,
    DeadLetter,
    LetterBody,
    LetterEvent,
    LetterState,
    body_of_drop,
    letter_id,
)
from shared.registration.documents import NO_MODEL
from shared.store.repository import AggregatePage, Repository

_MAX_REASON = 1_000
_MOST_COUNTED = 100
"""Letters of a queue that its alert tells of."""
_MAX_MESSAGE_ID = 100
_SUBJECT = "queue:"


class DeadLetterService:
    """Keeps dead letters. What it is told may be told twice."""

    def __init__(self, *, letters: Repository[DeadLetter], alerts: AlertService, clock: Clock) -> None:
        self._letters = letters
        self._alerts = alerts
        self._clock = clock

    def note_failure(self, queue: str, body: bytes, error: BaseException) -> DeadLetter:
        """Note the error of an attempt that its queue will repeat, or has made for the last time."""
        now = self._clock.now()

        def note(letter: DeadLetter) -> bool:
            letter.move(LetterEvent.FAIL)
            letter.reason = _sentence(error)
            letter.failed_since = True
            letter.attempts += 1
            letter.last_seen_at = now
            return True

        return self._change(queue, body, note)

    def keep(self, queue: str, body: bytes, *, message_id: str, error: BaseException | None = None) -> DeadLetter:
        """Keep a message that failed for the last time. `error`: it was not tried again, because of this."""
        now = self._clock.now()
        message_id = message_id[:_MAX_MESSAGE_ID]

        def keep(letter: DeadLetter) -> bool:
            if letter.is_counted(message_id):
                return False
            if error is not None:
                letter.reason = _sentence(error)
                letter.attempts += 1
            elif not letter.failed_since:
                letter.lack_error()
            letter.move(LetterEvent.KEEP)
            letter.count_message(message_id)
            letter.last_seen_at = now
            letter.record(
                "letter_kept",
                now,
                queue=queue,
                reason=letter.reason,
                attempts=letter.attempts,
                count=letter.count,
                body=letter.body.model_dump(),
            )
            return True

        kept = self._change(queue, body, keep)
        self._settle_alert(queue)
        return kept

    def keep_blob(self, blob: str, *, message_id: str) -> DeadLetter:
        """Keep a drop whose event failed for the last time: replayed, it is registered by message."""
        return self.keep(Queue.REGISTRATIONS, body_of_drop(blob), message_id=message_id)

    def succeeded(self, queue: str, body: bytes) -> None:
        """Settle the letter of a message that succeeded, if there is one."""
        letter_body = LetterBody.of(body)
        found = self._letters.find(NO_MODEL, letter_id(queue, letter_body))
        if found is None or found.state in {LetterState.SETTLED, LetterState.DISCARDED}:
            return
        self._move(found.id, LetterEvent.SUCCEED, "letter_settled", reason="it succeeded")

    def letters(self, state: str = LetterState.KEPT, continuation: str | None = None) -> AggregatePage[DeadLetter]:
        """A page of the letters in a state. Raises InvalidInputError."""
        if state not in set(LetterState):
            raise InvalidInputError(f"{state[:40]!r} is not a dead letter's state: use one of {', '.join(LetterState)}")
        return self._letters.page(partition=NO_MODEL, continuation=continuation, state=state)

    def letter(self, identity: str) -> DeadLetter:
        """One letter. Raises NotFoundError."""
        found = self._letters.find(NO_MODEL, identity)
        if found is None:
            raise NotFoundError(f"the dead letter {identity[:80]!r}", hint="`slipway dead-letters list` names them")
        return found

    def replay(self, identity: str, *, by: str, reason: str = "", command_id: str = "") -> DeadLetter:
        """Put a kept letter's message back on its queue. Raises NotFoundError; ConflictError where it is not kept.

        The same `command_id` again changes nothing; without one each call is a command of its own.
        """
        self.letter(identity)
        return self._move(identity, LetterEvent.REPLAY, "letter_replayed", command_id, by=by, reason=reason)

    def discard(self, identity: str, *, by: str, reason: str, command_id: str = "") -> DeadLetter:
        """Note that a kept letter is not wanted any more. Raises NotFoundError; ConflictError where it is not kept.

        `command_id` as in `replay`.
        """
        self.letter(identity)
        return self._move(identity, LetterEvent.DISCARD, "letter_discarded", command_id, by=by, reason=reason)

    def settle_alerts(self) -> None:
        """Have the alert of each queue say what waits, should a crash have kept one from it."""
        alerted = {alert.subject.removeprefix(_SUBJECT) for alert in list(self._alerts.firing(AlertRule.DEAD_LETTERS))}
        for queue in sorted({*Queue, BLOB_POISON_QUEUE} | alerted):
            self._settle_alert(queue)

    def _settle_alert(self, queue: str) -> None:
        """Fire or resolve the alert of a queue, by the letters of it that wait now.

        _MOST_COUNTED of them at most: many letters are not read anew for each that is added.
        """
        looked_at = self._clock.now()
        kept = self._letters.readable(partition=NO_MODEL, state=LetterState.KEPT.value, queue=queue)
        found = sum(1 for _ in islice(kept, _MOST_COUNTED + 1))
        count, more = min(found, _MOST_COUNTED), found > _MOST_COUNTED
        if not count:
            over = "no message of the queue waits any more"
            self._alerts.resolve(AlertRule.DEAD_LETTERS, _SUBJECT + queue, over, model=NO_MODEL, looked_at=looked_at)
            return
        named = "1 message" if count == 1 else f"{count}{' or more' if more else ''} messages"
        sentence = (
            f"{named} of the queue {queue} failed for the last time: see `slipway dead-letters list`, then replay or "
            "discard each"
        )
        evidence = {"waiting": count, "more": more}
        self._alerts.fire(
            AlertRule.DEAD_LETTERS,
            _SUBJECT + queue,
            sentence,
            model=NO_MODEL,
            evidence=evidence,
            looked_at=looked_at,
        )

    def _move(self, identity: str, event: LetterEvent, kind: str, command_id: str = "", **data: str) -> DeadLetter:
        now = self._clock.now()

        def move(letter: DeadLetter) -> bool:
            if command_id and letter.has_done(event, command_id):
                return False
            was = letter.state
            letter.move(event)
            if letter.state is was:
                return False
            if event is LetterEvent.REPLAY:
                letter.put_back()
            if command_id:
                letter.note_command(event, command_id)
            letter.record(kind, now, queue=letter.queue, was=was, count=letter.count, **data)
            return True

        moved = self._letters.change(NO_MODEL, identity, move)
        self._settle_alert(moved.queue)
        return moved

    def _change(self, queue: str, body: bytes, decide: Callable[[DeadLetter], bool]) -> DeadLetter:
        now = self._clock.now()
        letter_body = LetterBody.of(body)
        fresh = DeadLetter(
            id=letter_id(queue, letter_body), queue=queue, body=letter_body, first_seen_at=now, last_seen_at=now
        )
        self._letters.find_or_create(fresh)
        return self._letters.change(NO_MODEL, fresh.id, decide)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _MAX_REASON else f"{text[:_MAX_REASON]}…"
