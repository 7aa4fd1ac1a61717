"""Where nothing may be skipped, a skip is a failure; elsewhere it is a skip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.project.repository import ROOT

SKIPS = """
import pytest

def test_body(): pytest.skip("no nginx")

@pytest.mark.skipif(True, reason="no promtool")
def test_mark(): pass

@pytest.mark.xfail(reason="known")
def test_known(): raise AssertionError
"""


@pytest.mark.parametrize(
    ("setting", "failed"),
    [("", set()), ("none", {"no nginx", "no promtool"}), ("no prom", {"no nginx"}), ("no (nginx|prom)", set())],
)
def test_only_what_is_named_may_be_skipped(setting: str, failed: set[str], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(SKIPS)
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.support.skips", "-p", "no:cacheprovider", "-rf", "test_it.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "SLIPWAY_SKIPS": setting, "PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == bool(failed), ended.stdout
    assert {why for why in ("no nginx", "no promtool") if why in ended.stdout} == failed
    assert "1 xfailed" in ended.stdout
