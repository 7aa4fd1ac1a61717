"""`slipway demo`: starts the system, tells the story, shows what was measured.

It runs on a state directory and on ports of its own, so that it touches no other system. A directory that it made
itself is removed at the end, unless the demo failed: then it is named, with the last lines of each part's log. The exit
code is 0 only where every number is as it should be; ctrl-C stops everything, with 130.
"""

import json
import shutil
import signal
import statistics
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from local.azurite import AzuriteMissingError
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
from local.processes import ProcessStartError, log_tail
from local.state import StateDir
from local.system import FUNCTIONS, SERVER, System
from shared.core.errors import InvalidInputError, SlipwayError

_SETTINGS = {
    FUNCTIONS: {
        "SLIPWAY_SWEEP_SCHEDULE": "*/5 * * * * *",
        "SLIPWAY_SWEEP_GRACE_S": "15",
        "SLIPWAY_HOST_BLOB_SCAN_S": "0.5",
    },
    SERVER: {"SLIPWAY_POLL_S": "0.5", "SLIPWAY_WINDOW_S": "1"},
}
"""Shorter intervals than those of a system that is to last."""

_INTERRUPTED = 130
_TAIL_LINES = 12
_EXPECTED_ERRORS = (DemoError, SlipwayError, ProcessStartError, AzuriteMissingError)


def run(*, json_output: bool, state_dir: Path | None = None) -> int:
    """Show the demo, and return the exit code.

    With `json_output` standard output carries the result as one JSON object (local.demo.result) and nothing else.
    A given `state_dir` must be empty or not exist; it is kept. Raises InvalidInputError where it is not.
    """
    if state_dir is not None and state_dir.exists() and any(state_dir.iterdir()):
        raise InvalidInputError(f"the state directory {state_dir} is not empty: the demo begins on an empty one")
    state = StateDir(state_dir or Path(tempfile.mkdtemp(prefix="slipway-demo-")))
    keep = True
    with _stop_on_signal(), Screen(to_stderr=json_output) as screen:
        try:
            with state.locked():
                problems = _show(state, screen, json_output=json_output)
            keep = bool(problems)
        except KeyboardInterrupt:
            screen.bad("interrupted: everything is stopped")
            keep = False
            return _INTERRUPTED
        except _EXPECTED_ERRORS as error:
            problems = [str(error)]
            _show_logs(state, screen)
        finally:
            if not keep and state_dir is None:
                shutil.rmtree(state.path, ignore_errors=True)
        for problem in problems:
            screen.bad(problem)
        if problems:
            screen.say(f"what the system left, its logs included, is in {state.path}")
    return 1 if problems else 0


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


def _show_logs(state: StateDir, screen: Screen) -> None:
    """The last lines that each part wrote."""
    for log in sorted(state.logs.glob("*.log")):
        screen.say(f"{log.name} ends with:")
        for line in log_tail(log).splitlines()[-_TAIL_LINES:]:
            screen.detail(f"  {line}")


@contextmanager
def _stop_on_signal() -> Generator[None]:
    """Let SIGTERM interrupt as ctrl-C does, so that nothing is left running or lying about."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt
