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
from shared.core.messages import Queue
from shared.deadletters.documents import BLOB_POISON_QUEUE, DeadLetter, LetterState
from shared.store.ports import BlobContainer

bp = func.Blueprint()


class ReplayBody(Command):
    """The body of a replay."""

    reason: Text = ""


class DiscardBody(Command):
    """The body of a discard."""

    reason: Reason


def keeper_of(queue: Queue) -> Callable[[func.QueueMessage], None]:
    """The function that keeps what a queue's poison queue holds."""

    def keep(message: func.QueueMessage) -> None:
        services().dead_letters.keep(queue, message.get_body(), message_id=identity_of(message))

    return keep


for _queue in Queue:
    bp.function_name(f"dead_letter_{_queue.name.lower()}")(
        bp.queue_trigger(arg_name="message", queue_name=f"{_queue}-poison", connection="SlipwayStorage")(
            keeper_of(_queue)
        )
    )


@bp.function_name("dead_letter_blob")
@bp.queue_trigger(arg_name="message", queue_name=BLOB_POISON_QUEUE, connection="SlipwayStorage")
def dead_letter_blob(message: func.QueueMessage) -> None:
    """Keep a drop whose event failed for the last time."""
    body = message.get_body()
    blob = blob_of(body)
    if blob is None:
        services().dead_letters.keep(BLOB_POISON_QUEUE, body, message_id=identity_of(message))
    else:
        services().dead_letters.keep_blob(blob, message_id=identity_of(message))


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
    return listing(map(letter_view, page.items), page.continuation)


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
