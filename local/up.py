"""`slipway up`: the whole system on this machine until ctrl-C, SIGTERM, or the end of its terminal.

It holds the state directory, starts the parts in order, says where they answer, starts again what dies, and stops all
in order. `up.json` exists while the system is ready for clients. Ctrl-C is its usual end, so that ends with 0; a second
one kills what will not stop.
"""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from local.azurite import AzuriteMissingError
from local.processes import ProcessStartError, interrupted_by_signals
from local.state import DEFAULT_STATE_DIR, Running, StateDir
from local.system import Ports, System, end_left_behind
from shared.core.errors import SlipwayError

_LOOK_S = 0.5
_FIRST_DELAY_S = 1.0
_LONGEST_DELAY_S = 30.0
_STEADY_S = 60.0
"""A part that ran this long before it died starts again without the delay that earlier deaths earned it."""

type Say = Callable[[str], None]


def run(state_dir: Path, ports: Ports, *, json_output: bool) -> int:
    """Run the system until told to stop, and return the exit code. Raises SlipwayError where it cannot start."""
    state = StateDir(state_dir)
    with state.locked(), interrupted_by_signals():
        for name in end_left_behind(state):
            _say(f"ended {name}, which an earlier system had left running")
        system = System(state, ports=ports)
        try:
            _start(system)
            _announce(system, json_output=json_output)
            Keeper(system, say=_say, restarted=lambda: state.write_running(system.running())).keep()
        except KeyboardInterrupt:
            _say("stopping")
        finally:
            state.clear_running()
            _stop(system)
    return 0


class Kept(Protocol):
    """What is looked after; a System is one."""

    @property
    def parts(self) -> list[str]:
        """The names of all parts."""
        ...

    def fallen(self) -> list[str]:
        """Those that do not run."""
        ...

    def start_part(self, part: str) -> None:
        """Start one, and return when it is ready. Raises SlipwayError, ProcessStartError or OSError."""
        ...


class Keeper:
    """Starts parts again that have died, each after a delay that doubles with every death.

    `say` takes a line for a person; `restarted` is called when a part runs again, as another process.
    """

    def __init__(
        self,
        system: Kept,
        *,
        say: Say,
        restarted: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._system = system
        self._say = say
        self._restarted = restarted
        self._monotonic = monotonic
        self._delay_s = dict.fromkeys(system.parts, _FIRST_DELAY_S)
        self._due: dict[str, float] = {}
        self._started = dict.fromkeys(system.parts, monotonic())

    def keep(self) -> None:
        """Look after the parts until interrupted."""
        while True:
            time.sleep(_LOOK_S)
            self.look()

    def look(self) -> None:
        """See which parts have died, and start those again whose delay is over."""
        fallen = self._system.fallen()
        for part in self._system.parts:
            now = self._monotonic()
            if part in self._due:
                if now >= self._due[part]:
                    self._start_again(part)
            elif part in fallen:
                if now - self._started[part] >= _STEADY_S:
                    self._delay_s[part] = _FIRST_DELAY_S
                self._put_off(part, f"{part} has ended by itself")

    def _start_again(self, part: str) -> None:
        try:
            self._system.start_part(part)
            self._restarted()
        except (SlipwayError, ProcessStartError, AzuriteMissingError) as error:
            self._put_off(part, str(error))
            return
        except OSError as error:
            self._put_off(part, f"{part} cannot be started: {error}")
            return
        del self._due[part]
        self._started[part] = self._monotonic()
        self._say(f"{part} runs again")

    def _put_off(self, part: str, why: str) -> None:
        delay_s = self._delay_s[part]
        self._due[part] = self._monotonic() + delay_s
        self._delay_s[part] = min(2 * delay_s, _LONGEST_DELAY_S)
        self._say(f"{why}; it is started again in {delay_s:g} s")


def _start(system: System) -> None:
    system.state.create()
    system.check_ports()
    try:
        for part in system.parts:
            _say(f"starting {part}")
            system.start_part(part)
        system.state.write_running(system.running())
    except (ProcessStartError, AzuriteMissingError, OSError) as error:
        raise SlipwayError(str(error)) from error


def _stop(system: System) -> None:
    try:
        system.stop()
    except KeyboardInterrupt:
        _say("killing what has not stopped")
        for part in reversed(system.parts):
            system.kill_part(part)


def _announce(system: System, *, json_output: bool) -> None:
    running: Running = system.running()
    if json_output:
        print(running.model_dump_json(indent=2), flush=True)  # noqa: T201
        return
    state = system.state.path
    named = "" if state == DEFAULT_STATE_DIR else f"\n  export SLIPWAY_STATE_DIR={shlex.quote(str(state))}"
    print(  # noqa: T201
        f"""\
Slipway runs, until ctrl-C.
  admin API     {running.functions_url}/api   (header x-functions-key: see {system.state.up_file})
  model server  {running.server_url}
  state, logs   {state}
In another terminal:{named}
  ./slipway push FILE --model NAME --wait
  ./slipway status --watch
  ./slipway predict NAME --features '[[...]]'""",
        flush=True,
    )


def _say(text: str) -> None:
    print(f"slipway up: {text}", file=sys.stderr, flush=True)  # noqa: T201
