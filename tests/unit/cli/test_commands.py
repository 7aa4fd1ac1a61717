"""What each command asks of the admin API and the model server, and what it tells."""

import io
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import show
from cli.models import read_json
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway
from tests.unit.cli.rollout_views import endpoint_of, view

VERSION = {
    "model": "m",
    "version": 1,
    "state": "rejected",
    "registered_at": "2026-01-02T03:04:05Z",
    "aliases": ["blue"],
    "rollout_held": "",
    "validation": {
        "outcome": "fail",
        "verdicts": [{"check": "accuracy", "outcome": "fail", "sentence": "accuracy 0.5 is below the limit 0.85"}],
        "metrics": {"accuracy": 0.5},
    },
}
ROLLOUT = view()
ENDPOINT = endpoint_of()
DROP = {
    "blob": "m/x.onnx",
    "etag": "1",
    "state": "refused",
    "reason": "not an ONNX model",
    "seen_at": "2026-01-02T03:04:05Z",
}


PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def page(*items: Any, continuation: str | None = None) -> tuple[int, Any]:
    return 200, {"items": list(items), "continuation": continuation}


def test_the_version_is_the_one_of_pyproject(bare: Slipway) -> None:
    version = tomllib.loads(PYPROJECT.read_text())["project"]["version"]
    told = bare("--version")
    assert (told.code, told.out) == (0, f"slipway {version}\n")


def test_models_are_listed_over_all_pages(slipway: Slipway, api: FakeApi) -> None:
    a = {"model": "a", "latest_version": None, "production_version": None}
    b = {"model": "b", "latest_version": 7, "production_version": 3}
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
    assert value == {
        "model": "m",
        "versions": [VERSION],
        "waiting_drops": [],
        "refused_drops": [DROP],
        "endpoint": ENDPOINT,
    }
    shown = slipway("status", "m").out
    for words in (
        "rejected",
        "not an ONNX model",
        "serves version 1",
        "progressing at 10 %, stage 1 of 2",
        "12 of 100",
    ):
        assert words in shown


def test_what_is_watched_from_a_pipe_is_shown_as_it_comes_and_where_it_differs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[str] = []

    def values() -> Iterator[str]:
        for value in ("waits", "waits", "serves"):
            yield value
            shown.append(capsys.readouterr().out)

    show.live(values(), str)
    assert shown == ["waits\n", "", "serves\n"]


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


def test_json_comes_from_standard_input_too() -> None:
    assert read_json("-", "the features", stdin=io.StringIO('{"x": [[1.5, 2]]}')) == {"x": [[1.5, 2]]}


@pytest.mark.parametrize("source", ["argument", "file"])
def test_predict_sends_features_user_and_version(slipway: Slipway, api: FakeApi, source: str, tmp_path: Path) -> None:
    text = '{"x": [[1.5, 2]]}'
    (tmp_path / "features.json").write_text(text)
    given = {"argument": text, "file": f"@{tmp_path}/features.json"}[source]
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
    ran = slipway("rollout", verb, "m", "--by", "bob")
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
    answer = {"model": "m", "policy": policy, "policy_version": 4}
    api.answers["PUT /api/models/m/policy"] = (200, answer)
    assert slipway("policy", "set", "m", str(file), "--json").json == answer
    assert api.asked[-1].body == policy
    assert slipway("policy", "set", "m", str(file)).out == "policy 4 of m is in force\n"


