"""A terminal that is closed ends what runs in it as ctrl-C does, and what was started under `nohup` outlives it."""

import fcntl
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from local.state import start_ticks
from local.system import REPOSITORY
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

DEMO = """
import sys, time
from pathlib import Path
from local import processes
from local.demo.stage import run
def play(state, screen):
    log, said = state.path / "log", Path(sys.argv[1])
    words = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"]
    ready = lambda: "ready" in log.read_text()
    with processes.start("child", words, log_path=log, ready=ready, deadline_s=30) as child:
        said.write_text(f"{child.pid} {state.path}")
        while True:
            time.sleep(0.05)
            screen.say("still here")
code = run(play, json_output=False)
Path(sys.argv[2]).write_text(str(code))
"""
UP = """
import sys, time
from pathlib import Path
from local.processes import interrupted_by_signals
with interrupted_by_signals():
    try:
        Path(sys.argv[1]).write_text("0 .")
        while not Path(sys.argv[2]).exists():
            time.sleep(0.05)
    except KeyboardInterrupt:
        print("stopping", file=sys.stderr, flush=True)
        Path(sys.argv[2]).write_text("interrupted")
"""


@contextmanager
def in_a_terminal(program: str, *words: str, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A Python program that leads the session of a terminal of its own, and the terminal's other end."""
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)

    def take_it() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [*words, sys.executable, "-c", program, str(tmp_path / "said"), str(tmp_path / "end")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(REPOSITORY)},
        preexec_fn=take_it,  # noqa: PLW1509 - there is no thread here that could hold a lock
    )
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()


def said_by(process: subprocess.Popen[bytes], terminal: int, tmp_path: Path) -> list[str]:
    """What the program wrote once it ran, while somebody reads what it shows."""

    def runs() -> bool:
        with suppress(OSError):  # Nothing is shown, or, under `nohup`, by nobody.
            os.read(terminal, 65_536)
        assert process.poll() is None
        return (tmp_path / "said").exists() and bool((tmp_path / "said").read_text())

    eventually(runs, what="the program to run")
    return (tmp_path / "said").read_text().split()


def is_written(file: Path) -> Callable[[], bool]:
    return lambda: file.exists() and bool(file.read_text())


def test_a_demo_whose_terminal_is_closed_stops_everything_and_leaves_nothing(tmp_path: Path) -> None:
    with in_a_terminal(DEMO, tmp_path=tmp_path) as (process, terminal):
        child, directory = said_by(process, terminal, tmp_path)
        assert start_ticks(int(child)) is not None
        os.close(terminal)
        eventually(is_written(tmp_path / "end"), what="the demo's end")
        assert (tmp_path / "end").read_text() == "130"
    assert not Path(directory).exists()
    assert start_ticks(int(child)) is None


def test_what_is_started_under_nohup_outlives_its_terminal(tmp_path: Path) -> None:
    with in_a_terminal(UP, tmp_path=tmp_path) as (process, terminal):
        said_by(process, terminal, tmp_path)
        os.close(terminal)
        eventually(is_written(tmp_path / "end"), what="the program's end")
        assert process.wait(30) == 0
    (tmp_path / "end").unlink()
    (tmp_path / "said").unlink()
    with in_a_terminal(UP, "nohup", tmp_path=tmp_path) as (process, terminal):
        said_by(process, terminal, tmp_path)
        os.close(terminal)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.5)
        process.terminate()
        eventually(is_written(tmp_path / "end"), what="the program's end")
