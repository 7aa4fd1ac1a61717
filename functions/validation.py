"""Validation of registered versions, by message."""

import azure.functions as func

from functions._messages import handled
from functions._services import services
from shared.core.messages import Queue, ValidateVersion

bp = func.Blueprint()


@bp.function_name("validate")
@bp.queue_trigger(arg_name="message", queue_name=Queue.VALIDATIONS.value, connection="SlipwayStorage")
def validate(message: func.QueueMessage) -> None:
    """Validate a version."""
    handled(Queue.VALIDATIONS, message, ValidateVersion, services().validation.validate)
