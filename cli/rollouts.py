"""`slipway rollout`: give commands to a rollout, see how it goes, and what became of the earlier ones."""

from typing import Annotated
from uuid import uuid4

import typer

from cli import watch
from cli.client import Client
from cli.command import command
from cli.outcome import Answer, Json
from cli.target import Target
from shared.core.errors import ConflictError, InvalidInputError
from shared.core.ids import ModelName, model_name

ENDED = frozenset({"promoted", "concluded", "rolled_back", "aborted"})

_ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")]
_ReasonOption = Annotated[str, typer.Option("--reason", help="Why; it goes into the audit.")]
_ByOption = Annotated[str, typer.Option("--by", metavar="NAME", help="Who you are; it goes into the audit.")]
_OverrideOption = Annotated[
    bool, typer.Option("--override", help="Go through a freeze or a spent error budget; give a reason.")
]
_StageOption = Annotated[
    int | None, typer.Option("--stage", min=1, help="The stage that is meant, from 1. Without it, the one that waits.")
]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    group = typer.Typer(help="Give commands to a rollout, and see how it goes.", no_args_is_help=True)
    for function in (
        start,
        promote,
        pause,
        resume,
        skip,
        set_weight,
        approve,
        reject,
        abort,
        rollback,
        status,
        history,
    ):
        command(group)(function)
    watch.register(group)
    app.add_typer(group, name="rollout")


def start(
    target: Target,
    model: _ModelArgument,
    version: Annotated[int, typer.Argument(metavar="VERSION", min=1, help="The version to roll out.")],
    *,
    by: _ByOption = "",
    reason: _ReasonOption = "",
    force: Annotated[
        bool, typer.Option("--force", help="Start it although its signature breaks callers; give a reason.")
    ] = False,
    override: _OverrideOption = False,
    shadow: Annotated[
        list[int] | None, typer.Option("--shadow", min=1, help="A further version that gets copies of requests.")
    ] = None,
) -> Answer:
    """Start to roll out a validated version."""
    name = model_name(model)
    if force and not reason.strip():
        raise InvalidInputError("a start by force needs a reason, which goes into the audit: give it with --reason")
    body = _body(by, reason) | {"version": version} | _override(override, reason)
    body |= ({"force": True} if force else {}) | ({"shadows": shadow} if shadow else {})
    with Client(target) as client:
        return _answer(client.post("endpoints", name, "rollouts", body=body))


def promote(
    target: Target,
    model: _ModelArgument,
    *,
    by: _ByOption,
    reason: _ReasonOption = "",
    override: _OverrideOption = False,
) -> Answer:
    """Give the candidate all traffic whatever the gates say; where it has it, make it stable now."""
    return _command(target, model, "promote", _body(by, reason) | _override(override, reason))


def pause(target: Target, model: _ModelArgument, *, by: _ByOption = "", reason: _ReasonOption = "") -> Answer:
    """Halt the rollout where it is: its weight stays, and the gates may still take it back."""
    return _command(target, model, "pause", _body(by, reason))


def resume(target: Target, model: _ModelArgument, *, by: _ByOption = "", reason: _ReasonOption = "") -> Answer:
    """Let a rollout that is paused or held go on. Its stage lasts as long again."""
    return _command(target, model, "resume", _body(by, reason))


def skip(
    target: Target,
    model: _ModelArgument,
    *,
    by: _ByOption,
    reason: _ReasonOption = "",
    override: _OverrideOption = False,
) -> Answer:
    """Begin the next stage now, whatever the gates say."""
    return _command(target, model, "skip", _body(by, reason) | _override(override, reason))


def set_weight(
    target: Target,
    model: _ModelArgument,
    percent: Annotated[float, typer.Argument(metavar="PERCENT", min=0, max=100, help="As in 12.5.")],
    *,
    by: _ByOption,
    reason: _ReasonOption = "",
    override: _OverrideOption = False,
) -> Answer:
    """Give the candidate another share of the traffic for the rest of its stage."""
    weight_bp = round(percent * 100)
    if abs(weight_bp - percent * 100) > 1e-6:
        raise InvalidInputError(f"{percent:g} % is finer than a basis point: use at most two decimals")
    body = _body(by, reason) | _override(override, reason)
    return _command(target, model, "set-weight", body | {"weight_bp": weight_bp})


