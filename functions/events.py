"""Lifecycle events go to their sinks, by message; and what watches rollouts by timer."""

import azure.functions as func

from functions._messages import handled
from functions._services import services
from shared.core.messages import PublishEvent, Queue

bp = func.Blueprint()


@bp.function_name("publish_event")
@bp.queue_trigger(arg_name="message", queue_name=Queue.LIFECYCLE_EVENTS.value, connection="SlipwayStorage")
def publish_event(message: func.QueueMessage) -> None:
    """Tell a sink of an event."""
    handled(Queue.LIFECYCLE_EVENTS, message, PublishEvent, services().events.publish)
