"""Child processes: what they are given, and that they end."""

import json
import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from shared.core.errors import UnavailableError
from shared.validation.process import MAX_AT_ONCE, Ended, child_environment, run_child

CONFINE = """
import os, pathlib, sys
from shared.validation.confine import confine
from shared.validation.wire import Limits
limits = Limits(memory_bytes=1 << 30, cpu_s=20, file_bytes=1000, open_files=16)
missing = confine(limits, os.getppid(), writable=[pathlib.Path.cwd()])
"""


def ran(folder: Path, code: str, *, said: Callable[[bytes], None] | None = None) -> Ended:
    return run_child(
        ["-c", textwrap.dedent(code)],
        b"request",
        workdir=folder,
        wall_s=60.0,
        max_output_bytes=100_000,
        max_written_bytes=1 << 30,
        said=said,
    )


def test_the_child_gets_the_request_and_answers(tmp_path: Path) -> None:
    ended = ran(
        tmp_path, "import os, sys; print(sys.stdin.read(), os.getcwd()); print('oh', file=sys.stderr); sys.exit(3)"
    )
    assert ended == Ended(
        exit_code=3,
        timed_out=False,
        overfull=False,
        output=f"request {tmp_path}\n".encode(),
        overflowed=False,
        errors="oh\n",
    )


def test_no_secret_of_ours_reaches_the_child(tmp_path: Path) -> None:
    """This process's environment is given a secret for real, in a process of its own."""
    code = f"""
        import json, os, pathlib
        from shared.validation.process import run_child
        os.environ["AzureWebJobsStorage"] = "AccountKey=hunter2"
        ended = run_child(
            ["-c", "import json, os, sys; print(json.dumps([dict(os.environ), sys.path]))"],
            b"", workdir=pathlib.Path({str(tmp_path)!r}), wall_s=60, max_output_bytes=100_000,
            max_written_bytes=1 << 30,
        )
        print(ended.output.decode())
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    environment, path = json.loads(run.stdout)
    assert "hunter2" not in run.stdout
    allowed = {
        "ORT_DISABLE_TELEMETRY",
        "PYTHONPATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHASHSEED",
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "MALLOC_ARENA_MAX", "SLIPWAY_SANDBOX",
    }  # fmt: skip
    assert set(environment) <= allowed
    assert environment["HOME"] == str(tmp_path)
    assert environment["ORT_DISABLE_TELEMETRY"] == "1"
    assert not {"", ".", str(tmp_path)} & set(path), "a file that a drop brings must never be imported"


def test_the_environment_names_where_our_packages_are_and_nothing_relative(tmp_path: Path) -> None:
    built = child_environment({"SECRET": "x", "LD_LIBRARY_PATH": "/lib/of/python"}, ["", "lib", "/packages"], tmp_path)
    root = str(Path(__file__).resolve().parents[2])
    assert built["PYTHONPATH"].split(os.pathsep) == [root, "/packages"]
    assert built["LD_LIBRARY_PATH"] == "/lib/of/python"
    assert "SECRET" not in built


def test_output_beyond_the_limit_is_dropped_without_holding_the_child_up(tmp_path: Path) -> None:
    ended = ran(tmp_path, "print('x' * 5_000_000); import sys; print('y' * 5_000_000, file=sys.stderr)")
    assert (ended.exit_code, ended.overflowed, len(ended.output)) == (0, True, 100_000)
    assert len(ended.errors) <= 65_536


def test_a_child_whose_time_is_up_is_killed_with_all_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its time is up once all are there. Every process of the group holds the FIFO's writing end: its end tells that
    the last one is gone.
    """
    heard, jumped_s = bytearray(), 0.0

    def said(chunk: bytes) -> None:
        nonlocal jumped_s
        heard.extend(chunk)
        jumped_s = 60.0 if heard == b"up\nup\n" else 0.0

    clock = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + jumped_s)
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    ended = ran(
        tmp_path,
        """
        import os, signal
        os.open("alive", os.O_WRONLY)
        os.fork()
        print("up", flush=True)
        signal.alarm(60)
        signal.pause()
        """,
        said=said,
    )
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert ended.timed_out
    assert ended.exit_code == -signal.SIGKILL
    assert ended.output == b"up\nup\n"


