"""The HTTP edge in this process: what a caller learns when settings or stores are wrong, and which ids it may use."""

import logging
from pathlib import Path

import pytest

from shared.rollout.documents import automatic_command_id
from tests.unit.functions.conftest import Call


@pytest.mark.parametrize("setting", ["", "sqlite:not/absolute/secret-place.db"])
def test_a_wrong_setting_is_the_apps_own_fault_and_is_named_to_those_with_a_key(
    call: Call, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("SLIPWAY_DOCUMENTS", setting)
    status, answer = call("list_models")
    assert (status, answer["error"]["code"]) == (500, "misconfigured")
    assert "the setting SLIPWAY_DOCUMENTS is" in answer["error"]["message"]


@pytest.mark.parametrize("setting", ["", "sqlite:not/absolute/secret-place.db"])
def test_health_tells_nobody_which_setting_is_wrong_but_the_log(
    call: Call, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    monkeypatch.setenv("SLIPWAY_DOCUMENTS", setting)
    with caplog.at_level(logging.WARNING):
        answered = call("health")
    assert answered == (
        500,
        {
            "error": {
                "code": "misconfigured",
                "message": "a setting of the functions app is absent or wrong: the functions app's log has the details",
            }
        },
    )
    assert "the setting SLIPWAY_DOCUMENTS is" in caplog.text


@pytest.mark.parametrize("content", [None, b"no database at all" * 100])
def test_health_answers_503_in_a_fixed_sentence_whatever_cannot_be_used(
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    content: bytes | None,
) -> None:
    database = tmp_path / "secret-place" / "documents.db"
    if content is not None:
        database.parent.mkdir()
        database.write_bytes(content)
    monkeypatch.setenv("SLIPWAY_DOCUMENTS", f"sqlite:{database}")
    with caplog.at_level(logging.WARNING):
        answered = call("health")
    assert answered == (
        503,
        {
            "error": {
                "code": "unavailable",
                "message": "storage or the database is unavailable: the functions app's log has the details",
            }
        },
    )
    assert "secret-place" in caplog.text


@pytest.mark.parametrize("command_id", [automatic_command_id("digits", 1), "automatic:"])
@pytest.mark.parametrize("name", ["start_rollout", "promote_rollout", "abort_rollout"])
def test_a_caller_may_not_use_the_ids_of_the_policys_own_commands(call: Call, name: str, command_id: str) -> None:
    body = {"command_id": command_id} | ({"version": 1} if name == "start_rollout" else {})
    status, answer = call(name, body, endpoint="digits", rollout_id="r")
    assert (status, answer["error"]["code"]) == (400, "invalid_input")
    assert "command_id: " in answer["error"]["message"]
    assert "belong to the rollouts that policy starts" in answer["error"]["message"]
