"""The sweep, by timer."""

import azure.functions as func

from functions._services import services
from functions._tracing import timed

bp = func.Blueprint()


@bp.function_name("sweep")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def sweep(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Do again what was left undone."""
    services().sweep.sweep()
