"""Errors of the command line: one sentence, one exit code, one JSON value."""

import re
from pathlib import Path

import pytest

from local.processes import free_port
from local.state import Running, StateDir
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

GUIDE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
ERROR = {"error": {"code": "any", "message": "the reason"}}


@pytest.mark.parametrize(
    ("status", "exit_code", "word"),
    [
        (400, 1, "invalid_input"),
        (401, 1, "refused"),
        (404, 4, "not_found"),
        (409, 5, "conflict"),
        (413, 1, "invalid_input"),
        (429, 3, "unavailable"),
        (500, 1, "failed"),
        (503, 3, "unavailable"),
    ],
)
def test_each_status_has_an_exit_code_and_a_word(
    slipway: Slipway, api: FakeApi, status: int, exit_code: int, word: str
) -> None:
    api.answers["GET /api/models"] = (status, ERROR)
    told = slipway("models")
    assert told.code == exit_code
    assert told.out == ""
    assert told.err.startswith("slipway: ")
    assert told.err.count("\n") == 1
    as_json = slipway("models", "--json")
    assert as_json.code == exit_code
    assert as_json.json["error"]["code"] == word
    if status != 401:
        assert "the reason" in told.err
        assert as_json.json["error"]["message"] == "the reason"


@pytest.mark.parametrize("body", [b"", b"<html>", b'"text"', b'{"error": 7}', b"[]"])
def test_an_error_without_a_readable_reason_is_still_a_sentence(slipway: Slipway, api: FakeApi, body: bytes) -> None:
    api.answers["GET /api/models"] = (500, body)
    ran = slipway("models")
    assert ran.code == 1
    assert "500 without saying why" in ran.err


def test_the_model_servers_form_of_an_error_is_read_too(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /predict"] = (400, {"error": "wrong shape"})
    assert "wrong shape" in slipway("predict", "m", "--features", "[[1]]").err


def test_nobody_listening_is_not_reachable(bare: Slipway) -> None:
    ran = bare("models", "--url", f"http://127.0.0.1:{free_port()}", "--json")
    assert ran.code == 3
    assert "is the system up?" in ran.json["error"]["message"]


def test_a_lost_answer_is_asked_for_again(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models"] = [None, (200, {"items": [], "continuation": None})]
    ran = slipway("models", "--json")
    assert ran.code == 0
    assert ran.json == {"models": []}
    assert len(api.asked) == 2


@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        ("POST /api/models/m/versions/1/archive", ["archive", "m", "1", "--reason", "old"]),
        ("POST /api/models/m/artifacts/audit", ["audit", "artifacts", "m"]),
        ("POST /predict", ["predict", "m", "--features", "[[1]]"]),
        ("POST /api/models/m/versions/1/revalidate", ["revalidate", "m", "1", "--reason", "new rules"]),
        (
            "POST /api/endpoints/m/quarantine/2/clear",
            ["quarantine", "clear", "m", "2", "--by", "ann", "--reason", "fit"],
        ),
        ("POST /api/endpoints/m/rollouts/rollout-1/approval-links", ["approval-link", "m", "--approver", "bob"]),
        ("POST /api/models/m/policy/dry-run", ["policy", "dry-run", "m", "{policy}"]),
    ],
)
def test_a_command_without_an_id_is_not_sent_again_as_the_guide_says(
    slipway: Slipway, api: FakeApi, request_: str, arguments: list[str], tmp_path: Path
) -> None:
    (tmp_path / "policy.json").write_text("{}")
    api.answers["GET /api/endpoints/m"] = (200, {"rollout": {"rollout_id": "rollout-1"}})
    api.answers[request_] = [None, None, None]
    ran = slipway(*(argument.format(policy=tmp_path / "policy.json") for argument in arguments))
    assert ran.code == 3
    assert "whether it was done is not known" in " ".join(ran.err.split())
    assert len([asked for asked in api.asked if asked.method == "POST"]) == 1
    told = GUIDE.partition("The CLI does not send ")[2].partition("again when the answer is lost")[0]
    assert any(" ".join(arguments).startswith(name) for name in re.findall(r"`([^`]+)`", told))


