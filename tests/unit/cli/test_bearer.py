"""Signing in: the token that is sent beside the key, where it comes from, and what happens once it passes no more."""

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from cli.bearer import AUDIENCE_VARIABLE, COMMAND_VARIABLE, TOKEN_VARIABLE
from local.state import Running, StateDir
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

MODELS: tuple[int, dict[str, Any]] = (200, {"items": [], "continuation": None})


@pytest.fixture
def signed_in(api: FakeApi) -> FakeApi:
    """An API that lets nobody in without a token."""
    api.tokens = {"good"}
    api.answers["GET /api/models"] = MODELS
    return api


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_without_a_token_the_refusal_says_what_to_set(slipway: Slipway, signed_in: FakeApi) -> None:
    ran = slipway("models")
    assert ran.code == 1
    assert AUDIENCE_VARIABLE in ran.err
    assert [one.authorization for one in signed_in.asked] == [None]


def test_a_token_that_is_given_goes_with_the_key_and_is_not_asked_for_again(
    slipway: Slipway, signed_in: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "good")
    assert slipway("models").code == 0
    (asked,) = signed_in.asked
    assert (asked.key, asked.authorization) == ("secret", "Bearer good")
    monkeypatch.setenv(TOKEN_VARIABLE, "old")
    assert slipway("models").code == 1
    assert len(signed_in.asked) == 2


@pytest.mark.usefixtures("signed_in")
def test_the_azure_cli_is_asked_for_a_token_of_the_audience(
    slipway: Slipway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "az", f'echo "$@" > {shlex.quote(str(tmp_path / "given"))}\necho good')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(AUDIENCE_VARIABLE, "api://app")
    ran = slipway("models")
    assert ran.code == 0
    assert "good" not in ran.out + ran.err
    given = (tmp_path / "given").read_text().strip()
    assert given == "account get-access-token --resource api://app --query accessToken --output tsv"


def test_a_token_that_expires_on_the_way_is_replaced_and_a_change_is_made_once(
    slipway: Slipway, signed_in: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The first token passes nowhere, as one that has expired.
    count = shlex.quote(str(tmp_path / "count"))
    command = program(tmp_path / "token", f"if [ -e {count} ]; then echo good; else echo old; touch {count}; fi")
    monkeypatch.setenv(COMMAND_VARIABLE, shlex.quote(str(command)))
    path = "/api/endpoints/m/plan/republish"
    answer = {"endpoint": "m", "published": True, "generation": 4, "stored": 3, "reported": None}
    signed_in.answers[f"POST {path}"] = (200, answer)
    ran = slipway("plan", "republish", "m", "--by", "ann", "--reason", "r")
    assert ran.code == 0
    assert "generation 4; storage held generation 3, of pods none reports" in ran.out
    assert [one.authorization for one in signed_in.asked] == ["Bearer old", "Bearer good"]
    assert signed_in.asked[-1].body == {"by": "ann", "reason": "r"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo nobody is signed in >&2; exit 3", "ended with 3: nobody is signed in"),
        ("true", "printed no token"),
        ("echo a; echo b", "printed no token, or more than one"),
        (None, "is not installed"),
    ],
)
def test_where_no_token_can_be_had_nothing_is_asked_and_it_says_why(
    slipway: Slipway, signed_in: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, said: str
) -> None:
    command = tmp_path / "token" if text is None else program(tmp_path / "token", text)
    monkeypatch.setenv(COMMAND_VARIABLE, shlex.quote(str(command)))
    ran = slipway("models")
    assert ran.code == 1
    assert said in ran.err
    assert ran.err.count("\n") == 1
    assert signed_in.asked == []


def test_this_machine_s_own_system_is_shown_no_token(
    bare: Slipway, signed_in: FakeApi, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    signed_in.tokens = None
    state = StateDir(tmp_path / "state")
    monkeypatch.setenv("SLIPWAY_STATE_DIR", str(state.path))
    monkeypatch.setenv(TOKEN_VARIABLE, "good")
    url = signed_in.url
    with state.locked():
        state.write_running(Running(functions_url=url, server_url=url, key="k", storage_connection="-", pids={}))
        assert bare("models").code == 0
    assert [one.authorization for one in signed_in.asked] == [None]
