"""A drop in the incoming container leads to a registration: by event, or by the sweep's message.

In Azure the event comes by the queue that Event Grid fills (docs/adr/0017); the blob trigger fires on one machine,
where drops are polled for.
"""

import azure.functions as func
from azurefunctions.extensions.bindings import blob

from functions._messages import handled, handled_drop, handled_event
from functions._services import services
from shared.core.messages import Queue, RegisterDrop

bp = func.Blueprint()


@bp.function_name("register")
@bp.blob_trigger(
    arg_name="drop", path="incoming/{name}", connection="SlipwayStorage", source=func.BlobSource.EVENT_GRID
)
def register(drop: blob.BlobClient) -> None:
    """Register a drop. Only a client is bound: a model's bytes never cross the trigger."""
    handled_drop(drop.blob_name, lambda wanted: services().registration.register(wanted.blob))


@bp.function_name("register_from_event")
@bp.queue_trigger(arg_name="message", queue_name=Queue.DROP_EVENTS.value, connection="SlipwayStorage")
def register_from_event(message: func.QueueMessage) -> None:
    """Register a drop that storage tells of."""
    handled_event(message, lambda wanted: services().registration.register(wanted.blob))


@bp.function_name("register_again")
@bp.queue_trigger(arg_name="message", queue_name=Queue.REGISTRATIONS.value, connection="SlipwayStorage")
def register_again(message: func.QueueMessage) -> None:
    """Register a drop whose event was lost."""
    handled(Queue.REGISTRATIONS, message, RegisterDrop, lambda wanted: services().registration.register(wanted.blob))
