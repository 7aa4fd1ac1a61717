"""The registry's calls in this process: aliases, policies by number, filters, approvals, archiving."""

from datetime import UTC, datetime
from typing import Any

import pytest

from functions._services import Services
from shared.core.ids import ModelName
from shared.core.verdict import Outcome
from shared.registry.documents import ModelVersion, ValidationSummary, VersionState, version_id
from shared.registry.manifest import Manifest
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy
from shared.registry.service import MAX_POLICY_BYTES
from shared.store.ports import Container
from tests.unit.functions.conftest import Call

M = {"model": "m"}


@pytest.fixture(autouse=True)
def _two_versions(app: Services) -> None:
    """Model m with a policy, a version that is validated and one that is rejected."""
    app.registry.put_policy(ModelName("m"), Policy(rollout=RolloutPolicy(approvals=2)), by="test")
    for version in (version_of(1), version_of(2, VersionState.REJECTED, accuracy=0.5)):
        app.documents.create(Container.MODELS, version.to_body())


def version_of(number: int, state: VersionState = VersionState.VALIDATED, *, accuracy: float = 0.95) -> ModelVersion:
    """A version of model m."""
    summary = ValidationSummary(
        outcome=Outcome.PASS, verdicts=[], metrics={"accuracy": accuracy}, report_blob="r", policy_version=1
    )
    return ModelVersion(
        id=version_id(number),
        model="m",
        version=number,
        state=state,
        drop="m/x.onnx",
        digest="d" * 64,
        artifact_digest="a" * 64,
        artifact_size_bytes=1,
        manifest=Manifest.model_validate({"task": "classification", "author": "Ann", "tags": {"team": "fraud"}}),
        registered_at=datetime(2026, 1, 2, tzinfo=UTC),
        attempted_at=datetime(2026, 1, 2, tzinfo=UTC),
        validation=summary,
        rollout_pending=state is VersionState.VALIDATED,
    )


