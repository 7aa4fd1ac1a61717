"""`slipway rollout watch`: follow a rollout until it is over.

Ends with 0 where the candidate was promoted or the rollout ran to its planned end, and with 6 where it was taken back,
also where that was after its promotion.
An admin API that does not answer for a while is waited for; a rollout that is superseded is the one that is followed.
"""

import time
from collections.abc import Callable, Iterator
from typing import Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.outcome import CliError, ExitCode, Following, Json
from cli.target import Target
from shared.core.errors import NotFoundError, UnavailableError
from shared.core.ids import ModelName, model_name

_PATIENCE_S = 60.0
_GOOD = frozenset({"promoted", "concluded"})


def register(group: typer.Typer) -> None:
    """Add the command to `slipway rollout`."""
    command(group)(watch)


def watch(
    target: Target,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    every: Annotated[float, typer.Option("--every", min=0.1, max=60, help="Seconds between two looks.")] = 1.0,
) -> Following:
    """Follow the latest rollout until it is over: stages, gates, pods and the time left. Ends with 6 if taken back."""
    from cli import watch_show  # noqa: PLC0415

    name = model_name(model)
    return Following(values=_followed(target, name, every), show=watch_show.live, exit_code=exit_code)


def exit_code(value: Json) -> ExitCode:
    """How the command ends, by the rollout's last state."""
    return ExitCode.OK if value["state"] in _GOOD and not value["reverted"] else ExitCode.TAKEN_BACK


def follow(
    look: Callable[[], Json],
    *,
    every_s: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Json]:
    """What each look at a rollout finds, until it is over. Raises UnavailableError after a minute without an answer."""
    answered = clock()
    while True:
        try:
            value = look()
        except (UnavailableError, CliError) as error:
            if isinstance(error, CliError) and error.exit_code is not ExitCode.NOT_REACHABLE:
                raise
            if clock() - answered > _PATIENCE_S:
                raise
        else:
            answered = clock()
            yield value
            if value["ended_at"] is not None:
                return
        sleep(every_s)


def _followed(target: Target, name: ModelName, every_s: float) -> Iterator[Json]:
    with Client(target) as client:
        latest = client.get("endpoints", name)["rollout"]
        if latest is None:
            raise NotFoundError(f"a rollout of {name}", hint=f"start one: slipway rollout start {name} VERSION")
        yield from follow(lambda: client.get("endpoints", name, "rollouts", latest["rollout_id"]), every_s=every_s)