@pytest.mark.parametrize("text", ["[]", "7", "", "{"])
def test_a_policy_file_that_is_none_is_not_sent(slipway: Slipway, api: FakeApi, tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.json"
    file.write_text(text)
    assert slipway("policy", "set", "m", str(file)).code == 2
    assert api.asked == []


def test_a_policy_may_be_yaml_and_set_only_over_the_one_expected(
    slipway: Slipway, api: FakeApi, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("validation:\n  accuracy: 0.9  # by agreement\n")
    answer = {"model": "m", "policy": {}, "policy_version": 4}
    api.answers["PUT /api/models/m/policy?expected_version=3"] = (200, answer)
    assert slipway("policy", "set", "m", str(file), "--expected-version", "3").code == 0
    assert api.asked[-1].body == {"validation": {"accuracy": 0.9}}


@pytest.mark.parametrize("text", ["[1]", "a: [", "a: 2026-01-02", "a: .nan", "? [a]\n: b", "a: !!python/object:x {}"])
def test_a_yaml_file_that_holds_no_policy_is_not_sent(
    slipway: Slipway, api: FakeApi, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "policy.yml"
    file.write_text(text)
    ran = slipway("policy", "set", "m", str(file))
    assert ran.code == 2
    assert str(file) in ran.err
    assert api.asked == []


def test_past_policies_are_listed_and_shown_by_their_number(slipway: Slipway, api: FakeApi) -> None:
    found = {"policy_version": 2, "at": "2026-01-02T03:04:05Z", "by": "api", "policy": {"validation": {}}}
    api.answers["GET /api/models/m/policy/versions"] = page(found)
    api.answers["GET /api/models/m/policy/versions/2"] = (200, found)
    assert slipway("policy", "versions", "m", "--json").json == {"policies": [found]}
    assert "2026-01-02 03:04:05" in slipway("policy", "versions", "m").out
    assert slipway("policy", "show", "m", "--version", "2", "--json").json == {"validation": {}}


ALIAS = {
    "model": "m",
    "alias": "blue",
    "version": 2,
    "sequence": 5,
    "since": "2026-01-02T03:04:05Z",
    "by": "api",
    "reason": "tried",
}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        (["2"], {"version": 2, "reason": ""}),
        (["none", "--reason", "gone"], {"version": None, "reason": "gone"}),
        (["2", "--expected-version", "1"], {"version": 2, "reason": "", "expected_version": 1}),
        (["2", "--expected-version", "none"], {"version": 2, "reason": "", "expected_version": None}),
    ],
)
def test_an_alias_is_set_under_one_command_id(
    slipway: Slipway, api: FakeApi, given: list[str], sent: dict[str, Any]
) -> None:
    api.answers["PUT /api/models/m/aliases/blue"] = [None, (200, ALIAS)]
    ran = slipway("alias", "set", "m", "blue", *given)
    assert ran.out == "blue of m names version 2, since 2026-01-02 03:04:05 by api: tried\n"
    first, second = (asked.body for asked in api.asked)
    assert first == second
    assert len(first.pop("command_id")) == 36
    assert first == sent


@pytest.mark.parametrize("given", [["two"], ["0"], ["2", "--expected-version", "-"]])
def test_an_alias_is_set_to_a_version_or_to_none(slipway: Slipway, api: FakeApi, given: list[str]) -> None:
    ran = slipway("alias", "set", "m", "blue", *given)
    assert ran.code == 2
    assert ran.err.rstrip().endswith("use a whole number from 1, or none")
    assert api.asked == []


def test_what_an_alias_names_and_named_is_told(slipway: Slipway, api: FakeApi) -> None:
    then = {"model": "m", "alias": "blue", "at": "2026-01-01T00:00:00Z", "version": None, "move": None}
    move = {"sequence": 5, "version": 2, "at": ALIAS["since"], "by": "[b]ann[/b]", "reason": "tried"}
    api.answers["GET /api/models/m/aliases/blue"] = (200, ALIAS)
    api.answers["GET /api/models/m/aliases/blue?at=2026-01-01T00%3A00%3A00Z"] = (200, then)
    api.answers["GET /api/models/m/aliases"] = page(ALIAS)
    api.answers["GET /api/models/m/aliases/blue/history"] = page(move)
    assert slipway("alias", "show", "m", "blue", "--json").json == ALIAS
    asked = ("alias", "show", "m", "blue", "--at", "2026-01-01T00:00:00Z")
    assert slipway(*asked).out == "at 2026-01-01 00:00:00 blue of m named no version\n"
    assert slipway("alias", "list", "m", "--json").json == {"aliases": [ALIAS]}
    assert "tried" in slipway("alias", "list", "m").out
    assert slipway("alias", "history", "m", "blue", "--json").json == {"moves": [move]}
    assert "[b]ann[/b]" in slipway("alias", "history", "m", "blue").out
    api.answers["GET /api/models/m/aliases"] = page()
    assert "slipway alias set" in slipway("alias", "list", "m").out


def test_versions_are_looked_for_by_a_filter(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models/m"] = (200, {"model": "m", "policy": {}, "latest_version": 1})
    api.answers["GET /api/models/m/versions?filter=metrics.accuracy+%3E+0.5"] = page(VERSION, continuation="more")
    api.answers["GET /api/models/m/versions?filter=metrics.accuracy+%3E+0.5&continuation=more"] = page()
    assert slipway("models", "m", "--filter", "metrics.accuracy > 0.5", "--json").json["versions"] == [VERSION]
    assert slipway("models", "--filter", "metrics.accuracy > 0.5").code == 2


def test_a_version_is_approved_under_one_command_id_and_archived(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/models/m/versions/1/approve"] = [None, (200, VERSION)]
    assert slipway("approve", "m", "1", "--by", "Bob", "--reason", "read the report", "--json").json == VERSION
    first, second = (asked.body for asked in api.asked)
    assert first == second
    assert (first["by"], first["reason"], len(first["command_id"])) == ("Bob", "read the report", 36)
    api.answers["POST /api/models/m/versions/1/archive"] = (200, VERSION | {"state": "archived"})
    ran = slipway("archive", "m", "1", "--reason", "old")
    assert "archived" in ran.out
    assert api.asked[-1].body == {"reason": "old"}
    for without in (["approve", "m", "1"], ["archive", "m", "1"]):
        assert slipway(*without).code == 2


def test_of_many_metrics_the_first_are_shown(slipway: Slipway, api: FakeApi) -> None:
    metrics = dict.fromkeys(("accuracy", "precision", "recall", "f1", "brier", "log_loss"), 0.5)
    api.answers["GET /api/models/m"] = (200, {"model": "m", "policy": {}, "latest_version": 1})
    api.answers["GET /api/models/m/versions"] = page(VERSION | {"validation": {"metrics": metrics}})
    assert "accuracy 0.5, precision 0.5, recall 0.5, f1 0.5, 2 more" in slipway("models", "m").out


def test_a_start_by_force_says_so_and_needs_a_reason(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/endpoints/m/rollouts"] = (200, ROLLOUT | {"forced": True})
    assert slipway("rollout", "start", "m", "2", "--force").code == 2
    assert api.asked == []
    assert "by force" in slipway("rollout", "start", "m", "2", "--force", "--reason", "callers know").out
    assert (api.asked[0].body["force"], api.asked[0].body["reason"]) == (True, "callers know")


def test_status_tells_what_waits_and_why_a_rollout_does_not_begin(slipway: Slipway, api: FakeApi) -> None:
    held = "version 1 of m has 0 approvals of the 1 that its policy wants"
    waiting = DROP | {"blob": "m/folder/", "state": "waiting", "waiting_for": ["slipway.yaml", "weights.bin"]}
    refused = {"version": 2, "reason": "version 2 breaks those who call version 1", "at": "2026-01-02T03:04:05Z"}
    advice = {"check": "claims", "outcome": "fail", "sentence": "claims too much", "advisory": True}
    version = VERSION | {"state": "validated", "rollout_held": held, "validation": {"verdicts": [advice]}}
    api.answers["GET /api/models/m/versions"] = page(version)
    api.answers["GET /api/models/m/drops"] = page(waiting)
    api.answers["GET /api/endpoints/m"] = (200, ENDPOINT | {"refused": refused})
    assert slipway("status", "m", "--json").json["waiting_drops"] == [waiting]
    shown = slipway("status", "m").out
    for words in (held, "m/folder/", "slipway.yaml; weights.bin", "blue", "not rolled out by policy: version 2 breaks"):
        assert words in shown
    assert "claims too much" not in shown


def test_status_tells_of_a_model_whose_only_drop_waits(slipway: Slipway, api: FakeApi) -> None:
    waiting = DROP | {"blob": "m/folder/", "state": "waiting", "waiting_for": ["slipway.yaml"]}
    api.answers["GET /api/models/m/drops"] = page(waiting)
    assert "slipway.yaml" in slipway("status", "m").out


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