def refused(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["message"]


def test_an_alias_is_set_read_listed_and_told_in_its_history(call: Call) -> None:
    status, blue = call("set_alias", {"version": 1, "reason": "tried"}, alias="blue", **M)
    assert status == 200
    assert (blue["alias"], blue["version"], blue["sequence"], blue["reason"]) == ("blue", 1, 1, "tried")
    assert call("get_alias", alias="blue", **M) == (200, blue)
    call("set_alias", {"version": 2, "expected_version": 1, "command_id": "c"}, alias="blue", **M)
    again = call("set_alias", {"version": 2, "expected_version": 1, "command_id": "c"}, alias="blue", **M)
    assert again[1]["version"] == 2
    moves = call("list_alias_moves", alias="blue", **M)[1]["items"]
    assert [(move["sequence"], move["version"], move["by"]) for move in moves] == [(2, 2, "api"), (1, 1, "api")]
    assert [alias["version"] for alias in call("list_aliases", **M)[1]["items"]] == [2]
    then = call("get_alias", query={"at": blue["since"]}, alias="blue", **M)[1]
    assert (then["version"], then["move"]["sequence"]) == (1, 1)
    before = call("get_alias", query={"at": "2026-01-01T00:00:00Z"}, alias="blue", **M)[1]
    assert (before["version"], before["move"]) == (None, None)
    assert call("set_alias", {"version": None}, alias="blue", **M)[1]["version"] is None


def test_versions_show_their_aliases_and_the_stage_and_the_model_its_production_version(call: Call) -> None:
    assert call("get_model", **M)[1]["production_version"] is None
    call("set_alias", {"version": 1}, alias="production", **M)
    call("set_alias", {"version": 2}, alias="staging", **M)
    shown = call("list_versions", **M)[1]["items"]
    assert [(found["aliases"], found["stage"]) for found in shown] == [
        (["production"], "Production"),
        (["staging"], "Staging"),
    ]
    assert call("get_version", version="1", **M)[1]["aliases"] == ["production"]
    assert call("get_model", **M)[1]["production_version"] == 1
    assert call("list_models")[1]["items"][0]["production_version"] == 1
    call("set_alias", {"version": None}, alias="staging", **M)
    assert call("archive_version", {"reason": "bad"}, version="2", **M)[1]["stage"] == "Archived"


@pytest.mark.parametrize(
    ("body", "alias", "said"),
    [
        ({}, "blue", (400, "version: Field required")),
        ({"version": 0}, "blue", (400, "version: Input should be greater than or equal to 1")),
        (
            {"version": 1, "expected": 1},
            "blue",
            (400, "expected: there is no such key; the keys are command_id, version, expected_"),
        ),
        ({"version": 1}, "v1", (400, "reads like a version's number")),
        ({"version": 1}, "Blue", (400, "is not an alias")),
        ({"version": 3}, "blue", (404, "version 3 of model 'm' does not exist")),
        ({"version": 2}, "champion", (409, "version 2 of m is rejected: champion names a validated version")),
        ({"version": 1, "expected_version": 1}, "blue", (409, "names no version, and version 1 was expected")),
        ({"version": None}, "blue", (404, "alias blue of model 'm' does not exist")),
        ({"version": 1, "command_id": "automatic:m:1"}, "blue", (400, "belong to the rollouts that policy starts")),
    ],
)
def test_a_move_that_cannot_be_made_is_refused_and_makes_no_alias(
    call: Call, body: dict[str, Any], alias: str, said: tuple[int, str]
) -> None:
    status, message = refused(call("set_alias", body, alias=alias, **M))
    assert status == said[0]
    assert said[1] in message
    assert call("list_aliases", **M)[1]["items"] == []


@pytest.mark.parametrize(
    ("at", "said"),
    [
        ("yesterday", "at is 'yesterday': use a time in ISO 8601"),
        ("2026-01-01T00:00:00", "names no zone: end it with Z or an offset"),
        ("2026-01-01T00:00:00 01:00", "a + is written %2B"),
        ("9000-01-01T00:00:00Z", "is still to come: ask for a time that is past"),
    ],
)
def test_a_time_that_cannot_be_answered_for_is_refused(call: Call, at: str, said: str) -> None:
    call("set_alias", {"version": 1}, alias="blue", **M)
    status, message = refused(call("get_alias", query={"at": at}, alias="blue", **M))
    assert status == 400
    assert said in message


def test_what_is_asked_of_a_model_that_does_not_exist_is_not_found(call: Call) -> None:
    for name in ("list_aliases", "list_policies"):
        assert refused(call(name, model="n"))[0] == 404
    for name in ("get_alias", "list_alias_moves"):
        assert refused(call(name, model="n", alias="blue"))[0] == 404
    assert refused(call("set_alias", {"version": 1}, model="n", alias="blue"))[0] == 404


def test_policies_are_numbered_listed_and_set_over_the_expected_one_alone(call: Call) -> None:
    body, named = {"validation": {"accuracy": 0.7}}, {"by": "cid", "reason": "fewer approvals"}
    status, message = refused(call("put_policy", body, query={"expected_version": "7"}, **M))
    assert (status, message.partition(":")[0]) == (409, "the policy of m has the number 1, and 7 was expected")
    assert call("put_policy", body, query={"expected_version": "1", **named}, **M)[1]["policy_version"] == 2
    assert refused(call("put_policy", body, query={"expected_version": "-1"}, **M)) == (
        400,
        "expected_version is '-1': use a whole number from 0",
    )
    listed = call("list_policies", **M)[1]["items"]
    assert [(found["policy_version"], found["by"]) for found in listed] == [(1, "test"), (2, "cid")]
    assert call("get_policy", policy_version="1", **M) == (200, listed[0])
    assert refused(call("get_policy", policy_version="3", **M))[0] == 404


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"validation": {"acuracy": 1}}, "validation.acuracy: there is no such key; the keys are accuracy, precision,"),
        ({"rolout": {}}, "rolout: there is no such key; the keys are validation, signing, retention, rollout"),
        ({"rollout": {"stages": [{"weight": 1}]}}, "rollout.stages.0.weight: there is no such key"),
        ({"rollout": {"approvals": -1}}, "rollout.approvals: Input should be greater than or equal to 0"),
        ({"rollout": {"stages": []}}, "rollout: a canary needs at least one stage"),
        ({"signing": {"required": True}}, "signing: signatures are required and no key is trusted: name one in"),
        ({"validation": {"accuracy": 2, "recall": 3}}, "equal to 1; validation.recall: Input should be less than"),
        ({"validation": {str(number): 1 for number in range(5)}}, "(and 2 more)"),
    ],
)
def test_what_is_wrong_with_a_policy_is_named_and_nothing_is_set(call: Call, body: dict[str, Any], said: str) -> None:
    status, message = refused(call("put_policy", body, **M))
    assert status == 400
    assert said in message
    assert call("get_model", **M)[1]["policy_version"] == 1


def large_policy(stages: int, weight_bp: int = 1_000) -> dict[str, Any]:
    """A policy of some 40 KB a stage."""
    query = {"provider": "prometheus", "query": "x" * 4_000, "at_most": 1}
    gates = {"queries": [query | {"name": f"q{number}"} for number in range(10)]}
    found = [{"weight_bp": weight_bp + number, "duration_s": 60, "gates": gates} for number in range(stages)]
    return {"rollout": {"stages": found}}


