"""The admin API: what each tick of a rollout saw, and policies tried on past rollouts."""

from typing import Any

import azure.functions as func
from pydantic import BaseModel, ConfigDict, Field

from functions._http import answering, body_of, listing
from functions._requests import number_param
from functions._services import services
from shared.core.errors import InvalidInputError
from shared.core.ids import endpoint_name, model_name
from shared.registry.policy import Policy
from shared.rollout.dryrun import MAX_ROLLOUTS, NotJudged
from shared.rollout.replay import Replay, ReplayedTick
from shared.rollout.tickrecord import TickRecord

bp = func.Blueprint()

_FLIPS_TOLD = 20


class DryRunBody(BaseModel):
    """The body of a dry-run: the policy to try, and on how many of the latest rollouts."""

    model_config = ConfigDict(extra="forbid")

    policy: Policy
    rollouts: int = Field(default=5, ge=1, le=MAX_ROLLOUTS)


@bp.function_name("list_rollout_ticks")
@bp.route("endpoints/{endpoint}/rollouts/{rollout_id}/ticks", methods=["GET"])
@answering
def list_rollout_ticks(req: func.HttpRequest) -> dict[str, Any]:
    """What each tick of a rollout decided, and why."""
    name = endpoint_name(req.route_params["endpoint"])
    first = number_param(req, "continuation") or 1
    page = services().dry_runs.ticks(name, req.route_params["rollout_id"], first)
    return listing(map(_tick_line, page.items), str(page.following) if page.following else None)


@bp.function_name("get_rollout_tick")
@bp.route("endpoints/{endpoint}/rollouts/{rollout_id}/ticks/{tick}", methods=["GET"])
@answering
def get_rollout_tick(req: func.HttpRequest) -> dict[str, Any]:
    """All that a tick saw and decided."""
    name, text = endpoint_name(req.route_params["endpoint"]), req.route_params["tick"]
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise InvalidInputError(f"tick {text[:40]!r} is not a tick's number: use a whole number from 1")
    return services().dry_runs.tick(name, req.route_params["rollout_id"], int(text)).model_dump(mode="json")


@bp.function_name("dry_run_policy")
@bp.route("models/{model}/policy/dry-run", methods=["POST"])
@answering
def dry_run_policy(req: func.HttpRequest) -> dict[str, Any]:
    """What a policy would have decided in a model's latest rollouts. Changes nothing."""
    name = endpoint_name(model_name(req.route_params["model"]))
    body = body_of(req, DryRunBody)
    found = services().dry_runs.dry_run(name, body.policy.rollout, last=body.rollouts)
    return listing(_replay_view(one) for one in found)


def _tick_line(record: TickRecord) -> dict[str, Any]:
    shown = record.model_dump(
        mode="json", include={"tick", "at", "state", "stage", "weight_bp", "generation", "lasted_s", "pods", "blocked"}
    )
    decided = record.decided.model_dump(
        mode="json", include={"event", "trigger", "failed_checks", "errored_checks", "reason"}
    )
    return {**shown, **decided}


def _replay_view(one: Replay | NotJudged) -> dict[str, Any]:
    rollout = one.rollout
    head = {
        "rollout_id": rollout.rollout_id,
        "version": rollout.candidate.version,
        "policy_version": rollout.policy_version,
        "started_at": rollout.started_at.isoformat(),
        "ended": rollout.state.value,
    }
    if isinstance(one, NotJudged):
        return {**head, "would_end": None, "is_judged": False, "why": one.why, "parted_at": None, "not_judged": []} | {
            "ticks": 0,
            "flip_count": 0,
            "flips": [],
        }
    flips = one.flips
    return {
        **head,
        "is_judged": True,
        "would_end": one.would_be.value if one.would_be else None,
        "why": one.why,
        "parted_at": one.parted_at,
        "not_judged": list(one.not_judged),
        "ticks": len(one.ticks),
        "flip_count": len(flips),
        "flips": [_flip_view(tick) for tick in flips[:_FLIPS_TOLD]],
    }


def _flip_view(tick: ReplayedTick) -> dict[str, Any]:
    record = tick.record
    return {
        "tick": record.tick,
        "at": record.at.isoformat(),
        "state": record.state.value,
        "stage": record.stage,
        "then": record.decided.event,
        "then_why": record.decided.reason,
        "now": tick.now.event,
        "now_why": tick.now.reason,
        "verdicts": [verdict.model_dump(mode="json") for verdict in tick.now.verdicts],
        "is_after_parting": tick.is_after_parting,
    }
