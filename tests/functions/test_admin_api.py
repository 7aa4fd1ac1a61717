"""The admin API through the real host: what a caller sees of bad input, absent things and conflicts."""

import hashlib
import sqlite3
from collections.abc import Generator
from contextlib import closing
from typing import Any

import httpx
import pytest

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from tests.e2e.driver import SETTINGS, Driver
from tests.support.models import bundle, classifier
from tests.support.plain import NO_TLS

pytestmark = pytest.mark.azurite


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Generator[System]:
    """Azurite and a functions host, without a model server."""
    system = System(StateDir(tmp_path_factory.mktemp("state")), settings={FUNCTIONS: SETTINGS})
    try:
        system.state.create()
        system.start_part(AZURITE)
        system.start_part(FUNCTIONS)
        yield system
    finally:
        system.stop()


@pytest.fixture(scope="module")
def driver(system: System) -> Generator[Driver]:
    driver = Driver(system)
    yield driver
    driver.close()


def call(system: System, method: str, path: str, *, key: str | None = "", **request: Any) -> httpx.Response:
    headers = {} if key is None else {"x-functions-key": key or system.key}
    return httpx.request(
        method, f"{system.functions_url}/api/{path}", headers=headers, timeout=30, verify=NO_TLS, **request
    )


def error_of(answer: httpx.Response) -> tuple[int, str, str]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error["message"]


def test_health_answers_without_a_key_and_the_rest_does_not(system: System) -> None:
    assert call(system, "GET", "health", key=None).json() == {"status": "ok"}
    assert call(system, "GET", "models", key=None).status_code == 401
    assert call(system, "GET", "models", key="wrong").status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "message"),
    [
        ("GET", "models/nothing", "model 'nothing' does not exist"),
        ("GET", "models/nothing/versions", "model 'nothing' does not exist"),
        ("GET", "models/nothing/versions/1", "version 1 of model 'nothing' does not exist"),
        ("GET", "models/nothing/versions/1/report", "version 1 of model 'nothing' does not exist"),
        ("GET", "endpoints/nothing", "endpoint nothing does not exist"),
        ("GET", "endpoints/nothing/plan", "endpoint nothing does not exist"),
        ("GET", "endpoints/nothing/rollouts", "endpoint nothing does not exist"),
        ("GET", "endpoints/nothing/rollbacks", "endpoint nothing does not exist"),
        ("GET", "endpoints/nothing/quarantine", "endpoint nothing does not exist"),
        ("POST", "endpoints/nothing/rollouts/r/abort", "endpoint of nothing does not exist"),
        ("GET", "models/nothing/aliases", "model 'nothing' does not exist"),
        ("GET", "models/nothing/aliases/champion", "alias champion of model 'nothing' does not exist"),
        ("GET", "models/nothing/aliases/champion/history", "alias champion of model 'nothing' does not exist"),
        ("GET", "models/nothing/policy/versions", "model 'nothing' does not exist"),
        ("GET", "models/nothing/policy/versions/1", "model 'nothing' does not exist"),
        ("GET", "audit/events?stream=model:nothing", "audit stream 'model:nothing' does not exist"),
        ("GET", "audit/verify?stream=model:nothing", "audit stream 'model:nothing' does not exist"),
        ("GET", "predictions/nothing.1.1.sa.k3qx7m2p.6740a1f2.1", "endpoint nothing does not exist"),
    ],
)
def test_what_does_not_exist_is_named(system: System, method: str, path: str, message: str) -> None:
    status, code, found = error_of(call(system, method, path))
    assert (status, code) == (404, "not_found")
    assert message in found


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("GET", "models/Not-A-Name", "", "is not a model name: use 1 to 63 lower-case letters"),
        ("GET", "models/digits/versions/0", "", "is not a version number"),
        ("GET", "models/digits/versions/one", "", "is not a version number"),
        ("GET", "models?continuation=garbage", "", "continuation"),
        ("PUT", "models/Not-A-Name/policy", "{}", "is not a model name"),
        ("PUT", "models/digits/policy", "{", "Invalid JSON"),
        ("PUT", "models/digits/policy", "[]", "the body"),
        ("PUT", "models/digits/policy", '{"validation": {"acuracy": 1}}', "validation.acuracy"),
        ("PUT", "models/digits/policy", '{"validation": {"accuracy": 2}}', "validation.accuracy"),
        ("PUT", "models/digits/policy", '{"rollout": {"stages": []}}', "a canary needs at least one stage"),
        ("PUT", "models/digits/policy", " " * 1_000_001, "at most 1000000 are taken"),
        ("PUT", "models/digits/policy", '{"rollout": {"tick_s": 691200}}', "rollout.tick_s"),
        ("PUT", "models/digits/policy", '{"rollout": {"tick_s": Infinity}}', "rollout.tick_s"),
        ("PUT", "models/digits/policy", '{"rollout": {"max_stage_s": 1e12}}', "rollout.max_stage_s"),
        ("PUT", "models/digits/policy?expected_version=x", "{}", "expected_version is 'x': use a whole number"),
        ("GET", "models/digits/policy/versions/0", "", "is not a version number"),
        ("PUT", "models/digits/aliases/v2", '{"version": 1}', "reads like a version's number"),
        ("PUT", "models/digits/aliases/blue", "{}", "version: Field required"),
        ("GET", "models/digits/versions?filter=accuracy", "", "the filter has 'accuracy' at character 1"),
        ("GET", "models/digits/aliases/champion?at=now", "", "at is 'now': use a time in ISO 8601"),
        ("POST", "models/digits/versions/1/approve", "{}", "by: Field required"),
        ("POST", "models/digits/versions/1/archive", "{}", "reason: Field required"),
        ("GET", "predictions/digits.1", "", "is not a prediction id: use what an answer's `prediction_id`"),
        ("POST", "endpoints/digits/rollouts", "{}", "version"),
        ("POST", "endpoints/digits/rollouts", '{"version": 0}', "version"),
        ("POST", "endpoints/digits/rollouts", '{"version": 1, "versoin": 2}', "versoin"),
        ("POST", "endpoints/digits/rollouts/r/promote", "{}", "by: Field required"),
        ("POST", "endpoints/digits/rollouts/r/set-weight", '{"weight_bp": -1}', "weight_bp"),
        ("POST", "endpoints/digits/rollback", '{"reason": "it fails"}', "by: Field required"),
        ("GET", "models/digits/drift?since=9999-12-31T23:59:59-14:00", "", "is no time"),
        (
            "POST",
            "silences",
            '{"model": "digits", "by": "ann", "reason": "r", "since": "9999-12-31T23:59:59Z", "for_s": 60}',
            "the silence would end after the year 9999",
        ),
        ("POST", "endpoints/digits/quarantine/0/clear", '{"by": "ann", "reason": "fit"}', "is not a version number"),
    ],
)
def test_bad_input_is_refused_and_named(system: System, method: str, path: str, body: str, message: str) -> None:
    status, code, found = error_of(call(system, method, path, content=body))
    assert (status, code) == (400, "invalid_input")
    assert message in found


