"""Rollout commands and ticks, by message."""

import logging
from collections.abc import Callable

import azure.functions as func

from functions._messages import handled
from functions._services import services
from shared.core.errors import ChangedMeanwhileError, ConflictError, InvalidInputError, NotFoundError
from shared.core.messages import Queue, RolloutCommand, RolloutTick

bp = func.Blueprint()

_log = logging.getLogger(__name__)


@bp.function_name("rollout_command")
@bp.queue_trigger(arg_name="message", queue_name=Queue.ROLLOUT_COMMANDS.value, connection="SlipwayStorage")
def rollout_command(message: func.QueueMessage) -> None:
    """Carry out a rollout command."""
    handled(
        Queue.ROLLOUT_COMMANDS, message, RolloutCommand, lambda wanted: carry_out(services().rollouts.handle, wanted)
    )


@bp.function_name("rollout_tick")
@bp.queue_trigger(arg_name="message", queue_name=Queue.ROLLOUT_TICKS.value, connection="SlipwayStorage")
def rollout_tick(message: func.QueueMessage) -> None:
    """Look at a rollout's evidence."""
    handled(Queue.ROLLOUT_TICKS, message, RolloutTick, services().rollouts.tick)


def carry_out(handle: Callable[[RolloutCommand], object], command: RolloutCommand) -> None:
    """Carry out a command. One that the state does not allow, or that says too little, is answered in the log: again
    would not help.

    Raises what trying again helps with: UnavailableError, and ChangedMeanwhileError where other writers were first.
    """
    try:
        handle(command)
    except ChangedMeanwhileError:
        raise
    except (ConflictError, InvalidInputError, NotFoundError) as error:
        _log.warning("command %s is refused: %s", command.command_id, error)
