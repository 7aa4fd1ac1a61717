"""Dead letters: a function on each poison queue keeps what comes there, and people list, replay and discard."""

import json
from collections.abc import Callable
from typing import Any

import azure.functions as func

from functions._http import answering, body_of, listing
from functions._messages import identity_of
from functions._requests import Command, Reason, Text
from functions._services import services
from functions._tracing import timed
from shared.core.errors import InvalidInputError
from shared.core.messages import Queue
from shared.deadletters.documents import BLOB_POISON_QUEUE, DeadLetter, LetterState
from shared.registration.dropevents import drop_of_event
from shared.store.ports import BlobContainer

bp = func.Blueprint()


class ReplayBody(Command):
    """The body of a replay."""

    reason: Text = ""


class DiscardBody(Command):
    """The body of a discard."""

    reason: Reason


def keeper_of(
    queue: str, blob_in: Callable[[bytes], str | None] = lambda _: None
) -> Callable[[func.QueueMessage], None]:
    """The function that keeps what a queue's poison queue holds.

    What is about a drop, which `blob_in` tells, is kept as the message that registers it: so replaying works, and the
    letter is settled by whatever registers the drop in the end.
    """

    def keep(message: func.QueueMessage) -> None:
        body, message_id = message.get_body(), identity_of(message)
        blob = blob_in(body)
        if blob is None:
            services().dead_letters.keep(queue, body, message_id=message_id)
        else:
            services().dead_letters.keep_blob(blob, message_id=message_id)

    return keep


def blob_of(body: bytes) -> str | None:
    """The drop that a failed blob event is about, by the message that the Functions runtime leaves; None: no such."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("ContainerName") != BlobContainer.INCOMING:
        return None
    blob = found.get("BlobName")
    return blob if isinstance(blob, str) and blob else None


def blob_of_event(body: bytes) -> str | None:
    """The drop that a failed event of storage's is about; None: no such."""
    try:
        return drop_of_event(body)
    except InvalidInputError:
        return None


_BLOB_IN = {Queue.DROP_EVENTS: blob_of_event}


for _queue in Queue:
    bp.function_name(f"dead_letter_{_queue.name.lower()}")(
        bp.queue_trigger(arg_name="message", queue_name=f"{_queue}-poison", connection="SlipwayStorage")(
            keeper_of(_queue, _BLOB_IN.get(_queue, lambda _: None))
        )
    )


bp.function_name("dead_letter_blob")(
    bp.queue_trigger(arg_name="message", queue_name=BLOB_POISON_QUEUE, connection="SlipwayStorage")(
        keeper_of(BLOB_POISON_QUEUE, blob_of)
    )
)


@bp.function_name("settle_dead_letter_alerts")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def settle_dead_letter_alerts(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Have the alerts say what waits, should a crash have kept one from being fired or resolved."""
    services().dead_letters.settle_alerts()


@bp.function_name("list_dead_letters")
@bp.route("dead-letters", methods=["GET"])
@answering
def list_dead_letters(req: func.HttpRequest) -> dict[str, Any]:
    """The dead letters that wait; with `?state=`, those in that state."""
    state = req.params.get("state") or LetterState.KEPT.value
    page = services().dead_letters.letters(state, req.params.get("continuation"))
    return listing(map(letter_view, page.items), page.continuation, page.unreadable)


@bp.function_name("get_dead_letter")
@bp.route("dead-letters/{letter}", methods=["GET"])
@answering
def get_dead_letter(req: func.HttpRequest) -> dict[str, Any]:
    """A dead letter."""
    return letter_view(services().dead_letters.letter(req.route_params["letter"]))


@bp.function_name("replay_dead_letter")
@bp.route("dead-letters/{letter}/replay", methods=["POST"])
@answering
def replay_dead_letter(req: func.HttpRequest) -> dict[str, Any]:
    """Put a dead letter's message back on its queue."""
    body = body_of(req, ReplayBody)
    letter = req.route_params["letter"]
    replayed = services().dead_letters.replay(letter, by="api", reason=body.reason, command_id=body.command_id)
    return letter_view(replayed)


@bp.function_name("discard_dead_letter")
@bp.route("dead-letters/{letter}/discard", methods=["POST"])
@answering
def discard_dead_letter(req: func.HttpRequest) -> dict[str, Any]:
    """Note that a dead letter is not wanted any more."""
    body = body_of(req, DiscardBody)
    letter = req.route_params["letter"]
    discarded = services().dead_letters.discard(letter, by="api", reason=body.reason, command_id=body.command_id)
    return letter_view(discarded)


def letter_view(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter as the API gives it."""
    shown = letter.model_dump(
        mode="json",
        include={"queue", "body", "state", "reason", "attempts", "count", "first_seen_at", "last_seen_at"},
    )
    return {"letter_id": letter.id, **shown}