def test_a_server_that_always_hangs_up_is_given_up(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models"] = [None] * 10
    assert slipway("models").code == 3
    assert len(api.asked) == 3


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://127.0.0.1", "http://x:port", "nonsense"])
def test_an_address_that_is_none_is_wrong_usage(bare: Slipway, url: str) -> None:
    assert bare("models", "--url", url).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["models", "--nonsense"],
        ["push"],
        ["push", "x.onnx", "--model", "Not A Name"],
        ["push", "/nonexistent/x.onnx", "--model", "m"],
        ["predict", "m", "--features", "{"],
        ["predict", "m", "--features", "[NaN]"],
        ["predict", "m", "--features", "[" * 100_000],
        ["predict", "m", "--features", "@/nonexistent"],
        ["predict", "m", "--features", "[1]", "--version", "0"],
        ["rollout", "start", "m", "one"],
        ["rollout", "start", "m", "0"],
        ["policy", "set", "m", "/nonexistent"],
        ["models", "../admin"],
        ["models", "--filter", "version = 1"],
        ["rollout", "start", "m", "2", "--force"],
        ["alias", "set", "m", "blue", "two"],
        ["alias", "set", "m", "blue"],
        ["alias", "show", "Not A Name", "blue"],
        ["approve", "m", "1"],
        ["approve", "m", "one", "--by", "Bob"],
        ["archive", "m", "1"],
        ["policy", "set", "m", "/nonexistent.yaml"],
    ],
)
def test_a_command_line_that_cannot_be_used_is_wrong_usage(
    slipway: Slipway, api: FakeApi, arguments: list[str]
) -> None:
    told = slipway(*arguments)
    assert told.code == 2
    assert told.out == ""
    assert told.err.startswith("slipway: ")
    as_json = slipway(*arguments, "--json")
    assert as_json.code == 2
    assert as_json.json["error"]["message"]
    assert api.asked == []


def test_a_wrong_command_line_names_the_help_that_shows_the_right_one(bare: Slipway) -> None:
    assert bare("nonsense").err.endswith(": see `slipway --help`\n")
    assert bare("rollout", "start", "m").err.endswith(": see `slipway rollout start --help`\n")


def test_a_command_line_that_breaks_off_gets_the_help_page_as_it_is(bare: Slipway) -> None:
    for arguments in ((), ("rollout",)):
        ran = bare(*arguments)
        assert ran.code == 2
        assert ran.out == ""
        assert ran.err.startswith("Usage: ")
        assert "--help" not in ran.err.splitlines()[-1]


def test_an_endless_view_and_one_json_value_exclude_each_other(slipway: Slipway, api: FakeApi) -> None:
    ran = slipway("status", "--watch", "--json")
    assert ran.code == 2
    assert ran.json["error"]["code"] == "usage"
    assert api.asked == []


def test_without_a_system_the_way_to_one_is_told(bare: Slipway) -> None:
    for command in (["models"], ["predict", "m", "-f", "[1]"]):
        ran = bare(*command)
        assert ran.code == 3
        assert "slipway up" in ran.err
        assert "SLIPWAY_STATE_DIR" in ran.err


def test_a_running_system_is_found_and_a_dead_ones_file_is_not_believed(
    bare: Slipway, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(tmp_path / "state")
    monkeypatch.setenv("SLIPWAY_STATE_DIR", str(state.path))
    api.answers["GET /api/models"] = (200, {"items": [], "continuation": None})
    with state.locked():
        starting = bare("models")
        assert starting.code == 3
        assert "is starting or stopping" in starting.err
        state.write_running(
            Running(functions_url=api.url, server_url=api.url, key="machine-key", storage_connection="-", pids={})
        )
        assert bare("models").code == 0
        assert api.asked[0].key == "machine-key"
    assert bare("models").code == 3


def test_the_key_of_this_machines_system_goes_to_no_other(
    bare: Slipway, api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = StateDir(tmp_path / "state")
    monkeypatch.setenv("SLIPWAY_STATE_DIR", str(state.path))
    with state.locked():
        state.write_running(
            Running(
                functions_url="http://127.0.0.1:1", server_url="-", key="machine-key", storage_connection="-", pids={}
            )
        )
        bare("models", "--url", api.url)
    assert [asked.key for asked in api.asked] == [None]
