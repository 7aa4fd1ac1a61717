"""One document that cannot be read stops no timer, and ends no alert."""

import json
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from shared.alerts.documents import AlertRule, AlertState
from shared.alerts.rules import BEHIND
from shared.alerts.silences import Matcher, Silence
from shared.budgets.sums import SUMS_ID
from shared.core.ids import VersionNumber
from shared.core.messages import MoveAlias, Queue
from shared.registration.documents import drop_id
from shared.registry.documents import Model, version_id
from shared.retention.documents import RunState
from shared.rollout.endpoint import ENDPOINT_ID, AliasCall, Endpoint
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobContainer, Container, Stored
from shared.watching.documents import DriftReport
from tests.world.test_report_retention import repository, retention
from tests.world.watched import Watched
from tests.world.world import GRACE, MODEL, World

OTHER = "aaa"
"""It is before MODEL in every order."""


def put(world: World, container: Container, body: object) -> None:
    """Store a document with a field that another release knows."""
    world.documents.create(container, json.loads(json.dumps(body)) | {"of_another_release": 1})


@pytest.fixture
def watched() -> Watched:
    """A world that serves MODEL, and in which the endpoint of OTHER cannot be read."""
    found = Watched()
    other = Endpoint(endpoint=OTHER, stable=found.target(1), generation=1, outbox_pending=True)
    put(found.world, Container.ENDPOINTS, other.to_body())
    return found


def test_the_endpoints_beside_one_that_cannot_be_read_are_watched_counted_and_swept(
    watched: Watched, caplog: pytest.LogCaptureFixture
) -> None:
    world = watched.world
    watched.hour(rows=200)
    assert [report.model for report in world.watching.reports.latest(MODEL)] == [MODEL]
    world.budgets.count()
    assert world.documents.get(Container.ENDPOINTS, MODEL, SUMS_ID) is not None
    assert world.rollouts.resend_overdue(timedelta(0)) == 0
    assert repository(world, Endpoint).deliver_outboxes() == 0
    assert f"{ENDPOINT_ID} of {OTHER} is left out, for it cannot be read" in caplog.text
    assert "of_another_release" in caplog.text


def test_the_models_beside_one_that_cannot_be_read_are_tidied(watched: Watched) -> None:
    world = watched.world
    put(world, Container.MODELS, Model(model=OTHER).to_body())
    assert retention(world).tidy() == 0


@pytest.mark.parametrize("rule", [AlertRule.POLICY, AlertRule.DECISION_LATE, AlertRule.ROLLOUT_HELD])
def test_what_is_said_of_one_that_cannot_be_read_stands(watched: Watched, rule: AlertRule) -> None:
    world = watched.world
    for model in (MODEL, OTHER):
        world.alerts.fire(rule, f"endpoint:{model}", "it is so", model=model)
    for settled in (world.traffic_alerts, world.control_alerts, world.rollout_alerts):
        settled.settle()
    assert [(alert.model, alert.state) for alert in world.alerts.holding(rule)] == [(OTHER, AlertState.FIRING)]


def test_an_alarm_whose_document_cannot_be_read_stands(watched: Watched) -> None:
    world = watched.world
    report = DriftReport(id="drift-1-stable", model=OTHER, endpoint=OTHER, version=1, role="stable", is_alarming=True)
    put(world, Container.REPORTS, report.to_body())
    for model in (MODEL, OTHER):
        world.alerts.fire(AlertRule.DATA_DRIFT, f"version:{model}:1:stable", "it drifts", model=model)
    world.watching.watch()
    assert [alert.model for alert in world.alerts.holding(AlertRule.DATA_DRIFT)] == [OTHER]


def test_that_one_that_cannot_be_read_is_not_counted_is_told(watched: Watched) -> None:
    world = watched.world
    world.control_alerts.settle()
    world.clock.pass_s((BEHIND + timedelta(seconds=1)).total_seconds())
    world.budgets.count()
    world.control_alerts.settle()
    behind = world.alerts.holding(AlertRule.COUNTING_BEHIND)
    assert [(alert.model, alert.state) for alert in behind if alert.model == OTHER] == [(OTHER, AlertState.FIRING)]


def kept(world: World, kind: str) -> tuple[Container, dict[str, Any]]:
    """A document of a kind that the world holds, and where."""
    return next((key[0], one.body) for key, one in world.documents.held.items() if one.body.get("kind") == kind)


