"""The demo as its user runs it: one command, one JSON object, nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from local.system import REPOSITORY
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1_800)]

COMMAND = [sys.executable, "-P", "-m", "cli.main", "demo", "--json"]


def test_the_demo_promotes_rejects_and_takes_back_without_a_failed_request(tmp_path: Path) -> None:
    ended = subprocess.run(
        COMMAND, cwd=REPOSITORY, env=_environment(tmp_path), capture_output=True, text=True, timeout=1_700, check=False
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    times = {key: result.pop(key) for key in list(result) if key.endswith("_s")}
    requests = result.pop("requests")
    assert result == {
        "failed": 0,
        "unsticky": 0,
        "promoted": 1,
        "rejected": 1,
        "rolled_back": 1,
        "audit_verified": True,
    }
    assert sorted(times) == ["drop_to_first_answer_s", "drop_to_registered_s", "fault_to_zero_traffic_s"]
    assert all(value > 0 for value in times.values())
    assert requests > 500
    assert "below the limit" in ended.stderr
    assert "is taken back (rolled_back)" in ended.stderr
    assert list(tmp_path.glob("slipway-demo-*")) == []
    assert _left_running(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_interrupted_stops_everything_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with _demo(tmp_path) as (demo, said):
        eventually(lambda: "functions runs" in said(), what="the functions host to run", deadline_s=400)
        assert len(_left_running(tmp_path)) > 2
        demo.send_signal(number)
        assert demo.wait(200) == 130
    assert list(tmp_path.glob("slipway-demo-*")) == []
    eventually(lambda: not _left_running(tmp_path), what="every process to end")


@contextmanager
def _demo(tmp_path: Path) -> Generator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """A demo under way, and what it has said so far."""
    said = tmp_path / "said"
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with said.open("wb") as output:
        demo = subprocess.Popen(
            COMMAND, cwd=REPOSITORY, env=_environment(tmp_path), stdout=subprocess.DEVNULL, stderr=output
        )
    try:
        yield demo, said.read_text
    finally:
        if demo.poll() is None:
            demo.kill()
            demo.wait()


def _environment(tmp_path: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(tmp_path)}


def _left_running(tmp_path: Path) -> list[int]:
    """The processes that were given the test's own directory for temporary files: those of its demo."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                environment = (process / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"TMPDIR={tmp_path}".encode() in environment:
                found.append(int(process.name))
    return found
