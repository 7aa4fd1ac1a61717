"""The queue edge: a message is read, handled, and, where that fails, its error is noted for people.

The queue has a failed message tried again and keeps no reason; the note is where `slipway dead-letters` has it from. A
message that cannot be read is a dead letter at once: it would fail each time in the same way.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import azure.functions as func
from pydantic import BaseModel, ValidationError

from functions._services import services
from functions._tracing import invocation
from shared.core.errors import InvalidInputError
from shared.core.messages import Queue, RegisterDrop
from shared.core.tracing import TRACEPARENT, SpanKind, TraceContext, unstamped
from shared.deadletters.documents import DeadLetter, body_of_drop
from shared.registration.dropevents import drop_of_event

_TOLD = (
    "blob",
    "model",
    "endpoint",
    "version",
    "rollout_id",
    "command",
    "command_id",
    "tick",
    "alias",
    "stream",
    "sink",
)
"""The fields of messages that spans and log lines tell."""

_log = logging.getLogger(__name__)


class DeadLetters(Protocol):
    """What is told of a message's outcome."""

    def keep(self, queue: str, body: bytes, *, message_id: str, error: BaseException) -> DeadLetter:
        """Keep a message that is not to be tried again."""
        ...

    def note_failure(self, queue: str, body: bytes, error: BaseException) -> DeadLetter:
        """Note the error of an attempt."""
        ...

    def succeeded(self, queue: str, body: bytes) -> None:
        """Settle the letter of a message that succeeded."""
        ...


def handled[M: BaseModel](
    queue: Queue, message: func.QueueMessage, kind: type[M], handle: Callable[[M], object]
) -> None:
    """Handle a message of a queue that carries `kind`. What `handle` raises is noted and raised again."""
    handle_body(services().dead_letters, queue, message.get_body(), kind, handle, message_id=identity_of(message))


def handled_drop(blob: str, handle: Callable[[RegisterDrop], object]) -> None:
    """Handle the event of a drop as the message that would have it registered."""
    letters, body = services().dead_letters, body_of_drop(blob)
    handle_body(letters, Queue.REGISTRATIONS, body, RegisterDrop, handle, message_id=f"blob:{blob}")


def handled_event(message: func.QueueMessage, handle: Callable[[RegisterDrop], object]) -> None:
    """Handle what storage tells of a blob. A drop's event is handled as the message that would have it registered."""
    handle_event(services().dead_letters, message.get_body(), handle, message_id=identity_of(message))


def identity_of(message: func.QueueMessage) -> str:
    """What tells a message of a queue from every other, however often it is delivered.

    Its id alone does not: a body with a field `id` stands in its place.
    """
    return f"{message.insertion_time} {message.id}"


def handle_event(
    dead_letters: DeadLetters, body: bytes, handle: Callable[[RegisterDrop], object], *, message_id: str
) -> None:
    """Handle an event's body. One that cannot be read is kept at once, and one that is no drop's is passed over."""
    try:
        blob = drop_of_event(body)
    except InvalidInputError as error:
        letter = dead_letters.keep(Queue.DROP_EVENTS, body, message_id=message_id, error=error)
        _log.error("an event on %s is kept as %s: %s", Queue.DROP_EVENTS, letter.id, letter.reason)
        return
    if blob is None:
        _log.info("an event on %s is passed over: it is no drop's", Queue.DROP_EVENTS)
    else:
        drop = body_of_drop(blob)
        handle_body(dead_letters, Queue.REGISTRATIONS, drop, RegisterDrop, handle, message_id=message_id)
    _tell(dead_letters.succeeded, Queue.DROP_EVENTS, body)


def handle_body[M: BaseModel](
    dead_letters: DeadLetters,
    queue: Queue,
    body: bytes,
    kind: type[M],
    handle: Callable[[M], object],
    *,
    message_id: str,
) -> None:
    """Handle a message's body, as a part of the story that it carries on."""
    read = _unpacked(body)
    parent = TraceContext.parse(read.traceparent)
    message = _parsed(kind, read.own)
    told = {key: value for key in _TOLD if isinstance(value := getattr(message, key, None), str | int)}
    of = {"queue": queue.value, "message_id": message_id, **told}
    with invocation(f"process {queue}", of, kind=SpanKind.CONSUMER, parent=parent):
        if isinstance(message, ValidationError):
            letter = dead_letters.keep(queue, body, message_id=message_id, error=_unreadable(queue, kind, message))
            _log.error("a message of %s is kept as %s: %s", queue, letter.id, letter.reason)
            return
        try:
            handle(message)
        except Exception as error:
            _tell(dead_letters.note_failure, queue, body, error)
            raise
        _tell(dead_letters.succeeded, queue, body)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unpacked:
    """A body: what is the message's own, and the trace that it carries."""

    own: bytes
    traceparent: str | None = None


def _unpacked(body: bytes) -> _Unpacked:
    if TRACEPARENT.encode() not in body:
        return _Unpacked(own=body)
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return _Unpacked(own=body)
    if not isinstance(found, dict) or not isinstance(found.get(TRACEPARENT), str):
        return _Unpacked(own=body)
    return _Unpacked(own=json.dumps(unstamped(found)).encode(), traceparent=found[TRACEPARENT])


def _parsed[M: BaseModel](kind: type[M], own: bytes) -> M | ValidationError:
    try:
        return kind.model_validate_json(own)
    except ValidationError as error:
        return error


def _tell[**P](tell: Callable[P, object], *arguments: P.args, **named: P.kwargs) -> None:
    """Tell of an outcome. That it cannot be told changes nothing about the outcome."""
    try:
        tell(*arguments, **named)
    except Exception as error:  # noqa: BLE001 - whatever it is, the outcome stands
        _log.warning("the outcome of a message is not noted: %s", error)


def _unreadable(queue: Queue, kind: type[BaseModel], error: ValidationError) -> InvalidInputError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the body"
    return InvalidInputError(f"it is no {kind.__name__}, which {queue} carries: {where}: {first['msg']}")
