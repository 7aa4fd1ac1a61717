"""`slipway bench serving` runs the benchmark as a process, and says so where it cannot be run."""

import json
from pathlib import Path

import pytest

from cli.main import run


def test_what_cannot_be_run_is_an_error_in_one_json_value(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # where there is no wrk
    assert run(["bench", "serving", "--json"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["code"] == "failed"
    assert "there is no `wrk` on the PATH" in err
