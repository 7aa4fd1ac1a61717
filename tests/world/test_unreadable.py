"""One document that cannot be read stops no timer, and ends no alert."""

import json
from datetime import timedelta

import pytest

from shared.alerts.documents import AlertRule, AlertState
from shared.alerts.rules import BEHIND
from shared.budgets.sums import SUMS_ID
from shared.registry.documents import Model
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.store.ports import Container
from shared.watching.documents import DriftReport
from tests.world.test_report_retention import repository, retention
from tests.world.watched import Watched
from tests.world.world import MODEL, World

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