def test_a_policy_is_kept_and_shown_whole(system: System) -> None:
    answer = call(system, "PUT", "models/flowers/policy", json={"validation": {"accuracy": 0.9}})
    assert answer.status_code == 200
    policy = call(system, "GET", "models/flowers").json()["policy"]
    assert policy["validation"]["accuracy"] == 0.9
    assert policy["validation"]["precision"] == 0.8
    assert [stage["weight_bp"] for stage in policy["rollout"]["stages"]] == [1_000, 5_000]


def test_drops_of_every_wrong_kind_are_recorded_with_their_reason_and_make_no_version(
    system: System, driver: Driver
) -> None:
    model = classifier()
    wrong = {
        "garbage.onnx": (b"no model at all", "not_onnx"),
        "empty.onnx": (b"", "not_onnx"),
        "cut.onnx": (model[: len(model) // 2], "not_onnx"),
        "cut.zip": (bundle(model)[:-100], "not_zip"),
        "key.zip": (bundle(model, manifest="task: classification\nvaildation: validation.npz\n"), "bad_manifest"),
        "missing.zip": (bundle(model, manifest="task: classification\nvalidation: other.npz\n"), "missing_file"),
        "notes.txt": (b"hello", "unknown_form"),
    }
    blobs = {driver.drop(name, data): code for name, (data, code) in wrong.items()}
    driver.wait_for(
        "all wrong drops to be refused",
        lambda: {blob for blob, drop in driver.drops().items() if drop["state"] == "refused"} >= set(blobs),
    )
    assert {blob: drop["code"] for blob, drop in driver.drops().items()} == blobs
    assert all(drop["reason"] for drop in driver.drops().values())
    folder = driver.drop("deep/model.onnx", model).removesuffix("model.onnx")
    driver.wait_for("a folder to wait", lambda: driver.drops().get(folder))
    assert (driver.drops()[folder]["state"], driver.drops()[folder]["waiting_for"]) == ("waiting", ["slipway.yaml"])
    assert driver.versions() == {}
    assert call(system, "GET", "audit/verify").json()["problems"] == []


def test_an_edited_audit_event_is_found_and_named(system: System) -> None:
    call(system, "PUT", "models/edited/policy", json={"validation": {"f1": 0.5}}).raise_for_status()
    assert call(system, "GET", "audit/verify?stream=model:edited").json()["verified"] is True
    with closing(sqlite3.connect(system.state.documents)) as database, database:
        changed = database.execute(
            "UPDATE documents SET body = replace(body, '\"f1\":0.5', '\"f1\":0.1') "
            "WHERE container = 'audit' AND partition_key = 'model:edited'"
        )
        assert changed.rowcount == 1
    found = call(system, "GET", "audit/verify?stream=model:edited").json()
    assert found["verified"] is False
    assert found["problems"] == [{"stream": "model:edited", "seq": 1, "problem": "its content does not give its hash"}]


def test_a_command_that_the_state_does_not_allow_is_a_conflict_that_changes_nothing(
    system: System, driver: Driver
) -> None:
    blob = driver.drop("good.zip", bundle(classifier()))
    number = driver.wait_for(
        "the version to be validated",
        lambda: next((v for v in driver.versions().values() if v["drop"] == blob and v["state"] == "validated"), None),
    )["version"]
    rollout = driver.wait_for("its rollout to start", driver.rollouts)[0]
    before = driver.get("endpoints/iris")
    status, code, message = error_of(call(system, "POST", "endpoints/iris/rollouts", json={"version": number}))
    assert (status, code) == (409, "conflict")
    assert "is under way" in message
    path = f"endpoints/iris/rollouts/{rollout['rollout_id']}/promote"
    status, code, message = error_of(call(system, "POST", path, json={"by": "ann"}))
    assert (status, code) == (409, "conflict")
    assert "loading does not hear promote" in message
    assert driver.get("endpoints/iris")["generation"] == before["generation"]

    driver.wait_for("its start to be heard", lambda: driver.get("models/iris/aliases/challenger"))
    version = f"models/iris/versions/{number}"
    shown = driver.get(version)
    assert (shown["aliases"], shown["stage"], shown["rollout_held"]) == (["challenger"], "None", "")
    status, code, message = error_of(call(system, "POST", f"{version}/archive", json={"reason": "old"}))
    assert (status, code) == (409, "conflict")
    assert "has the alias challenger" in message
    found = call(system, "GET", "models/iris/versions", params={"filter": "alias = 'challenger'"}).json()
    assert [item["version"] for item in found["items"]] == [number]
    blue = "models/iris/aliases/blue"
    assert call(system, "PUT", blue, json={"version": number}).json()["version"] == number
    assert error_of(call(system, "PUT", blue, json={"version": None, "expected_version": None}))[:2] == (
        409,
        "conflict",
    )
    since = driver.get(blue)["since"]
    assert call(system, "GET", blue, params={"at": since}).json()["version"] == number
    assert [move["version"] for move in driver.get(f"{blue}/history")["items"]] == [number]

    command = {"command_id": hashlib.sha256(b"once").hexdigest(), "reason": "not wanted"}
    path = f"endpoints/iris/rollouts/{rollout['rollout_id']}/abort"
    first = call(system, "POST", path, json=command).json()
    assert (first["state"], first["reason"]) == ("aborted", "not wanted")
    assert call(system, "POST", path, json=command).json() == first
    assert error_of(call(system, "POST", path, json={}))[:2] == (409, "conflict")
    driver.wait_for("its end to be heard", lambda: driver.get("models/iris/aliases/challenger")["version"] is None)

    scraped = call(system, "GET", "metrics")
    assert scraped.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    state = f'slipway_rollout_state{{endpoint="iris",version="{number}",state="aborted"}} 1'
    assert state in scraped.text.splitlines()
    assert call(system, "GET", "metrics", key=None).status_code == 401
    assert call(system, "GET", "rollbacks/report").json()["rollbacks"] == 0
    problems = call(system, "GET", "audit/verify").json()["problems"]
    assert [problem for problem in problems if problem["stream"] != "model:edited"] == []
