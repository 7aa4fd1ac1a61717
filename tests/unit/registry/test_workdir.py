"""Folders for work in progress: gone with their process, and closed to others."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shared.core.errors import UnavailableError
from shared.core.workdir import WorkRoots, work_folder

HOLD = """
import pathlib, signal, sys
from shared.core.workdir import work_folder
with work_folder("drop") as folder:
    (folder / "part").write_bytes(bytes(100))
    print(folder, flush=True)
    sys.stdin.read()
"""


def started(directory: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process that holds a work folder until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory)},
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_killed_process_is_removed_by_the_next_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    killed, left = started(tmp_path)
    living, kept = started(tmp_path)
    with killed, living:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert (left / "part").exists()
        own = WorkRoots(tmp_path).own()
        assert not left.parent.exists()
        assert (kept / "part").exists()
        assert own.is_dir()
        assert own.parent == left.parent.parent == tmp_path / f"slipway-work-{os.getuid()}"


def test_a_process_that_ends_leaves_nothing(tmp_path: Path) -> None:
    process, folder = started(tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert not folder.parent.exists()


def test_a_work_folder_is_empty_and_goes_with_its_content() -> None:
    with work_folder("drop") as folder:
        assert list(folder.iterdir()) == []
        assert folder.parent.stat().st_mode & 0o777 == 0o700
        (folder / "part").write_bytes(b"x")
    assert not folder.exists()


def test_two_folders_at_once_share_their_process_root_only() -> None:
    with work_folder("drop") as first, work_folder("drop") as second:
        assert first != second
        assert first.parent == second.parent


def test_a_root_that_was_taken_away_is_made_again(tmp_path: Path) -> None:
    roots = WorkRoots(tmp_path)
    first = roots.own()
    (first / "lock").unlink()
    first.rmdir()
    assert roots.own() != first
    assert roots.own().is_dir()


@pytest.mark.parametrize("trick", ["link", "open to others", "file"])
def test_a_directory_that_others_could_have_a_hand_in_is_refused(tmp_path: Path, trick: str) -> None:
    base = tmp_path / f"slipway-work-{os.getuid()}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "treasure").mkdir()
    match trick:
        case "link":
            base.symlink_to(elsewhere)
        case "open to others":
            base.mkdir()
            base.chmod(0o777)
        case _:
            base.write_bytes(b"")
    with pytest.raises(UnavailableError, match="mode 700"):
        WorkRoots(tmp_path).own()
    assert (elsewhere / "treasure").is_dir()


def test_a_link_among_the_roots_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_bytes(b"x")
    base = tmp_path / f"slipway-work-{os.getuid()}"
    base.mkdir(mode=0o700)
    (base / "1-x").symlink_to(precious)
    WorkRoots(tmp_path).own()
    assert (precious / "file").exists()
