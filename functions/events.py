"""Lifecycle events go to their sinks, by message; and what watches rollouts by timer."""

import azure.functions as func

from functions._messages import handled
from functions._services import services
from functions._tracing import timed
from shared.core.messages import PublishEvent, Queue

bp = func.Blueprint()


@bp.function_name("publish_event")
@bp.queue_trigger(arg_name="message", queue_name=Queue.LIFECYCLE_EVENTS.value, connection="SlipwayStorage")
def publish_event(message: func.QueueMessage) -> None:
    """Tell a sink of an event."""
    handled(Queue.LIFECYCLE_EVENTS, message, PublishEvent, services().events.publish)


@bp.function_name("tell_events_again")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def tell_events_again(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Have the events told that a sink could not take, should it be back."""
    services().event_retries.tell_again()


@bp.function_name("settle_rollout_alerts")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def settle_rollout_alerts(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Have the alerts say how the rollouts stand."""
    services().rollout_alerts.settle()


@bp.function_name("count_requests")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def count_requests(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Count requests for the error budgets."""
    services().budgets.count()
