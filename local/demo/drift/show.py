"""`slipway demo drift`: starts the system, tells the story, shows what was found (its stage: local.demo.stage)."""

import json
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from rich.table import Table

from local.demo import stage
from local.demo.admin import Admin
from local.demo.drift.receiver import Receiver
from local.demo.drift.result import Result
from local.demo.drift.story import MODEL, RULE, SWEEP_S, Story
from local.demo.screen import Screen
from local.demo.workshop import Workshop
from local.state import StateDir
from local.system import FUNCTIONS, SERVER, System

_TRAINING = "local.demo.drift.training"
_LIMITS = (
    "What minutes cannot show: reports are of whole hours, so July's rows stand beside winter's in one report, and "
    "July by itself stands out more; what is usual is learned from eight hours or more, slow drift from a day, and "
    "performance from labels that come later."
)


def run(*, json_output: bool, state_dir: Path | None = None) -> int:
    """Show the demo, and return the exit code: see local.demo.stage.run.

    With `json_output` standard output carries the result as one JSON object (local.demo.drift.result), nothing else.
    """
    return stage.run(partial(_show, json_output=json_output), json_output=json_output, state_dir=state_dir)


def _show(state: StateDir, screen: Screen, *, json_output: bool) -> list[str]:
    """Show it all; what was not as it should be."""
    screen.step("Starting Azurite, the functions host, the model server and a receiver of alerts; training begins")
    system = System(state)
    with ExitStack() as stack:
        workshop = Workshop(state.path / "models", log_path=state.logs / "training.log", module=_TRAINING)
        stack.callback(workshop.stop)
        receiver = stack.enter_context(Receiver())
        for part, settings in _settings(system, receiver).items():
            system.override(part, settings)
        state.create()
        stack.callback(system.stop)
        for part in system.parts:
            screen.live(f"starting {part}")
            system.start_part(part)
            screen.say(f"{part} runs")
        admin = stack.enter_context(Admin(system, MODEL))
        story = Story(admin=admin, screen=screen, workshop=workshop, receiver=receiver, server_url=system.server_url)
        story.tell()
        audit = admin.audit()
        result = Result(
            windows=story.windows,
            asked_to_alert_s=story.asked_to_alert_s,
            alerts=len(receiver.received(RULE)),
            refused=receiver.refused,
            retraining_requests=len(admin.retraining_requests()),
            audit_verified=bool(audit["verified"]),
        )
        screen.show(_table(result, elapsed_s=screen.elapsed_s))
        screen.say(_LIMITS)
        screen.live("stopping everything")
    if json_output:
        print(json.dumps(result.as_json()), flush=True)  # noqa: T201 - the result is the output
    return result.problems()


def _settings(system: System, receiver: Receiver) -> dict[str, dict[str, str]]:
    """Shorter intervals than those of a system that is to last, and whom to tell of alerts."""
    sink = {"name": "demo", "kind": "webhook", "url": receiver.url, "secret": receiver.secret}
    return {
        FUNCTIONS: {
            "SLIPWAY_SWEEP_SCHEDULE": f"*/{SWEEP_S} * * * * *",
            "SLIPWAY_SWEEP_GRACE_S": "15",
            "SLIPWAY_HOST_BLOB_SCAN_S": "0.5",
            "SLIPWAY_ALERT_SINKS": json.dumps([sink]),
            "SLIPWAY_ALERT_GROUP_WAIT_S": "0",
            "SLIPWAY_PUBLIC_URL": f"{system.functions_url}/api",
        },
        SERVER: {"SLIPWAY_POLL_S": "0.5", "SLIPWAY_WINDOW_S": "1", "SLIPWAY_FEATURE_WINDOW_S": "1"},
    }


def _table(result: Result, *, elapsed_s: float) -> Table:
    """A row for each window of traffic."""
    table = Table(title=f"The demo of drift, {elapsed_s:.0f} s", title_justify="left")
    for name in ("traffic", "report", "drifted, by PSI"):
        table.add_column(name)
    for name in ("model right", "alerts", "requests"):
        table.add_column(name, justify="right")
    for window in result.windows:
        table.add_row(
            window.name,
            window.outcome,
            ", ".join(f"{one.name} {one.psi:.2f}" for one in window.drifted) or "-",
            f"{window.accuracy:.1%}",
            str(window.alerts),
            str(window.retraining_requests),
        )
    return table
