"""How many requests each side of a rollout was given, as `slipway rollout status` shows it."""

import io

from rich.console import Console

from cli import watch_show
from shared.rollout.machine import RolloutState
from shared.rollout.progress import Exposures, Progress
from tests.unit.cli.rollout_views import seen, view


def shown(exposures: Exposures, state: RolloutState = RolloutState.PROGRESSING) -> str:
    console = Console(width=200, file=io.StringIO(), record=True)
    progress = Progress(generation=4, pods={"pod-1": seen(1, 2)}, exposures=exposures)
    console.print(watch_show.rollout(view(state, progress=progress.model_dump())))
    return console.export_text()


def test_both_sides_are_shown_beside_what_the_shares_call_for_also_once_it_is_over() -> None:
    exposures = Exposures(candidate=1_020, stable=8_980, expected=1_000.0)
    for state in (RolloutState.PROGRESSING, RolloutState.PROMOTED):
        said = shown(exposures, state)
        assert "1020 requests to version 2 (10.20%; the shares call for 10.00%), 8980 to 1" in said


def test_without_any_nothing_is_said() -> None:
    assert "assigned" not in shown(Exposures())
