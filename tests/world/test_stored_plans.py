"""Plans after documents went back in time: what is passed over is told of, and a republish has pods take it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from shared.alerts.documents import Alert, AlertRule, AlertState
from shared.alerts.plans import PlanAlerts
from shared.core.errors import InvalidInputError, NotFoundError
from shared.core.ids import EndpointName
from shared.core.messages import CommandKind
from shared.registry.rollout_policy import Strategy
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.stored_plans import Republished, StoredPlans
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.store.ports import BlobContainer, Container, Stored
from shared.telemetry.window import Window, window_blob_name
from tests.world.fakes import FakeBlobs, FakeClock, Killed
from tests.world.strategies import change, give, published, rollout, run_until, start, state, world_with
from tests.world.twins import twin
from tests.world.world import ENDPOINT, MODEL, Pod, World

BLOB = (BlobContainer.ROUTES, plan_blob_name(MODEL))
type Held = Mapping[tuple[Container, str, str], Stored]
WHO = {"by": "ann", "reason": "the documents went back"}


class Keeping(Pod):
    """A pod that takes no plan that is not above its own, as the servers do."""

    def report(self, blobs: FakeBlobs, clock: FakeClock, endpoint: str) -> None:
        """See Pod."""
        blob = blobs.held.get(BLOB)
        newest = RoutePlan.model_validate_json(blob.data).generation if blob else 0
        self.is_stuck = self.plan is not None and newest <= self.plan.generation
        super().report(blobs, clock, endpoint)

    @property
    def serves(self) -> set[int]:
        """The versions that have traffic on it."""
        return {route.version for route in self.plan.routes if route.weight_bp} if self.plan else set()


def plans(world: World) -> StoredPlans:
    return StoredPlans(endpoints=world.rollouts._endpoints, blobs=world.blobs, clock=world.clock)


def republish(world: World) -> Republished:
    return plans(world).republish(ENDPOINT, **WHO)


def look(world: World) -> list[Alert]:
    """What the alert says after its timer ran."""
    PlanAlerts(plans=plans(world), alerts=world.alerts, clock=world.clock).settle()
    return [one for one in world.alerts.holding(AlertRule.PLAN_ASTRAY) if one.state is AlertState.FIRING]


def pod_of(world: World) -> Keeping:
    assert isinstance(world.pod, Keeping)
    return world.pod


def keeping(**policy: Any) -> World:
    world = world_with(versions=3, **policy)
    world.pod = Keeping(sequence=world.pod.sequence)
    world.run(seconds=1)
    return world


def restored(world: World, held: Held) -> None:
    world.documents.held = dict(held)


@pytest.fixture(scope="module")
def once_gone_back() -> World:
    world = keeping(strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    held = dict(world.documents.held)
    for version in (2, 3):
        start(world, version)
        run_until(world, RolloutState.PROMOTED)
    world.run(seconds=2)
    assert pod_of(world).serves == {3}
    restored(world, held)
    return world


@pytest.fixture
def back(once_gone_back: World) -> World:
    """A world whose documents are as of when version 1 served, after versions 2 and 3 were promoted."""
    return twin(once_gone_back)


def test_what_a_restored_endpoint_says_is_passed_over_and_told_of_until_it_is_published_again(back: World) -> None:
    world = back
    stored = world.blobs.held[BLOB].info.metadata["generation"]
    start(world, 2, command_id="again")
    world.run(seconds=5)
    assert pod_of(world).serves == {3}
    (alert,) = look(world)
    assert alert.subject == f"endpoint:{MODEL}"
    assert f"holds generation {stored}" in alert.sentence
    assert "slipway plan republish digits" in alert.sentence
    give(world, CommandKind.ABORT)

    done = republish(world)
    assert done.published
    assert done.generation == int(stored) + 1
    assert done.stored == done.reported == int(stored)
    world.run(seconds=2)
    assert published(world).generation == done.generation
    assert pod_of(world).serves == {1}
    assert look(world) == []


def test_it_is_on_record_once_and_a_second_one_changes_nothing(back: World) -> None:
    world = back
    first, second = republish(world), republish(world)
    assert (first.published, second.published) == (True, False)
    assert first.generation == second.generation == world.endpoint().generation
    found = [one.data for one in world.audit.events(f"endpoint:{MODEL}") if one.kind == "plan_republished"]
    (event,) = found
    assert event["by"] == "ann"
    assert event["generation"] == first.generation
    assert event["stored"] == first.stored
    assert [route["version"] for route in event["routes"]] == [1]


def test_nothing_is_done_where_the_plan_is_in_force_and_nothing_is_ever_astray_as_a_rollout_goes() -> None:
    world = keeping(strategy=Strategy.CANARY)
    before = world.endpoint()
    assert not republish(world).published
    assert world.endpoint() == before
    start(world)
    for _ in range(60):
        world.run(seconds=1)
        assert list(plans(world).astray(suspects=frozenset({MODEL}))) == []
        if state(world) is RolloutState.PROMOTED:
            return
    raise AssertionError(state(world))


def test_a_rollout_that_was_under_way_at_that_time_goes_on_to_its_end() -> None:
    world = keeping(strategy=Strategy.CANARY)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    held, taken_at = dict(world.documents.held), rollout(world).tick
    run_until(world, RolloutState.PROGRESSING, stage=1)
    give(world, CommandKind.ROLLBACK)
    world.run(seconds=5)
    restored(world, held)
    assert (rollout(world).tick, state(world)) == (taken_at, RolloutState.PROGRESSING)

    done = republish(world)
    assert done.published
    assert rollout(world).published_at == world.clock.now()
    run_until(world, RolloutState.PROMOTED, within_s=100)
    world.run(seconds=2)
    assert pod_of(world).serves == {2}
    assert look(world) == []


def test_a_rollback_that_was_unconfirmed_is_confirmed_by_pods_that_take_the_new_plan_alone() -> None:
    world = keeping(strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    start(world, 2)
    run_until(world, RolloutState.PROMOTED)
    give(world, CommandKind.ROLLBACK)
    held = dict(world.documents.held)
    assert world.endpoint().rollback is not None
    world.run(seconds=10)
    start(world, 3)
    run_until(world, RolloutState.PROMOTED)
    restored(world, held)
    done = republish(world)
    waits_for = world.endpoint().rollback
    assert waits_for is not None
    assert waits_for.generation == done.generation


def test_a_plan_that_is_gone_or_was_put_back_is_told_of_and_published_again() -> None:
    world = keeping(strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    early = world.blobs.held[BLOB]
    start(world, 2)
    run_until(world, RolloutState.PROMOTED)
    for held, said in ((None, "is gone"), (early, "an earlier state of it was put back")):
        if held:
            world.blobs.held[BLOB] = held
        else:
            del world.blobs.held[BLOB]
        (alert,) = look(world)
        assert said in alert.sentence
        assert republish(world).published
        assert [route.version for route in published(world).routes] == [2]
        assert look(world) == []


def test_what_pods_had_counts_where_storage_lost_its_plan(back: World) -> None:
    world = back
    del world.blobs.held[BLOB]
    had = pod_of(world).plan
    assert had is not None
    done = republish(world)
    assert (done.stored, done.reported, done.generation) == (None, had.generation, had.generation + 1)
    world.run(seconds=2)
    assert pod_of(world).serves == {1}


def test_a_window_that_no_pod_counts_lifts_no_plan_to_where_none_would_be_counted(back: World) -> None:
    world = back
    del world.blobs.held[BLOB]
    had = pod_of(world).plan
    assert had is not None
    now = world.clock.now()
    odd = Window(endpoint=MODEL, pod="odd", sequence=1, generation=10**12, started_at=now, ended_at=now, loaded=[])
    name = window_blob_name(MODEL, now, odd.pod, odd.sequence)
    world.blobs.put(BlobContainer.TELEMETRY, name, odd.model_dump_json().encode(), {})
    assert republish(world).generation == had.generation + 1


def test_an_endpoint_that_counted_on_to_the_stored_generation_is_told_of_still(back: World) -> None:
    world = back
    stored = int(world.blobs.held[BLOB].info.metadata["generation"])
    assert len(look(world)) == 1
    change(world, lambda endpoint: setattr(endpoint, "generation", stored))
    assert len(look(world)) == 1
    assert republish(world).published
    assert look(world) == []


def test_what_waits_for_its_delivery_is_not_astray() -> None:
    world = keeping(strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    plan = world.endpoint().plan()
    assert plan is not None
    body = {**world.documents.held[next(k for k in world.documents.held if k[2] == "endpoint")].body}
    endpoint = Endpoint.from_body(body)
    endpoint.generation += 1
    endpoint.publish(*BLOB, plan.model_dump(mode="json"), generation=endpoint.generation)
    key = next(key for key in world.documents.held if key[2] == "endpoint")
    world.documents.held[key] = replace(world.documents.held[key], body=endpoint.to_body())
    assert look(world) == []
    del world.blobs.held[BLOB]
    assert look(world) == []


def test_one_that_is_killed_anywhere_is_made_good_by_the_next(back: World) -> None:
    at, killed = 0, True
    while killed:
        at += 1
        world = twin(back)
        world.fuse.at = at
        try:
            republish(world)
            killed = False
        except Killed:
            republish(world)
        world.fuse.at = None
        world.run(seconds=2)
        assert pod_of(world).serves == {1}
        kinds = [one.kind for one in world.audit.events(f"endpoint:{MODEL}")]
        assert kinds.count("plan_republished") == 1
    assert at > 12


def test_it_wants_a_name_a_reason_and_a_plan() -> None:
    world = keeping()
    with pytest.raises(InvalidInputError, match="needs a name and a reason"):
        plans(world).republish(ENDPOINT, by=" ", reason="x")
    with pytest.raises(NotFoundError):
        plans(world).republish(EndpointName("nobody"), **WHO)
