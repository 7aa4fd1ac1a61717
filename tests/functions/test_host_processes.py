"""Child processes and Azurite: started, found out when they fail, and gone when they should be."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from azure.storage.queue import QueueClient

from local import processes
from local.azurite import Azurite, AzuriteMissingError, find_entry, find_node
from tests.support.waiting import eventually


def _python(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _start(directory: Path, text: str) -> processes.Child:
    log = directory / "child.log"
    return processes.start(
        "child", _python(text), log_path=log, ready=lambda: "ready" in log.read_text(), deadline_s=120.0
    )


def test_a_child_that_ends_early_is_an_error_with_the_tail_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(processes.ProcessStartError, match=r"ended with 7 before(.|\n)*the reason") as raised:
        _start(tmp_path, "print('the reason'); raise SystemExit(7)")
    assert str(tmp_path / "child.log") in str(raised.value)


def test_a_child_that_is_not_ready_in_time_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"

    def never() -> bool:
        eventually(lambda: log.read_text().endswith("\n"), what="the child to run")
        return False

    text = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(processes.ProcessStartError, match=r"not ready within 0\.1 s"):
        processes.start("child", _python(text), log_path=log, ready=never, deadline_s=0.1)
    assert not _runs(int(log.read_text()))


def test_a_program_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(processes.ProcessStartError, match="no-such-program"):
        processes.start("child", ["no-such-program"], log_path=tmp_path / "log", ready=lambda: False, deadline_s=30.0)


def test_a_child_that_ignores_the_request_is_killed_with_what_it_started(tmp_path: Path) -> None:
    child = _start(
        tmp_path,
        """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print("ready", grandchild.pid, flush=True)
        time.sleep(600)
        """,
    )
    grandchild = int(child.log_path.read_text().split()[1])
    assert child.stop(grace_s=0.2) == -signal.SIGKILL
    eventually(lambda: not _runs(grandchild), what="the grandchild's end")
    assert child.stop() == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_until_what_is_begun_is_whole(number: signal.Signals) -> None:
    done: list[str] = []

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    def begin(number: signal.Signals) -> None:
        with processes.uninterrupted():
            os.kill(os.getpid(), number)
            done.append("begun")
            done.append("whole")

    before = signal.signal(number, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            begin(number)
        assert signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)
    assert done == ["begun", "whole"]


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "child.log"
    parent = subprocess.Popen(
        _python(
            f"""
            import sys, time
            from pathlib import Path
            from local import processes
            log = Path({str(log)!r})
            child = processes.start(
                "child", [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(600)"],
                log_path=log, ready=lambda: "ready" in log.read_text(), deadline_s=120.0,
            )
            print(child.pid, flush=True)
            time.sleep(600)
            """
        ),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent, parent.stdout:
        child_pid = int(parent.stdout.readline())
        assert _runs(child_pid)
        parent.kill()
    eventually(lambda: not _runs(child_pid), what="the child's end")


def test_a_free_port_can_be_listened_on() -> None:
    port = processes.free_port()
    assert 16_384 <= port < 32_768  # what systems give to connections, and to who asks for any, lies above
    ended = subprocess.run(
        _python(f"import socket; s = socket.socket(); s.bind(('127.0.0.1', {port})); s.listen()"), check=False
    )
    assert ended.returncode == 0


def test_azurite_keeps_its_state_over_a_stop(tmp_path: Path) -> None:
    azurite = Azurite(log_path=tmp_path / "azurite.log", location=tmp_path / "state")
    with azurite:
        with QueueClient.from_connection_string(azurite.connection_string, "kept") as queue:
            queue.create_queue()
            queue.send_message("still here")
        pid, ports = azurite.pid, azurite.ports
        assert set(ports) == {"Blob", "Queue", "Table"}
    assert not _runs(pid)
    with azurite:
        with QueueClient.from_connection_string(azurite.connection_string, "kept") as queue:
            assert [message.content for message in queue.peek_messages()] == ["still here"]
        assert azurite.pid != pid


def test_azurite_takes_given_ports_and_a_taken_one_is_an_error(tmp_path: Path, azurite: Azurite) -> None:
    taken = Azurite(log_path=tmp_path / "azurite.log", blob_port=azurite.ports["Blob"])
    with pytest.raises(processes.ProcessStartError, match="EADDRINUSE"):
        taken.start()
    port = processes.free_port()
    with Azurite(log_path=tmp_path / "azurite.log", queue_port=port) as given:
        assert given.ports["Queue"] == port


def test_accounts_see_nothing_of_each_other(azurite: Azurite) -> None:
    connections = [azurite.connection_string_of(f"account{number}") for number in ("398", "399")]
    with (
        QueueClient.from_connection_string(connections[0], "mine") as mine,
        QueueClient.from_connection_string(connections[1], "mine") as theirs,
    ):
        mine.create_queue()
        theirs.create_queue()
        mine.send_message("x")
        assert [message.content for message in theirs.peek_messages()] == []


def test_what_azurite_needs_and_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(AzuriteMissingError, match="SLIPWAY_NODE is '/no/node'"):
        find_node({"SLIPWAY_NODE": "/no/node"})
    with pytest.raises(AzuriteMissingError, match="install Node"):
        find_node({"PATH": str(tmp_path)})
    assert find_node({"SLIPWAY_NODE": sys.executable}) == sys.executable
    assert find_entry(os.environ).name == "azurite.js"
