"""That a process died is told of by those after it: what it held, under the same rollout, until the next one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from aks_serving.lives import MOST_TOLD, Lives

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


def test_who_died_is_told_of_by_everybody_after_it_under_its_rollout_alone(tmp_path: Path) -> None:
    lived(tmp_path, "p-0", "dies")
    lived(tmp_path, "p-1", "ends")
    lived(tmp_path, "p-2", "dies")
    for pod in ("p-3", "p-4"):
        lives = begun(tmp_path, pod)
        lives.holds("churn", "rollout-1", [1, 2])
        assert lives.died("churn", "rollout-1") == {"p-0": [1, 2], "p-2": [1, 2]}
        assert lives.died("churn", "rollout-2") == lives.died("other", "rollout-1") == lives.died("other", None) == {}
    living = begun(tmp_path, "p-5")
    living.end()
    assert living.died("churn", "rollout-1") == {"p-0": [1, 2], "p-2": [1, 2]}, "p-3 and p-4 live"


@pytest.mark.parametrize("note", [b"", b"{", b'{"churn": 1}\n', b'{"churn": ["rollout-1", [1]]}'])
def test_a_note_that_says_nothing_keeps_nobody(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "lives").mkdir()
    (tmp_path / "lives" / "p-0").write_bytes(note)
    assert begun(tmp_path, "p-1").died("churn", "rollout-1") == {}


def test_notes_are_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    (tmp_path / "lives").mkdir()
    for number in range(250):
        path = tmp_path / "lives" / f"p-{number}"
        path.write_bytes(b'{"churn": ["rollout-1", [1]]}\n')
        os.utime(path, (number, number))
    told = begun(tmp_path, "now").died("churn", "rollout-1")
    assert list(told) == [f"p-{number}" for number in range(250 - MOST_TOLD, 250)]
    assert len(list((tmp_path / "lives").iterdir())) == 201


def test_a_disk_that_refuses_keeps_nobody_from_serving(tmp_path: Path) -> None:
    (tmp_path / "lives").write_bytes(b"in the way")
    lives = begun(tmp_path, "p-1")
    lives.holds("churn", "rollout-1", [1])
    assert lives.died("churn", "rollout-1") == {}
    lives.end()
