"""Retention: the plan, its run, and the timer that carries runs on."""

from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict, Field

from functions._http import answering, body_of, listing
from functions._services import services
from functions._tracing import timed
from shared.core.ids import model_name
from shared.retention.documents import RetentionPlan, RetentionRun

bp = func.Blueprint()


class RunBody(BaseModel):
    """The body of a run."""

    model_config = ConfigDict(extra="forbid")

    plan_id: str = Field(pattern=r"^[0-9a-f]{64}$")


@bp.function_name("get_retention_plan")
@bp.route("models/{model}/retention/plan", methods=["GET"])
@answering
def get_retention_plan(req: func.HttpRequest) -> dict[str, Any]:
    """What retention would do to a model now."""
    return plan_view(services().retention.plan(model_name(req.route_params["model"])))


@bp.function_name("run_retention")
@bp.route("models/{model}/retention/run", methods=["POST"])
@answering
def run_retention(req: func.HttpRequest) -> dict[str, Any]:
    """Carry out a plan that was shown."""
    body = body_of(req, RunBody)
    return run_view(services().retention.run(model_name(req.route_params["model"]), body.plan_id, by="api"))


@bp.function_name("list_retention_runs")
@bp.route("models/{model}/retention/runs", methods=["GET"])
@answering
def list_retention_runs(req: func.HttpRequest) -> dict[str, Any]:
    """The runs of a model."""
    page = services().retention.runs(model_name(req.route_params["model"]), req.params.get("continuation"))
    return listing(map(run_view, page.items), page.continuation, page.unreadable)


@bp.function_name("get_retention_run")
@bp.route("models/{model}/retention/runs/{run}", methods=["GET"])
@answering
def get_retention_run(req: func.HttpRequest) -> dict[str, Any]:
    """One run."""
    return run_view(services().retention.one(model_name(req.route_params["model"]), req.route_params["run"]))


@bp.function_name("carry_on_retention")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def carry_on_retention(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Carry on the runs that are not over."""
    services().retention.resume()


def plan_view(plan: RetentionPlan) -> dict[str, Any]:
    """A plan as the API gives it."""
    shown = plan.model_dump(mode="json", exclude={"deeds"})
    return {"plan_id": plan.plan_id, **shown, **plan.deeds.model_dump(mode="json"), "size_bytes": plan.deeds.size_bytes}


def run_view(run: RetentionRun) -> dict[str, Any]:
    """A run as the API gives it."""
    shown = run.model_dump(
        mode="json",
        include={
            "model",
            "plan_id",
            "state",
            "requested_by",
            "started_at",
            "delete_after",
            "ended_at",
            "archived",
            "deleted",
            "deleted_bytes",
            "blobs",
            "size_bytes",
            "spared",
        },
    )
    return {"run_id": run.id, **shown}
