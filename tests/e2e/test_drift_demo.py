"""The demo of drift as its user runs it: real drift is found on the real stack, told once, and asked for once."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local.system import REPOSITORY

pytestmark = pytest.mark.e2e


@pytest.mark.timeout(1_800)
def test_healthy_windows_stay_quiet_and_july_is_found_named_told_and_asked_for_once(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "cli.main", "demo", "drift", "--json"],
        cwd=REPOSITORY,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1_700,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout)
    windows = result["windows"]
    assert [window["outcome"] for window in windows] == ["pass", "pass", "fail", "fail"]
    assert [window["report_rows"] for window in windows] == [3_000, 6_000, 9_000, 12_000]
    assert [window["alarms"] for window in windows] == [0, 0, 1, 1]
    assert [window["alerts"] for window in windows] == [0, 0, 1, 1]
    assert [window["retraining_requests"] for window in windows] == [0, 0, 1, 1]
    for window in windows[2:]:
        assert set(window["to_blame"][:2]) == {"temp", "dewp"}
        assert {"temp", "dewp"} <= {one["name"] for one in window["drifted"]}
        assert all(one["psi"] >= 0.2 for one in window["drifted"])
    assert windows[2]["accuracy"] > 0.8
    assert (result["alerts"], result["refused"], result["retraining_requests"]) == (1, 0, 1)
    assert result["audit_verified"] is True
    # The alarm may be of a look at the first of July's flights: its features are those found by then.
    told = re.search(r"because of data_drift of version 1: (\w+)", ended.stderr)
    assert told is not None, ended.stderr
    assert told[1] in {"temp", "dewp"}
    assert list(tmp_path.glob("slipway-demo-*")) == []
