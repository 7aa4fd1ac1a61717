"""The state directory: one system at a time, and nobody fooled by what a dead one left."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.state import ProcessRecord, Running, StateDir, start_ticks, write_atomically
from local.system import end_left_behind
from shared.core.errors import ConflictError, InvalidInputError

RUNNING = Running(functions_url="http://f", server_url="http://s", key="k", storage_connection="c", pids={"server": 1})
HOLDER = """
import sys
from pathlib import Path
from local.state import StateDir
with StateDir(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "a state")
    state.create()
    return state


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def holder(state: StateDir) -> Iterator[subprocess.Popen[str]]:
    with start(HOLDER, str(state.path)) as process:
        yield process
        process.kill()


def record_of(name: str, pid: int) -> ProcessRecord:
    ticks = start_ticks(pid)
    assert ticks is not None
    return ProcessRecord(name=name, pid=pid, start_ticks=ticks)


@pytest.mark.usefixtures("holder")
def test_a_second_system_on_the_directory_is_refused(state: StateDir) -> None:
    assert state.is_held()
    with pytest.raises(ConflictError, match=r"runs on .* already"), state.locked():
        pytest.fail("the lock was given twice")


def test_a_lock_that_cannot_be_opened_is_a_sentence(state: StateDir) -> None:
    (state.path / "up.lock").mkdir()
    with pytest.raises(InvalidInputError, match=r"up.lock cannot be opened .*--state-dir"), state.locked():
        pytest.fail("the lock was given")


def test_the_lock_goes_with_a_killed_system_and_its_file_is_not_believed(
    state: StateDir, holder: subprocess.Popen[str]
) -> None:
    state.write_running(RUNNING)
    assert state.running() == RUNNING
    holder.kill()
    holder.wait()
    assert state.running() is None
    with state.locked():
        pass


@pytest.mark.parametrize("lock", ["start.lock", "up.lock"])
def test_who_is_refused_takes_nothing_from_the_one_that_runs(state: StateDir, lock: str) -> None:
    """Whichever lock that one holds: a version before knew only the second."""
    state.write_running(RUNNING)
    with (state.path / lock).open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ConflictError), state.locked():
            pytest.fail("the lock was given twice")
        assert state.up_file.exists()


def test_what_a_killed_system_wrote_is_gone_before_the_next_one_is_seen_to_run(state: StateDir) -> None:
    state.write_running(RUNNING)
    with (state.path / "up.lock").open("w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        with pytest.raises(ConflictError), state.locked():
            pytest.fail("the lock was given beside another")
        assert not state.up_file.exists()


def test_what_a_killed_system_wrote_is_not_believed_of_one_that_is_still_starting(state: StateDir) -> None:
    state.write_running(RUNNING)
    with state.locked():
        assert state.is_held()
        assert state.running() is None


def test_what_a_killed_system_wrote_is_not_believed_by_who_asks_as_the_next_one_begins(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write_running(RUNNING)

    def begins(self: StateDir) -> bool:
        self.clear_running()
        return True

    monkeypatch.setattr(StateDir, "is_held", begins)
    assert state.running() is None


def test_asking_who_runs_creates_nothing(tmp_path: Path) -> None:
    state = StateDir(tmp_path / "none")
    assert not state.is_held()
    assert state.running() is None
    assert not state.path.exists()


@pytest.mark.usefixtures("holder")
@pytest.mark.parametrize("text", ["", "{", "[]", '{"functions_url": "http://f"}'])
def test_a_file_that_up_did_not_write_is_named(state: StateDir, text: str) -> None:
    state.up_file.write_text(text)
    with pytest.raises(InvalidInputError, match=r"up\.json"):
        state.running()


def test_what_holds_keys_is_for_its_owner_alone(state: StateDir) -> None:
    state.write_running(RUNNING)
    assert state.up_file.stat().st_mode & 0o077 == 0
    assert state.path.stat().st_mode & 0o077 == 0


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="--state-dir"), StateDir(tmp_path / "file" / "state").locked():
        pytest.fail("a directory within a file")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_process_is_told_from_a_later_one_with_its_id() -> None:
    own = record_of("own", os.getpid())
    assert own.is_alive()
    assert not ProcessRecord(name="own", pid=own.pid, start_ticks=own.start_ticks - 1).is_alive()


def test_an_ended_process_that_nobody_waited_for_is_not_alive() -> None:
    with start("print('up', flush=True)\nimport sys\nsys.stdin.read()") as process:
        record = record_of("child", process.pid)
        assert record.is_alive()
        os.kill(process.pid, 9)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not record.is_alive()


def test_what_a_killed_system_left_running_is_ended_even_if_it_will_not(state: StateDir) -> None:
    with start(STUBBORN) as stubborn, start(STUBBORN) as stranger:
        left = record_of("server", stubborn.pid)
        reused = record_of("azurite", stranger.pid)
        reused = ProcessRecord(name="azurite", pid=reused.pid, start_ticks=reused.start_ticks + 1)
        state.record_processes([left, reused])
        with state.locked():
            assert end_left_behind(state, grace_s=0.1) == ["server"]
        assert stubborn.wait() == -9
        assert stranger.poll() is None
        stranger.kill()


@pytest.mark.parametrize(
    "text", ["", "{", "7", "[7]", '[{"name": "x"}]', '[{"name": "x", "pid": null, "start_ticks": 1}]']
)
def test_a_damaged_record_of_processes_is_as_none(state: StateDir, text: str) -> None:
    (state.path / "processes.json").write_text(text)
    assert state.left_behind() == []


def test_the_record_of_processes_is_json_for_a_person_to_read(state: StateDir) -> None:
    state.record_processes([ProcessRecord(name="server", pid=7, start_ticks=8)])
    text = (state.path / "processes.json").read_text()
    assert json.loads(text) == [{"name": "server", "pid": 7, "start_ticks": 8}]
