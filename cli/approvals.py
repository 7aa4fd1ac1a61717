"""`slipway approval-link`: a link with which one person answers whether a rollout's next stage may begin."""

from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import Answer
from cli.target import Target
from shared.core.errors import ConflictError
from shared.core.ids import model_name


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app, name="approval-link")(approval_link)


def approval_link(
    target: Target,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    approver: Annotated[str, typer.Option("--approver", metavar="NAME", help="Who may answer by it.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who asks for it; it goes into the audit.")] = "cli",
) -> Answer:
    """Make a link that serves once, for one person and the stage that waits. Send it to nobody else."""
    name = model_name(model)
    with Client(target) as client:
        rollout = client.get("endpoints", name)["rollout"]
        if rollout is None:
            raise ConflictError(
                f"endpoint {name} has no rollout: start one with `slipway rollout start {name} VERSION`"
            )
        body = {"approver": approver, "by": by}
        made = client.post("endpoints", name, "rollouts", rollout["rollout_id"], "approval-links", body=body)
    link = target.functions_url + made["path"]
    shown = f"{link}\ngood for {made['approver']} until {made['expires_at']}, once"
    return Answer(value={**made, "url": link}, show=lambda: print(shown))
