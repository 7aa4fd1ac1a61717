"""Aliases follow rollouts, by message."""

import azure.functions as func

from functions._messages import handled
from functions._services import services
from shared.core.messages import MoveAlias, Queue

bp = func.Blueprint()


@bp.function_name("move_alias")
@bp.queue_trigger(arg_name="message", queue_name=Queue.ALIAS_MOVES.value, connection="SlipwayStorage")
def move_alias(message: func.QueueMessage) -> None:
    """Move an alias as a rollout calls for."""
    handled(Queue.ALIAS_MOVES, message, MoveAlias, services().aliases.follow)
