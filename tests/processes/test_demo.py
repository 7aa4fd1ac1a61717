"""How the demo ends where it cannot even begin."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.demo import run
from local.system import REPOSITORY
from shared.core.errors import InvalidInputError


def test_a_state_directory_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "documents.db").write_text("precious")
    with pytest.raises(InvalidInputError, match="is not empty"):
        run(json_output=True, state_dir=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["documents.db"]


def test_a_system_that_does_not_start_is_an_error_that_says_why_and_where_its_logs_are(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import sys; from local.demo import run; sys.exit(run(json_output=True))"],
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path), "SLIPWAY_NODE": str(tmp_path / "no-node")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "SLIPWAY_NODE is" in ended.stderr
    (kept,) = tmp_path.glob("slipway-demo-*")
    assert str(kept) in ended.stderr
