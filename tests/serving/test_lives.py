"""That a process died is told of by those after it: what it held, under the same rollout, until the next one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aks_serving.lives import TOLD_S, Lives

from shared.telemetry.window import Deaths

_LIVES = """
import os, signal, sys
from pathlib import Path
from aks_serving.lives import Lives
lives = Lives(Path(sys.argv[1]), pod=sys.argv[2])
lives.begin()
lives.holds("churn", "rollout-1", [1, 2])
lives.holds("other", None, [7])
if sys.argv[3] == "ends":
    lives.end()
os.kill(os.getpid(), signal.SIGKILL)
"""


def lived(directory: Path, pod: str, how: str) -> None:
    """A process that notes what it holds, and is killed, or ended its note before."""
    done = subprocess.run([sys.executable, "-c", _LIVES, str(directory), pod, how], check=False)
    assert done.returncode == -9


def begun(directory: Path, pod: str) -> Lives:
    lives = Lives(directory, pod=pod)
    lives.begin()
    return lives


def test_who_died_is_counted_by_everybody_after_it_under_the_latest_rollout(tmp_path: Path) -> None:
    lived(tmp_path, "p-0", "dies")
    lived(tmp_path, "p-1", "ends")
    lived(tmp_path, "p-2", "dies")
    two = Deaths(rollout_id="rollout-1", processes={1: 2, 2: 2})
    for pod in ("p-3", "p-4"):
        lives = begun(tmp_path, pod)
        lives.holds("churn", "rollout-1", [1, 2])
        assert lives.deaths("churn") == two
        assert lives.deaths("other") is lives.deaths("unknown") is None
    living = begun(tmp_path, "p-5")
    living.end()
    assert living.deaths("churn") == two, "p-3 and p-4 live"


@pytest.mark.parametrize("note", [b"", b"{", b'{"churn": 1}\n', b'{"churn": ["rollout-1", [1]]}'])
def test_a_note_that_says_nothing_keeps_nobody(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "lives").mkdir()
    (tmp_path / "lives" / "p-0").write_bytes(note)
    assert begun(tmp_path, "p-1").deaths("churn") is None


def left(directory: Path, pod: str, rollout: str, age_s: float) -> None:
    """The note of a process that died so long ago."""
    path = directory / "lives" / pod
    path.write_bytes(f'{{"churn": ["{rollout}", [1]]}}\n'.encode())
    at = time.time() - age_s
    os.utime(path, (at, at))


def test_the_dead_of_an_hour_ago_and_of_an_earlier_rollout_count_no_more(tmp_path: Path) -> None:
    (tmp_path / "lives").mkdir()
    for number, age_s in enumerate((100, 200, TOLD_S + 60, TOLD_S + 120)):
        left(tmp_path, f"p-{number}", "rollout-2", age_s)
    for number in range(4, 9):
        left(tmp_path, f"p-{number}", "rollout-1", 300)
    assert begun(tmp_path, "now").deaths("churn") == Deaths(rollout_id="rollout-2", processes={1: 2})


def test_notes_are_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "lives").mkdir()
    for number in range(250):
        left(tmp_path, f"p-{number}", "rollout-1", 300 - number)
    assert begun(tmp_path, "now").deaths("churn") == Deaths(rollout_id="rollout-1", processes={1: 200})
    assert {path.name for path in (tmp_path / "lives").iterdir()} == {"now", *(f"p-{n}" for n in range(50, 250))}


def test_a_note_that_cannot_be_read_hides_no_other_and_keeps_nobody_from_noting(tmp_path: Path) -> None:
    (tmp_path / "lives" / "p-0").mkdir(parents=True)
    left(tmp_path, "p-1", "rollout-1", 1)
    assert begun(tmp_path, "now").deaths("churn") == Deaths(rollout_id="rollout-1", processes={1: 1})
    assert (tmp_path / "lives" / "now").is_file()


def test_a_disk_that_refuses_keeps_nobody_from_serving(tmp_path: Path) -> None:
    (tmp_path / "lives").write_bytes(b"in the way")
    lives = begun(tmp_path, "p-1")
    lives.holds("churn", "rollout-1", [1])
    assert lives.deaths("churn") is None
    lives.end()