def test_a_child_that_takes_its_working_directory_away_harms_nobody(tmp_path: Path) -> None:
    """As it can where the kernel has no Landlock; it is there when the last look would be due."""
    (tmp_path / "work").mkdir()
    ended = ran(tmp_path / "work", "import os, time; os.rmdir(os.getcwd()); time.sleep(1); print('done')")
    assert (ended.exit_code, ended.overfull, ended.output) == (0, False, b"done\n")


def test_what_a_child_leaves_running_is_killed_when_it_ends(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    ended = ran(
        tmp_path,
        """
        import os, signal
        os.open("alive", os.O_WRONLY)
        if os.fork() == 0:
            signal.alarm(60)
            signal.pause()
        """,
    )
    assert (ended.exit_code, ended.timed_out) == (0, False)
    os.set_blocking(reader, True)
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_a_child_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    child = (
        CONFINE
        + "os.write(os.open('alive', os.O_WRONLY), b'confined')\nimport signal; signal.alarm(30); signal.pause()"
    )
    code = (
        "import pathlib\n"
        "from shared.validation.process import run_child\n"
        f"run_child(['-c', {child!r}], b'', workdir=pathlib.Path({str(tmp_path)!r}), wall_s=60, max_output_bytes=9,\n"
        "    max_written_bytes=1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        try:
            writer = os.open(fifo, os.O_WRONLY)  # so that reading waits for the child, and does not end before it came
            os.set_blocking(reader, True)
            assert os.read(reader, 100) == b"confined"
            os.close(writer)
        finally:
            parent.kill()
    # The end of the pipe comes when the child is gone; its alarm would end it too, but later than is waited for here.
    assert select.select([reader], [], [], 10)[0], "the child lives on"
    assert os.read(reader, 1) == b""
    os.close(reader)


def test_no_more_children_run_at_once_than_memory_is_there_for(tmp_path: Path) -> None:
    """Each child waits until as many have begun as may run, then a while for one too many, and goes."""
    (tmp_path / "log").touch()
    code = f"""
        import os, sys, time
        log = os.open({str(tmp_path / "log")!r}, os.O_RDWR | os.O_APPEND)
        os.write(log, b"+")
        def running():
            said = os.pread(log, 100, 0)
            return said.count(b"+") - said.count(b"-")
        while os.pread(log, 100, 0).count(b"+") < {MAX_AT_ONCE}:
            time.sleep(0.01)
        end = time.monotonic() + 1.5
        while running() <= {MAX_AT_ONCE} and time.monotonic() < end:
            time.sleep(0.01)
        print(running())
        os.write(log, b"-")
    """
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(int(ran(tmp_path, code).output))) for _ in range(MAX_AT_ONCE + 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == MAX_AT_ONCE + 1
    assert max(found) == MAX_AT_ONCE


@pytest.mark.parametrize(
    ("code", "exit_code", "word"),
    [
        ("x = bytearray(2 << 30)", 1, "MemoryError"),
        (
            "open('f', 'wb', buffering=0).write(bytes(1000)); open('f', 'ab', buffering=0).write(b'x')",
            1,
            "File too large",
        ),
        ("kept = [open('/dev/null') for _ in range(30)]", 1, "Too many open files"),
        ("import resource; print(resource.getrlimit(resource.RLIMIT_CORE), file=sys.stderr)", 0, "(0, 0)"),
        ("print(os.getpriority(os.PRIO_PROCESS, 0) >= 5, file=sys.stderr)", 0, "True"),
    ],
    ids=["memory", "file size", "open files", "no core dump", "nice"],
)
def test_a_confined_process_is_within_its_limits(tmp_path: Path, code: str, exit_code: int, word: str) -> None:
    ended = ran(tmp_path, CONFINE + code)
    assert (ended.exit_code, word in ended.errors) == (exit_code, True), ended


def test_a_process_that_cannot_be_started_is_our_trouble(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="no process could be started"):
        ran(tmp_path / "absent", "pass")