@pytest.mark.parametrize("model", ["m", "new"])
@pytest.mark.parametrize("stages", [8, 18, 24])
def test_a_policy_that_is_larger_than_documents_bear_is_refused_and_nothing_is_done(
    call: Call, app: Services, model: str, stages: int
) -> None:
    before = app.audit.verify().events
    named = {"by": "ann", "reason": "more queries"}
    status, message = refused(call("put_policy", large_policy(stages), query=named, model=model))
    assert (status, message.partition(" bytes ")[0][:-6]) == (400, f"the policy of {model} has ")
    assert f"at most {MAX_POLICY_BYTES} are taken" in message
    assert app.audit.verify().events == before
    assert call("get_model", model="new")[0] == 404
    assert call("get_model", **M)[1]["policy_version"] == 1


def test_a_policy_of_the_largest_size_is_set_and_set_again(call: Call) -> None:
    named = {"by": "ann", "reason": "more queries"}
    for number in (2, 3, 4):
        status, shown = call("put_policy", large_policy(7, weight_bp=1_000 * number), query=named, **M)
        assert status == 200, shown
        assert shown["policy_version"] == number


def test_versions_are_found_by_a_filter(call: Call) -> None:
    def found(text: str) -> list[int]:
        return [version["version"] for version in call("list_versions", query={"filter": text}, **M)[1]["items"]]

    call("set_alias", {"version": 2}, alias="blue", **M)
    assert found("metrics.accuracy >= 0.9 and tags.team = 'fraud'") == [1]
    assert found("metrics.accuracy < 0.9") == [2]
    assert found("alias = 'blue' and state = 'rejected'") == [2]
    assert found("state = 'archived'") == []
    status, message = refused(call("list_versions", query={"filter": "accuracy > 1"}, **M))
    assert status == 400
    assert "'accuracy' at character 1" in message


def test_approvals_are_kept_and_what_holds_the_rollout_is_told(call: Call) -> None:
    assert "has 0 approvals of the 2" in call("get_version", version="1", **M)[1]["rollout_held"]
    status, shown = call("approve_version", {"by": " Bob ", "reason": "fine", "command_id": "c"}, version="1", **M)
    assert status == 200
    assert [(found["by"], found["reason"]) for found in shown["approvals"]] == [("Bob", "fine")]
    assert "1 more may come from anybody but its author Ann, Bob" in shown["rollout_held"]
    assert call("approve_version", {"by": "Bob", "command_id": "c"}, version="1", **M)[1] == shown
    for by, said in (("ANN", "is the author"), ("bob", "has approved version 1 of m already")):
        status, message = refused(call("approve_version", {"by": by}, version="1", **M))
        assert status == 409
        assert said in message
    for body in ({}, {"by": "  "}, {"by": "x" * 501}):
        assert refused(call("approve_version", body, version="1", **M))[0] == 400


def test_a_start_without_approvals_is_a_conflict_that_says_who_may_give_them(call: Call) -> None:
    status, message = refused(call("start_rollout", {"version": 1}, endpoint="m"))
    assert status == 409
    assert "2 more may come from anybody but its author Ann" in message
    assert refused(call("start_rollout", {"version": 1, "force": True}, endpoint="m")) == (
        400,
        "a start by force needs a reason, which goes into the audit: say why",
    )


def test_a_policy_is_set_by_somebody_for_a_reason_where_it_loosens_something(call: Call) -> None:
    strict = {"rollout": {"switch_approval": True}}
    assert call("put_policy", strict, query={"by": " Ann ", "reason": "two people"}, model="q")[0] == 200
    status, message = refused(call("put_policy", {}, model="q"))
    assert (status, "loosens the approval of the switch, at once: say who" in message) == (400, True)
    assert refused(call("put_policy", {}, query={"by": "x" * 501, "reason": "y"}, model="q"))[0] == 400
    assert call("put_policy", {}, query={"by": "Bob", "reason": "one will do"}, model="q")[0] == 200
    found = call("list_policies", model="q")[1]["items"]
    assert [(one["by"], one["reason"]) for one in found] == [("Ann", "two people"), ("Bob", "one will do")]


def test_an_alias_keeps_a_version_from_being_archived(call: Call) -> None:
    call("set_alias", {"version": 1}, alias="blue", **M)
    status, message = refused(call("archive_version", {"reason": "old"}, version="1", **M))
    assert (status, message) == (409, "version 1 of m has the alias blue: move that first to archive it")
    call("set_alias", {"version": None}, alias="blue", **M)
    assert refused(call("archive_version", {"reason": " "}, version="1", **M))[0] == 400
    status, shown = call("archive_version", {"reason": "old"}, version="1", **M)
    assert (status, shown["state"], shown["rollout_pending"]) == (200, "archived", False)
    assert shown["archived_at"] is not None
    assert call("archive_version", {"reason": "old"}, version="1", **M) == (200, shown)


@pytest.mark.parametrize("function", ["archive_version", "revalidate_version"])
def test_a_command_s_id_is_refused_where_it_would_be_ignored(call: Call, function: str) -> None:
    status, message = refused(call(function, {"reason": "old", "command_id": "one"}, version="1", **M))
    assert (status, message) == (400, "command_id: there is no such key; the keys are reason")
