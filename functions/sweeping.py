"""The sweep, by timer."""

import azure.functions as func

from functions._services import services

bp = func.Blueprint()


@bp.function_name("sweep")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
def sweep(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Do again what was left undone."""
    services().sweep.sweep()
