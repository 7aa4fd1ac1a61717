"""`slipway up` as a person meets it: a process in a terminal, its clients beside it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from local.state import StateDir
from local.system import Ports, is_port_free

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_800)]

DEADLINE_S = 400.0


class Terminal:
    """Where a person types `slipway` commands that share a state directory."""

    def __init__(self, state_dir: Path) -> None:
        self.state = StateDir(state_dir)
        self.ports = ports_with_three_in_a_row()
        self._said = state_dir.with_name("said.txt")
        self._ups: list[subprocess.Popen[str]] = []

    def up(self) -> subprocess.Popen[str]:
        """Start `slipway up --json` and return when it has said where it answers."""
        where = self.ports
        process = self._start(
            "up", "--json", f"--functions-port={where.functions}", f"--server-port={where.server}",
            f"--storage-port={where.blob}",
        )  # fmt: skip
        self._ups.append(process)
        wait_until(lambda: self.state.running() is not None or process.poll() is not None)
        assert process.poll() is None, self._said.read_text()
        return process

    def slipway(self, *arguments: str) -> tuple[int, Any]:
        """Run a command with --json."""
        process = self._start(*arguments, "--json")
        out, _ = process.communicate(timeout=DEADLINE_S)
        return process.returncode, json.loads(out)

    def close(self) -> None:
        """End what still runs."""
        for process in self._ups:
            if process.poll() is None:
                process.terminate()
            process.communicate(timeout=DEADLINE_S)

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        with self._said.open("a") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "cli.main", *arguments],
                env=os.environ | {"SLIPWAY_STATE_DIR": str(self.state.path)},
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )


def ports_with_three_in_a_row() -> Ports:
    """Free ports, as `up` takes them: the two after the one for blobs are free too."""
    while True:
        ports = Ports.free()
        if is_port_free(ports.blob + 1) and is_port_free(ports.blob + 2):
            return ports


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path / "a state")
    yield terminal
    terminal.close()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def pids(terminal: Terminal) -> dict[str, int]:
    running = terminal.state.running()
    return {} if running is None else running.pids


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_up_serves_clients_refuses_a_second_and_stops_all_when_told(terminal: Terminal) -> None:
    up = terminal.up()
    assert terminal.slipway("status") == (0, {"models": [], "refused_drops": []})
    assert terminal.slipway("policy", "set", "m", os.devnull)[0] == 2
    code, refused = terminal.slipway("up")
    assert (code, refused["error"]["code"]) == (5, "conflict")
    parts = pids(terminal)
    assert set(parts) == {"azurite", "functions", "server"}
    up.send_signal(signal.SIGINT)
    out, _ = up.communicate(timeout=DEADLINE_S)
    assert up.returncode == 0
    assert json.loads(out)["pids"] == parts
    assert not any(runs(pid) for pid in parts.values())
    assert terminal.slipway("status")[0] == 3


def test_a_part_that_dies_is_started_again(terminal: Terminal) -> None:
    terminal.up()
    before = pids(terminal)
    os.kill(before["functions"], signal.SIGKILL)
    wait_until(lambda: pids(terminal).get("functions", before["functions"]) != before["functions"])
    assert terminal.slipway("models") == (0, {"models": []})
    assert pids(terminal)["server"] == before["server"]


def test_state_survives_a_kill_of_everything_and_nothing_is_left_running(terminal: Terminal, tmp_path: Path) -> None:
    up = terminal.up()
    policy = tmp_path / "policy.json"
    policy.write_text('{"validation": {"accuracy": 0.5}}')
    assert terminal.slipway("policy", "set", "m", str(policy))[0] == 0
    parts = pids(terminal)
    up.kill()
    up.wait()
    assert terminal.slipway("models")[0] == 3
    wait_until(lambda: not any(runs(pid) for pid in parts.values()))
    terminal.up()
    code, shown = terminal.slipway("policy", "show", "m")
    assert code == 0
    assert shown["validation"]["accuracy"] == 0.5
    assert terminal.slipway("audit", "verify")[1]["verified"] is True