def approve(
    target: Target,
    model: _ModelArgument,
    *,
    by: _ByOption,
    stage: _StageOption = None,
    reason: _ReasonOption = "",
    override: _OverrideOption = False,
) -> Answer:
    """Approve of the stage that waits for it, as somebody who neither made the version nor asked for its rollout."""
    return _command(target, model, "approve", _body(by, reason) | _stage(stage) | _override(override, reason))


def reject(
    target: Target, model: _ModelArgument, *, by: _ByOption, stage: _StageOption = None, reason: _ReasonOption = ""
) -> Answer:
    """Reject the stage that waits for an approval: the candidate is taken back, with nothing held against it."""
    return _command(target, model, "reject", _body(by, reason) | _stage(stage))


def abort(target: Target, model: _ModelArgument, *, by: _ByOption = "", reason: _ReasonOption = "") -> Answer:
    """Take the candidate back now, with nothing held against it."""
    return _command(target, model, "abort", _body(by, reason))


def rollback(
    target: Target,
    model: _ModelArgument,
    *,
    by: _ByOption,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="The good version to go back to, where no rollout is under way.")
    ] = None,
    reason: _ReasonOption = "",
) -> Answer:
    """Take back what fails, and quarantine it: the candidate, or the stable version where no rollout is under way."""
    from cli import rollbacks_show  # noqa: PLC0415

    body = _body(by, reason) | ({} if to is None else {"version": to})
    with Client(target) as client:
        endpoint = client.post("endpoints", model_name(model), "rollback", body=body)
    return Answer(value=endpoint, show=lambda: rollbacks_show.taken_back(endpoint))


def status(target: Target, model: _ModelArgument) -> Answer:
    """Show the rollouts of a model, the latest one in full: what it waits for, and what the gates found."""
    from cli import show, shown  # noqa: PLC0415

    name = model_name(model)
    with Client(target) as client:
        endpoint = client.get("endpoints", name)
        value = {"endpoint": endpoint, "rollouts": list(client.items("endpoints", name, "rollouts"))}
    return Answer(value=value, show=lambda: shown.print_one(show.rollouts(value)))


def history(
    target: Target,
    model: _ModelArgument,
    rollout: Annotated[
        str | None, typer.Argument(metavar="[ROLLOUT]", help="A rollout's id; without it, of them all.")
    ] = None,
) -> Answer:
    """Show what became of a model's rollouts step by step: when, by whom and why."""
    from cli import watch_show  # noqa: PLC0415

    name = model_name(model)
    with Client(target) as client:
        if rollout is not None:
            client.get("endpoints", name, "rollouts", rollout)
        found = [
            event
            for event in client.items("audit", "events", query={"stream": f"endpoint:{name}"})
            if rollout is None or event["data"].get("rollout_id") == rollout
        ]
    return Answer(value={"events": found}, show=lambda: watch_show.history(found))


def _command(target: Target, model: str, verb: str, body: dict[str, Json]) -> Answer:
    name = model_name(model)
    with Client(target) as client:
        rollout = _active(client, name)
        return _answer(client.post("endpoints", name, "rollouts", rollout["rollout_id"], verb, body=body))


def _active(client: Client, model: ModelName) -> Json:
    rollout = client.get("endpoints", model)["rollout"]
    if rollout is None or rollout["state"] in ENDED:
        raise ConflictError(
            f"endpoint {model} has no active rollout: start one with `slipway rollout start {model} VERSION`"
        )
    return rollout


def _body(by: str, reason: str) -> dict[str, Json]:
    # The id makes a command that is sent twice, after a lost answer, one command.
    return {"command_id": str(uuid4()), "reason": reason} | ({"by": by} if by else {})


def _override(override: bool, reason: str) -> dict[str, Json]:  # noqa: FBT001 - the option as it was given
    if override and not reason.strip():
        raise InvalidInputError("an override needs a reason, which goes into the audit: give it with --reason")
    return {"override": True} if override else {}


def _stage(stage: int | None) -> dict[str, Json]:
    # People count stages from 1, the API from 0.
    return {} if stage is None else {"stage": stage - 1}


def _answer(found: Json) -> Answer:
    from cli import shown, watch_show  # noqa: PLC0415

    if "rollout_id" in found:
        return Answer(value=found, show=lambda: shown.print_one(watch_show.rollout(found)))
    return Answer(
        value=found,
        show=lambda: print(f"version {found['queued_version']} waits for the end of the rollout that is under way"),
    )