def of_other(body: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The like of a document, of OTHER."""
    found: dict[str, Any] = json.loads(json.dumps(body).replace(f'"{MODEL}"', f'"{OTHER}"'))
    return found | changed


@pytest.mark.parametrize("kind", ["drop", "drop that is gone", "version", "endpoint", "alias"])
def test_what_is_undone_beside_one_that_cannot_be_read_is_asked_for_by_the_sweep(kind: str) -> None:
    """The other one comes first in each order, and a drop, a validation and a start of MODEL are undone."""
    world = World()
    world.event(world.drop("content 1", name="1.onnx"))
    world.run(seconds=30)
    container, version = kept(world, "version")
    put_readable = partial(world.documents.create, container)
    put_readable(version | {"id": version_id(2), "version": 2, "state": "registered"})
    put_readable(version | {"id": version_id(3), "version": 3, "rollout_pending": True})
    world.drop("content 4", name="4.onnx")
    if kind == "drop":
        blob = world.blobs.put(BlobContainer.INCOMING, f"{OTHER}/1.onnx", b"content", {})
        put(world, container, of_other(kept(world, kind)[1], id=drop_id(blob.name, blob.etag), state="received"))
    elif kind == "drop that is gone":
        put(world, container, of_other(kept(world, "drop")[1], id="drop-gone", state="received"))
    elif kind == "version":
        put(world, container, of_other(version, state="registered", rollout_pending=True))
    else:
        calls = [
            AliasCall(move=MoveAlias.model_validate(move), sent_at=world.clock.now()) for move in alias_moves(OTHER)
        ]
        endpoint = Endpoint(endpoint=OTHER, alias_calls=calls if kind == "alias" else [])
        if kind == "alias":
            world.documents.create(Container.ENDPOINTS, endpoint.to_body())
            put(world, container, of_other(kept(world, "alias")[1], id="alias-champion"))
        else:
            put(world, Container.ENDPOINTS, endpoint.to_body())
            put_readable(of_other(version, rollout_pending=True))
    world.clock.pass_s(GRACE.total_seconds() + 1)
    world.queues.messages.clear()
    world.sweep.sweep()
    assert {queue for _, queue, _ in world.queues.messages} >= {
        Queue.REGISTRATIONS,
        Queue.VALIDATIONS,
        Queue.ROLLOUT_COMMANDS,
    }


def alias_moves(model: str) -> list[dict[str, Any]]:
    """A call of an endpoint's for its champion."""
    return [
        {
            "model": model,
            "alias": "champion",
            "version": 1,
            "generation": 9,
            "rollout_id": "r",
            "at": "2026-11-21T08:00:00Z",
        }
    ]


@pytest.mark.parametrize("kind", ["endpoint", "alias", "version"])
def test_the_artifacts_beside_those_of_one_that_cannot_be_read_are_checked_and_the_timer_fails(kind: str) -> None:
    world = World()
    world.event(world.drop("content 1"))
    world.run(seconds=30)
    container, body = kept(world, kind)
    put(world, container, of_other(body))
    if kind == "version":
        world.documents.create(Container.ENDPOINTS, of_other(kept(world, "endpoint")[1]))
    name = artifact_blob_name(world.registry.version(MODEL, VersionNumber(1)).artifact_digest)
    world.blobs.put(BlobContainer.ARTIFACTS, name, b"other bytes", {})
    with pytest.raises(ExceptionGroup, match="not every version in use"):
        world.integrity.check_live()
    assert world.registry.version(MODEL, VersionNumber(1)).altered


def test_a_retention_run_beside_one_that_cannot_be_read_is_carried_on() -> None:
    world = World()
    world.event(world.drop("content 1"))
    world.run(seconds=30)
    run = world.retention.run(MODEL, world.retention.plan(MODEL).plan_id, by="ann")
    container, body = kept(world, "retention_run")
    put(world, container, of_other(body, state=RunState.ARCHIVING.value))
    key = (container, MODEL, run.id)
    held = world.documents.held[key]
    world.documents.held[key] = Stored(body=held.body | {"state": RunState.WAITING.value}, etag=held.etag)
    world.retention.resume()
    assert world.retention.one(MODEL, run.id).state is RunState.DONE


def test_alerts_letters_and_silences_beside_one_that_cannot_be_read_are_seen_to(watched: Watched) -> None:
    world, event = watched.world, b'{"stream": "model:digits", "seq": 1, "sink": "ops"}'
    world.alerts.fire(AlertRule.ROLLOUT_HELD, f"endpoint:{MODEL}", "it is so", model=MODEL)
    silence = Silence(
        id="silence-a",
        match=Matcher(model="*"),
        by="ann",
        reason="it is known",
        since=world.clock.now(),
        until=world.clock.now() + timedelta(hours=1),
    )
    world.dead_letters.keep(Queue.LIFECYCLE_EVENTS, event, message_id="1")
    put(world, Container.REPORTS, kept(world, "alert")[1] | {"id": "alert-0", "model": OTHER})
    put(world, Container.REPORTS, kept(world, "dead_letter")[1] | {"id": "letter-0"})
    put(world, Container.REPORTS, silence.to_body())
    world.clock.pass_s(3_600)
    world.rollout_alerts.settle()
    world.dead_letters.settle_alerts()
    assert list(world.alerts.holding(AlertRule.ROLLOUT_HELD)) == []
    assert [alert.evidence["waiting"] for alert in world.alerts.firing(AlertRule.DEAD_LETTERS)] == [1]
    assert (world.alerts.silences(), world.alerts.expire_silences()) == ([], 0)
    assert world.event_retries.tell_again() == 1
