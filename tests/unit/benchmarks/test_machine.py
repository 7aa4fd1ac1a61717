"""What is read of a process tree is the whole tree's."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.serving import machine
from benchmarks.serving.report import BEGIN, END, write_between

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "x = bytearray(64_000_000); print('up', flush=True); input()"],
                         stdin=subprocess.PIPE)
input()
child.communicate(b"\\n")
"""


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        machine.thaw(process.pid)
        process.communicate("\n")


def test_memory_is_of_all_processes_of_the_tree(parent: subprocess.Popen[str]) -> None:
    assert len(machine.tree(parent.pid)) == 2
    held = machine.memory(parent.pid)
    assert held.processes == 2
    assert held.rss_mb >= held.pss_mb > 61  # the child's bytearray, written to when it was made


def test_a_page_that_forked_processes_share_counts_once_and_a_librarys_in_full() -> None:
    script = "import os; x = bytearray(64_000_000); print('up', flush=True); os.wait() if os.fork() else input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as forking:
        assert forking.stdout is not None
        assert forking.stdout.readline() == b"up\n"
        deadline_s = time.monotonic() + 10
        while len(machine.tree(forking.pid)) < 2:
            assert time.monotonic() < deadline_s
        held = machine.memory(forking.pid)
        kernels = sum(_kernels_pss_mb(pid) for pid in machine.tree(forking.pid))
        forking.communicate(b"\n")
    assert held.rss_mb > 122  # bytearray(n) is zeros written by the allocator: 61 MB, seen in both
    assert held.pss_mb == pytest.approx(held.rss_mb / 2, rel=0.05)  # what the fork itself writes to comes on top
    # Python's own library is this process's too, and the kernel charges the tree only a part of it.
    assert held.pss_mb >= kernels


def _kernels_pss_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def test_a_tree_goes_before_others_where_it_may() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as asleep:
        autogroup = Path(f"/proc/{asleep.pid}/autogroup")
        machine.prefer(asleep.pid)
        is_kept = autogroup.exists() and os.geteuid() == 0
        found = autogroup.read_text("utf-8") if is_kept else "nice -20"
        asleep.kill()
    assert found.strip().endswith("nice -20")


def test_a_tree_is_stopped_and_goes_on_as_one(parent: subprocess.Popen[str]) -> None:
    pids = machine.tree(parent.pid)
    machine.freeze(parent.pid)
    for pid in pids:  # a signal arrives a moment after it is sent
        wait_for(pid, stopped=True)
    machine.thaw(parent.pid)
    for pid in pids:
        wait_for(pid, stopped=False)


def test_cpu_time_only_grows() -> None:
    before_s = machine.cpu_s(os.getpid())
    while machine.cpu_s(os.getpid()) == before_s:  # a tick is a hundredth of a second
        sum(range(1_000))
    assert machine.cpu_s(os.getpid()) > before_s


def test_tables_go_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "d.md"
    path.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between(path, "new")
    write_between(path, "newer")
    assert path.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}{BEGIN}", f"{BEGIN}{END}{BEGIN}{END}"])
def test_a_document_without_its_marks_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "d.md"
    path.write_text(text)
    with pytest.raises(ValueError, match="each once"):
        write_between(path, "new")
    assert path.read_text() == text


def wait_for(pid: int, *, stopped: bool) -> None:
    deadline_s = time.monotonic() + 10
    while (state(pid) == "T") != stopped:
        assert time.monotonic() < deadline_s, f"process {pid} is {state(pid)}"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
