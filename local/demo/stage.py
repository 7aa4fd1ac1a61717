"""The stage of a demo: a state directory, a screen, and an orderly end whatever happens.

A demo runs on a state directory and on ports of its own, so that it touches no other system. A directory that it made
itself is removed at the end, unless the demo failed: then it is named, with the last lines of each part's log. The exit
code is 0 only where everything is as it should be; ctrl-C stops everything, with 130.
"""

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from local.azurite import AzuriteMissingError
from local.demo.errors import DemoError
from local.demo.screen import Screen
from local.processes import ProcessStartError, interrupted_by_signals, log_tail
from local.state import StateDir
from shared.core.errors import InvalidInputError, SlipwayError

_INTERRUPTED = 130
_TAIL_LINES = 12
_REMOVALS, _REMOVE_AGAIN_S = 50, 0.1
_EXPECTED_ERRORS = (DemoError, SlipwayError, ProcessStartError, AzuriteMissingError)

type Play = Callable[[StateDir, Screen], list[str]]
"""Shows it all, and returns what was not as it should be, a sentence each."""


def run(play: Play, *, json_output: bool, state_dir: Path | None = None) -> int:
    """Show the demo, and return the exit code.

    With `json_output` the screen is standard error: standard output is left to what `play` prints there.
    A given `state_dir` must be empty or not exist; it is kept. Raises InvalidInputError where it is not.
    """
    if state_dir is not None and state_dir.exists() and any(state_dir.iterdir()):
        raise InvalidInputError(f"the state directory {state_dir} is not empty: the demo begins on an empty one")
    state = StateDir(state_dir or Path(tempfile.mkdtemp(prefix="slipway-demo-")))
    keep = True
    with interrupted_by_signals(), Screen(to_stderr=json_output) as screen:
        try:
            with state.locked():
                problems = play(state, screen)
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
                remove(state.path)
        for problem in problems:
            screen.bad(problem)
        if problems:
            screen.say(f"what the system left, its logs included, is in {state.path}")
    return 1 if problems else 0


def remove(directory: Path) -> None:
    """Remove a directory, also where a process that was just stopped writes its last there: once more, for a while."""
    for _ in range(_REMOVALS):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(_REMOVE_AGAIN_S)


def _show_logs(state: StateDir, screen: Screen) -> None:
    """The last lines that each part wrote."""
    for log in sorted(state.logs.glob("*.log")):
        screen.say(f"{log.name} ends with:")
        for line in log_tail(log).splitlines()[-_TAIL_LINES:]:
            screen.detail(f"  {line}")
