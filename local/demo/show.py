"""`slipway demo`: starts the system, tells the story, shows what was measured (its stage: local.demo.stage)."""

import json
import statistics
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from local.demo import stage
from local.demo.admin import Admin
from local.demo.errors import DemoError
from local.demo.result import Result, counts_of, fault_to_zero_traffic_s, first_answer_s, tallies
from local.demo.screen import Screen
from local.demo.stickiness import plans_of, unsticky
from local.demo.story import MODEL, Story
from local.demo.tables import result_table, versions_table
from local.demo.traffic import Traffic
from local.demo.training import Entry
from local.demo.workshop import Workshop
from local.state import StateDir
from local.system import FUNCTIONS, SERVER, System

_SETTINGS = {
    FUNCTIONS: {
        "SLIPWAY_SWEEP_SCHEDULE": "*/5 * * * * *",
        "SLIPWAY_SWEEP_GRACE_S": "15",
        "SLIPWAY_HOST_BLOB_SCAN_S": "0.5",
    },
    SERVER: {"SLIPWAY_POLL_S": "0.5", "SLIPWAY_WINDOW_S": "1"},
}
"""Shorter intervals than those of a system that is to last."""


def run(*, json_output: bool, state_dir: Path | None = None) -> int:
    """Show the demo, and return the exit code: see local.demo.stage.run.

    With `json_output` standard output carries the result as one JSON object (local.demo.result) and nothing else.
    """
    return stage.run(partial(_show, json_output=json_output), json_output=json_output, state_dir=state_dir)


def _show(state: StateDir, screen: Screen, *, json_output: bool) -> list[str]:
    """Show it all; what was not as it should be."""
    screen.step("Starting Azurite, the functions host and the model server; training begins beside them")
    system = System(state, settings=_SETTINGS)
    with ExitStack() as stack:
        workshop = Workshop(state.path / "models", log_path=state.logs / "training.log")
        stack.callback(workshop.stop)
        state.create()
        stack.callback(system.stop)
        for part in system.parts:
            screen.live(f"starting {part}")
            system.start_part(part)
            screen.say(f"{part} runs")
        admin = stack.enter_context(Admin(system, MODEL))

        def start_traffic() -> Traffic:
            rows = admin.wait_for("the traffic's rows", workshop.traffic, meanwhile=lambda: None)
            stream = Traffic(url=system.server_url, model=MODEL, rows=rows)
            stack.callback(stream.stop)
            stream.start()
            return stream

        story = Story(
            admin=admin,
            screen=screen,
            workshop=workshop,
            start_traffic=start_traffic,
            server_url=system.server_url,
        )
        story.tell()
        story.traffic.stop()
        screen.live("reckoning up")
        return _reckon(admin, story, screen, json_output=json_output)


def _reckon(admin: Admin, story: Story, screen: Screen, *, json_output: bool) -> list[str]:
    """Work out the result and show it; what was not as it should be."""
    traffic, drops = story.traffic, story.drops
    answers = traffic.answers
    plans = plans_of(admin.endpoint_events())
    versions, rollouts, audit = admin.versions(), admin.rollouts(), admin.audit()
    moved = unsticky(answers, plans)
    first_s = first_answer_s(answers, drops[Entry.BETTER].version)
    result = Result(
        drop_to_registered_s=statistics.median(drop.registered_s - drop.uploaded_s for drop in drops.values()),
        drop_to_first_answer_s=None if first_s is None else first_s - drops[Entry.BETTER].uploaded_s,
        fault_to_zero_traffic_s=fault_to_zero_traffic_s(answers, plans, drops[Entry.FAULTY].version),
        requests=traffic.sent,
        failed=len(traffic.failures),
        unsticky=len(moved),
        audit_verified=bool(audit["verified"]),
        **counts_of(versions, rollouts),
    )
    if traffic.sent != len(answers) + len(traffic.failures):
        raise DemoError(f"{traffic.sent} requests were sent, and {len(answers) + len(traffic.failures)} accounted for")
    screen.show(versions_table(list(drops.values()), tallies(answers), versions, rollouts))
    screen.show(result_table(result, elapsed_s=screen.elapsed_s, events=audit["events"]))
    screen.live("stopping everything")
    if json_output:
        print(json.dumps(result.as_json()), flush=True)  # noqa: T201 - the result is the output
    examples = [f"a request of {failure.user} failed: {failure.reason}" for failure in traffic.failures[:3]]
    examples += [f"{user} met {wrong}" for user, wrong in list(moved.items())[:3]]
    return result.problems() + examples
