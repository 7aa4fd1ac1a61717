"""A document that cannot be read: lists give the others and name it, and who asks for it by its id is told why."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from functions._services import Services
from shared.alerts.documents import AlertRule
from shared.alerts.silences import Matcher
from shared.core.ids import ModelName, VersionNumber
from shared.core.messages import Queue
from shared.registry.aliases import alias_name
from shared.registry.commands import SetAlias
from shared.registry.policy import Policy
from shared.rollout.documents import RolloutRecord
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.store.ports import PARTITION_KEY, Container
from tests.unit.cli.rollout_views import rollout_of
from tests.unit.functions.conftest import Call
from tests.unit.functions.test_registry_api import version_of

M = {"model": "m"}


@pytest.fixture(autouse=True)
def _one_of_each(app: Services) -> None:
    """One of each kind that is listed."""
    documents = app.documents
    app.registry.put_policy(ModelName("m"), Policy(), by="test")
    documents.create(Container.MODELS, version_of(1).to_body())
    for name in ("blue", "production"):
        command = SetAlias(
            model=ModelName("m"), alias=alias_name(name), version=VersionNumber(1), by="ann", reason="", command_id=name
        )
        app.aliases.set(command)
    documents.create(Container.ENDPOINTS, Endpoint(endpoint="m").to_body())
    record = RolloutRecord(id="rollout-1", endpoint="m", version=2, rollout=rollout_of(RolloutState.ABORTED))
    documents.create(Container.ENDPOINTS, record.model_dump(mode="json"))
    app.alerts.fire(AlertRule.ROLLOUT_HELD, "endpoint:m", "it is held", model="m")
    later = datetime.now(UTC) + timedelta(hours=1)
    app.alerts.silence(Matcher(model="m"), by="ann", reason="known", until=later, command_id="s")
    app.dead_letters.keep(Queue.VALIDATIONS, b"{}", message_id="1")


LISTS: dict[str, tuple[str, dict[str, str]]] = {
    "model": ("list_models", {}),
    "version": ("list_versions", M),
    "alias": ("list_aliases", M),
    "alias_move": ("list_alias_moves", M | {"alias": "blue"}),
    "endpoint": ("list_endpoints", {}),
    "rollout": ("list_rollouts", {"endpoint": "m"}),
    "alert": ("list_alerts", {}),
    "silence": ("list_silences", {}),
    "dead_letter": ("list_dead_letters", {}),
}


def spoiled(app: Services, kind: str) -> tuple[Mapping[str, Any], Container]:
    """Add the like of a document, under another id, with a field that another release knows."""
    for container in Container:
        page = app.documents.query(container, where={"kind": kind})
        if page.items:
            body = json.loads(json.dumps(page.items[0].body))
            identity = body["id"] if kind in {"model", "endpoint"} else f"{body['id']}-odd"
            partition = "odd" if kind in {"model", "endpoint"} else body[PARTITION_KEY[container]]
            odd = body | {"id": identity, PARTITION_KEY[container]: partition, "of_another_release": 1}
            app.documents.create(container, odd)
            return odd, container
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_gives_what_can_be_read_and_names_the_rest(call: Call, app: Services, kind: str) -> None:
    name, route = LISTS[kind]
    status, whole = call(name, **route)
    assert (status, "unreadable" in whole) == (200, False)
    assert whole["items"]
    odd, container = spoiled(app, kind)
    status, page = call(name, **route)
    assert (status, page["items"]) == (200, whole["items"])
    document = f"{odd['id']} of {odd[PARTITION_KEY[container]]}"
    problem = "of_another_release: Extra inputs are not permitted"
    assert page["unreadable"] == [{"document": document, "problem": problem}]


BY_ID: dict[str, tuple[str, str]] = {
    "model": ("get_model", "model"),
    "endpoint": ("get_endpoint", "endpoint"),
    "rollout": ("get_rollout", "rollout_id"),
    "alert": ("get_alert", "alert"),
    "dead_letter": ("get_dead_letter", "letter"),
    "silence": ("expire_silence", "silence"),
}


@pytest.mark.parametrize("kind", BY_ID)
def test_who_asks_for_it_is_told_what_is_wrong(call: Call, app: Services, kind: str) -> None:
    odd, container = spoiled(app, kind)
    name, part = BY_ID[kind]
    route = {part: "odd" if kind in {"model", "endpoint"} else odd["id"]}
    route |= {"endpoint": "m"} if kind == "rollout" else {}
    status, answer = call(name, {"by": "ann"} if kind == "silence" else None, **route)
    document = f"{odd['id']} of {odd[PARTITION_KEY[container]]}"
    assert (status, answer["error"]["code"]) == (500, "unreadable")
    said = f"the stored document {document} cannot be read (of_another_release: Extra inputs are not permitted)"
    assert answer["error"]["message"].startswith(said)


def test_a_report_of_rollbacks_and_the_metrics_do_without_it(call: Call, app: Services) -> None:
    spoiled(app, "endpoint")
    app.documents.create(Container.ENDPOINTS, {"id": "rollback-1", "endpoint": "m", "kind": "rollback", "odd": 1})
    status, report = call("report_rollbacks")
    assert (status, report["rollbacks"]) == (200, 0)
    assert sorted(one["document"] for one in report["unreadable"]) == ["endpoint of odd", "rollback-1 of m"]
    assert call("metrics")[0] == 200
    assert [one["document"] for one in call("list_rollbacks", endpoint="m")[1]["unreadable"]] == ["rollback-1 of m"]


def test_an_audit_says_whose_subject_cannot_be_read(call: Call, app: Services) -> None:
    odd, _ = spoiled(app, "alert")
    status, found = call("verify_audit")
    assert (status, found["verified"]) == (200, False)
    assert [one["problem"] for one in found["problems"]] == [
        f"{odd['id']} of - cannot be read: of_another_release: Extra inputs are not permitted"
    ]


def test_one_that_cannot_be_read_says_nothing_of_anothers_audit(app: Services) -> None:
    (silence,) = app.alerts.silences()
    odd, container = spoiled(app, "silence")
    assert odd[PARTITION_KEY[container]] == silence.partition
    assert app.audit.verify(silence.stream).verified

    body = app.documents.query(container, where={"id": silence.id}).items[0]
    app.documents.replace(container, dict(body.body) | {"of_another_release": 1}, etag=body.etag)
    found = app.audit.verify(silence.stream)
    assert not found.verified
    assert "its subject does not exist, or cannot be read" in [problem.problem for problem in found.problems]


def test_a_stream_without_events_whose_subject_cannot_be_read_is_not_said_to_be_none(app: Services) -> None:
    odd, _ = spoiled(app, "alert")
    stream = f"alert:-:{odd['id'].removeprefix('alert-')}"
    found = app.audit.verify(stream)
    assert (found.verified, found.streams) == (False, 1)
    assert [(one.stream, one.problem.partition(": ")[0]) for one in found.problems] == [
        (stream, "its subject does not exist, or cannot be read"),
        ("-", f"{odd['id']} of - cannot be read"),
    ]
