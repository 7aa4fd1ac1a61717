"""What each command asks of the admin API and the model server, and what it tells."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

VERSION = {
    "model": "m",
    "version": 1,
    "state": "rejected",
    "registered_at": "2026-01-02T03:04:05Z",
    "validation": {
        "outcome": "fail",
        "verdicts": [{"check": "accuracy", "outcome": "fail", "sentence": "accuracy 0.5 is below the limit 0.85"}],
        "metrics": {"accuracy": 0.5},
    },
}
ROLLOUT = {
    "rollout_id": "rollout-1",
    "endpoint": "m",
    "version": 2,
    "stable": 1,
    "strategy": "canary",
    "state": "progressing",
    "stages": [{"weight_bp": 1_000, "duration_s": 5.0}, {"weight_bp": 5_000, "duration_s": 5.0}],
    "stage": 0,
    "weight_bp": 1_000,
    "started_at": "2026-01-02T03:04:05Z",
    "ended_at": None,
    "failed_checks": 0,
    "verdicts": [{"check": "error_rate", "outcome": "inconclusive", "sentence": "12 of 100 requests seen"}],
    "reason": "",
}
ENDPOINT = {"endpoint": "m", "stable": 1, "generation": 4, "queued_version": None, "rollout": ROLLOUT}
DROP = {
    "blob": "m/x.onnx",
    "etag": "1",
    "state": "refused",
    "reason": "not an ONNX model",
    "seen_at": "2026-01-02T03:04:05Z",
}


def page(*items: Any, continuation: str | None = None) -> tuple[int, Any]:
    return 200, {"items": list(items), "continuation": continuation}


def test_models_are_listed_over_all_pages(slipway: Slipway, api: FakeApi) -> None:
    a, b = {"model": "a", "latest_version": None}, {"model": "b", "latest_version": 7}
    api.answers["GET /api/models"] = page(a, continuation="next page")
    api.answers["GET /api/models?continuation=next+page"] = page(b)
    assert slipway("models", "--json").json == {"models": [a, b]}
    assert {asked.key for asked in api.asked} == {"secret"}


def test_a_models_versions_are_shown_with_what_they_lack(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models/m"] = (200, {"model": "m", "policy": {}, "latest_version": 1})
    api.answers["GET /api/models/m/versions"] = page(VERSION)
    assert slipway("models", "m", "--json").json["versions"] == [VERSION]
    assert "accuracy 0.5 is below the limit 0.85" in slipway("models", "m").out


def test_status_tells_versions_refusals_and_the_rollout(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models/m/versions"] = page(VERSION)
    api.answers["GET /api/models/m/drops"] = page(DROP, DROP | {"state": "registered"})
    api.answers["GET /api/endpoints/m"] = (200, ENDPOINT)
    value = slipway("status", "m", "--json").json
    assert value == {"model": "m", "versions": [VERSION], "refused_drops": [DROP], "endpoint": ENDPOINT}
    shown = slipway("status", "m").out
    for words in (
        "rejected",
        "not an ONNX model",
        "serves version 1",
        "progressing at 10 %, stage 1 of 2",
        "12 of 100",
    ):
        assert words in shown


def test_status_without_a_model_tells_of_all_and_of_stray_drops(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models"] = page({"model": "m", "latest_version": 1})
    api.answers["GET /api/models/m/versions"] = page(VERSION)
    api.answers["GET /api/models/m/drops"] = page()
    api.answers["GET /api/models/-/drops"] = page(DROP)
    value = slipway("status", "--json").json
    assert [model["endpoint"] for model in value["models"]] == [None]
    assert value["refused_drops"] == [DROP]
    assert "nothing is served yet" in slipway("status").out


def test_status_tells_why_a_model_that_never_came_to_be_was_refused(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models/m/drops"] = page(DROP)
    value = slipway("status", "m", "--json").json
    assert value["versions"] == []
    assert value["refused_drops"] == [DROP]
    api.answers["GET /api/models/m/drops"] = page()
    assert slipway("status", "m").code == 4


@pytest.mark.parametrize("source", ["argument", "file", "stdin"])
def test_predict_sends_features_user_and_version(
    slipway: Slipway, api: FakeApi, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '{"x": [[1.5, 2]]}'
    (tmp_path / "features.json").write_text(text)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    given = {"argument": text, "file": f"@{tmp_path}/features.json", "stdin": "-"}[source]
    answer = {"predictions": [1], "model_version": 3, "role": "stable", "fallback": True, "latency_ms": 1.25}
    api.answers["POST /predict"] = (200, answer)
    ran = slipway("predict", "m", "--features", given, "--user", "ann", "--version", "3")
    assert ran.code == 0
    assert ran.out == "[1]\nversion 3 (stable, in place of one that failed), 1.2 ms\n"
    assert api.asked[0].body == {"model": "m", "features": {"x": [[1.5, 2]]}, "user_id": "ann", "model_version": 3}
    assert api.asked[0].key is None


def test_a_rollout_is_started_under_one_command_id_however_often_it_is_sent(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/endpoints/m/rollouts"] = [None, (200, ROLLOUT)]
    ran = slipway("rollout", "start", "m", "2", "--reason", "asked for", "--json")
    assert ran.json == ROLLOUT
    first, second = (asked.body for asked in api.asked)
    assert first == second
    assert (first["version"], first["reason"], len(first["command_id"])) == (2, "asked for", 36)


@pytest.mark.parametrize("verb", ["promote", "abort"])
def test_promote_and_abort_act_on_the_active_rollout(slipway: Slipway, api: FakeApi, verb: str) -> None:
    api.answers["GET /api/endpoints/m"] = (200, ENDPOINT)
    api.answers[f"POST /api/endpoints/m/rollouts/rollout-1/{verb}"] = (200, ROLLOUT | {"state": "aborted"})
    ran = slipway("rollout", verb, "m")
    assert ran.code == 0
    assert "aborted" in ran.out


@pytest.mark.parametrize("rollout", [None, ROLLOUT | {"state": "promoted"}])
def test_without_an_active_rollout_there_is_nothing_to_abort(slipway: Slipway, api: FakeApi, rollout: Any) -> None:
    api.answers["GET /api/endpoints/m"] = (200, ENDPOINT | {"rollout": rollout})
    ran = slipway("rollout", "abort", "m")
    assert ran.code == 5
    assert [asked.method for asked in api.asked] == ["GET"]


def test_rollout_status_shows_past_and_present(slipway: Slipway, api: FakeApi) -> None:
    past = ROLLOUT | {
        "rollout_id": "rollout-0",
        "state": "rolled_back",
        "reason": "errors",
        "ended_at": "2026-01-02T03:04:05Z",
    }
    api.answers["GET /api/endpoints/m"] = (200, ENDPOINT)
    api.answers["GET /api/endpoints/m/rollouts"] = page(past, ROLLOUT)
    shown = slipway("rollout", "status", "m").out
    assert "rollout-0" in shown
    assert "12 of 100 requests seen" in shown


def test_a_policy_comes_back_as_it_is_set(slipway: Slipway, api: FakeApi, tmp_path: Path) -> None:
    policy = {"validation": {"accuracy": 0.9}}
    api.answers["GET /api/models/m"] = (200, {"model": "m", "policy": policy})
    file = tmp_path / "policy.json"
    file.write_text(slipway("policy", "show", "m").out)
    api.answers["PUT /api/models/m/policy"] = (200, {"model": "m", "policy": policy})
    assert slipway("policy", "set", "m", str(file), "--json").json == policy
    assert api.asked[-1].body == policy


@pytest.mark.parametrize("text", ["[]", "7", "", "{"])
def test_a_policy_file_that_is_none_is_not_sent(slipway: Slipway, api: FakeApi, tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    assert slipway("policy", "set", "m", str(file)).code == 2
    assert api.asked == []


def test_a_broken_audit_is_told_and_fails(slipway: Slipway, api: FakeApi) -> None:
    problem = {"stream": "model:m", "seq": 3, "problem": "the hash does not match"}
    found = {"verified": False, "streams": 1, "events": 5, "problems": [problem]}
    api.answers["GET /api/audit/verify?stream=model%3Am"] = (200, found)
    ran = slipway("audit", "verify", "model:m")
    assert ran.code == 1
    assert "model:m event 3: the hash does not match" in ran.out
    api.answers["GET /api/audit/verify"] = (200, found | {"verified": True, "problems": []})
    assert slipway("audit", "verify").code == 0


def test_audit_events_are_shown_in_order(slipway: Slipway, api: FakeApi) -> None:
    event = {
        "stream": "model:m",
        "seq": 1,
        "at": "2026-01-02T03:04:05Z",
        "kind": "[red]made[/red]",
        "data": {"by": "ann"},
    }
    api.answers["GET /api/audit/events?stream=model%3Am"] = page(event)
    assert slipway("audit", "show", "model:m", "--json").json["events"] == [event]
    shown = slipway("audit", "show", "model:m").out
    assert "[red]made[/red]" in shown
    assert "by=ann" in shown


def test_every_command_answers_json(slipway: Slipway) -> None:
    helps = json.dumps([slipway(*c, "--help").out for c in (["push"], ["up"], ["demo"], ["test"], ["audit", "verify"])])
    assert helps.count("--json") == 5
