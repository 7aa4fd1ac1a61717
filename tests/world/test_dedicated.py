"""Versions in pods of their own: where candidates go, who is waited for, and that the Gateway, which hears of each plan
later than they, never sends a request to pods that have nothing to answer with.
"""

import contextlib
import json
from itertools import takewhile
from typing import Any

import pytest

from shared.alerts.documents import AlertRule
from shared.core.errors import ConflictError
from shared.core.messages import CommandKind
from shared.core.slots import Slot
from shared.registry.rollout_policy import Placement, Stage, Strategy, WhenBusy
from shared.rollout.gateway import gateway_routes, manifest_blob_name
from shared.rollout.machine import RolloutState
from shared.store.outbox import generation_of
from shared.store.ports import BlobContainer
from tests.world.copies import copy_of
from tests.world.fakes import Fuse, Killed
from tests.world.strategies import (
    alter,
    change,
    give,
    policy,
    published,
    rollout,
    run_until,
    start,
    state,
    weights_of,
    world_with,
)
from tests.world.test_replay import check_same
from tests.world.world import ENDPOINT, MODEL, Pod, World

LAG_S = 4
STAGES = (Stage(weight_bp=1_000, duration_s=8), Stage(weight_bp=5_000, duration_s=8))
SHARED, BLUE, GREEN = None, Slot.BLUE, Slot.GREEN


def dedicated(
    *, slots: tuple[Slot, ...] = (BLUE, GREEN), lag_s: int = LAG_S, versions: int = 4, **fields: Any
) -> World:
    """A world whose version 1 serves in the shared pods, with pods of these slots beside them."""
    told: dict[str, Any] = {"placement": Placement.DEDICATED, "stages": STAGES, "watch_s": 8} | fields
    world = world_with(versions=versions, **told)
    world.others += [Pod(name=f"{slot}-1", slot=slot) for slot in slots]
    world.gateway.lag_s = lag_s
    return world


def placed(world: World, version: int) -> None:
    """Have a version be stable in pods of its own, by the shortest way."""
    before = world.registry.model(MODEL).policy
    world.put_policy(policy(strategy=Strategy.ALL_AT_ONCE, placement=Placement.DEDICATED, watch_s=1))
    promoted(world, version)
    world.put_policy(before)


def promoted(world: World, version: int) -> None:
    """Roll a version out until it is stable, and the Gateway has heard of it."""
    start(world, version)
    world.run(seconds=1)
    run_until(world, RolloutState.PROMOTED, within_s=90)
    heard(world)
    assert world.stable == version


def heard(world: World) -> None:
    """Let it be long enough for the Gateway to have heard of the plan."""
    world.run(seconds=LAG_S + 2)
    world.clock.pass_s(120)
    world.run(seconds=3)


def manifest(world: World) -> dict[str, Any]:
    """The Gateway's routes that are published, which are those of the plan that is."""
    blob = world.blobs.held[BlobContainer.MANIFESTS, manifest_blob_name(MODEL)]
    assert generation_of(blob.info) == published(world).generation
    made: dict[str, Any] = json.loads(blob.data)
    assert made == gateway_routes(published(world))
    return made


def slot_of_stable(world: World) -> Slot | None:
    stable = published(world).stable
    assert stable is not None
    return stable.slot


def test_versions_go_from_the_shared_pods_to_blue_to_green_and_back_and_no_request_finds_none_to_answer_it() -> None:
    world = dedicated()
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    plan = published(world)
    assert [(route.version, route.slot) for route in plan.routes] == [(1, SHARED), (2, BLUE)]
    assert weights_of(world) == [1_000, 5_000, 10_000, 0]
    heard(world)
    assert (world.stable, slot_of_stable(world)) == (2, BLUE)
    promoted(world, 3)
    assert slot_of_stable(world) is GREEN
    world.put_policy(policy(stages=STAGES))
    promoted(world, 4)
    assert slot_of_stable(world) is SHARED
    assert world.gateway.shares(world.clock.now()) == {SHARED: 10_000, BLUE: 0, GREEN: 0}
    manifest(world)
    assert world.gateway.failed == []
    assert world.audit.verify().problems == []


def test_each_version_s_requests_are_what_the_gateway_sends_to_its_pods() -> None:
    world = dedicated(lag_s=0)
    start(world)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=4)
    counts = rollout(world).progress
    assert counts.of(1).requests == counts.of(2).requests > 0
    # The Gateway hears of a share later than pods do: what was sent says nothing of whether the shares are kept.
    assert counts.exposures.expected == 0


def test_nothing_is_published_for_the_gateway_before_a_version_has_a_slot_and_every_plan_from_then_on() -> None:
    world = dedicated(placement=Placement.SHARED, lag_s=0)
    promoted(world, 2)
    assert not [name for container, name in world.blobs.held if container is BlobContainer.MANIFESTS]
    world.put_policy(policy(placement=Placement.DEDICATED))
    start(world, 3)
    world.run(seconds=2)
    assert json.dumps(manifest(world)).count("slipway-serving-blue-digits") > 0
    give(world, CommandKind.ABORT)
    world.run(seconds=10)
    assert "slipway-serving-blue-digits" not in json.dumps(manifest(world))


@pytest.mark.parametrize("stage", [1, None])
def test_a_candidate_that_fails_is_taken_back_and_stable_stays_where_it_is(stage: int | None) -> None:
    world = dedicated()
    placed(world, 2)
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING if stage is not None else RolloutState.WATCHING, stage=stage)
    for pod in world.others:
        pod.errors[3] = 0.5
    run_until(world, RolloutState.ROLLED_BACK, within_s=LAG_S + 10)
    assert (world.stable, slot_of_stable(world)) == (2, BLUE)
    heard(world)
    (found,) = world.rollouts.rollbacks(ENDPOINT)
    # The pods heard at once; that the candidate got nothing any more was seen when the Gateway had heard too.
    assert found.zero_traffic_at is not None
    assert (found.zero_traffic_at - found.detected_at).total_seconds() >= LAG_S - 2
    assert world.gateway.failed == []
    check_same(world)


def test_blue_green_is_tried_by_those_who_name_it_then_switched_and_switched_back_at_once() -> None:
    world = dedicated(strategy=Strategy.BLUE_GREEN, preview_s=5)
    start(world)
    run_until(world, RolloutState.WATCHING)
    assert [(r.version, r.slot, r.weight_bp) for r in published(world).routes] == [(1, SHARED, 0), (2, BLUE, 10_000)]
    give(world, CommandKind.ROLLBACK)
    assert [(r.version, r.slot, r.weight_bp) for r in published(world).routes] == [(1, SHARED, 10_000)]
    heard(world)
    assert world.gateway.failed == []


def test_pods_of_a_slot_without_a_version_are_neither_waited_for_nor_counted() -> None:
    world = dedicated(lag_s=0)
    for pod in world.others:
        pod.is_stuck = pod.slot is GREEN
        pod.memory_share = 0.99 if pod.slot is GREEN else 0.5
    placed(world, 2)
    assert slot_of_stable(world) is BLUE
    # Nor once they fell silent.
    for pod in world.others:
        pod.is_silent = pod.slot is GREEN
    world.put_policy(policy(stages=STAGES))
    promoted(world, 3)


def test_a_pod_of_stable_s_slot_that_has_not_heard_of_the_plan_is_waited_for() -> None:
    world = dedicated(lag_s=0)
    world.pod.is_stuck = True
    start(world)
    world.run(seconds=20)
    assert state(world) is RolloutState.LOADING
    world.pod.is_stuck = False
    run_until(world, RolloutState.PROGRESSING, within_s=5)


def test_a_slot_without_pods_ends_the_rollout_and_says_what_to_deploy() -> None:
    world = dedicated(slots=(GREEN,), load_timeout_s=20)
    start(world)
    world.run(seconds=40)
    assert state(world) is RolloutState.ROLLED_BACK
    said = rollout(world).reason
    assert "no pod of slot blue reports, in which version 2 is to be: deploy the endpoint's pods of that slot" in said
    assert (world.stable, slot_of_stable(world)) == (1, SHARED)


def test_a_rollback_of_stable_is_in_stable_s_own_pods_and_moves_nothing_at_the_gateway() -> None:
    world = dedicated()
    placed(world, 2)
    placed(world, 3)
    shares = world.gateway.shares(world.clock.now())
    give(world, CommandKind.ROLLBACK, "back")
    assert (world.stable, slot_of_stable(world)) == (2, GREEN)
    heard(world)
    assert world.gateway.shares(world.clock.now()) == shares
    assert world.gateway.failed == []
    # What is rolled out next goes to the pods that it is not in.
    start(world, 4)
    world.run(seconds=2)
    assert published(world).for_slot(BLUE).routes


def test_a_version_that_is_better_than_a_stable_one_that_was_altered_takes_its_place() -> None:
    world = dedicated()
    placed(world, 2)
    placed(world, 3)
    start(world, 4)
    run_until(world, RolloutState.PROGRESSING)
    alter(world, 3)
    give(world, CommandKind.ROLLBACK, "back")
    assert (world.stable, slot_of_stable(world)) == (2, GREEN)
    heard(world)
    assert world.gateway.failed == []


def test_the_next_candidate_waits_until_the_gateway_has_heard_that_its_pods_have_none() -> None:
    world = dedicated()
    placed(world, 2)
    start(world, 3)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    world.run(seconds=LAG_S + 1)
    assert world.gateway.shares(world.clock.now())[GREEN] == 5_000
    world.gateway.is_deaf = True
    give(world, CommandKind.ABORT)
    assert start(world, 4) is None
    assert world.endpoint().queued_version == 4
    # However often it is asked for again, and although the Gateway is long in hearing.
    for _ in range(16):
        world.clock.pass_s(20)
        world.run(seconds=1)
        world.sweep.sweep()
        world.run(seconds=1)
        assert rollout(world).candidate.version == 3
    assert world.gateway.shares(world.clock.now())[GREEN] == 5_000
    world.rollout_alerts.settle()
    (alert,) = world.alerts.firing(AlertRule.PLAN_UNAPPLIED)
    assert alert.sentence.startswith("the Gateway still sends requests of digits to pod green-1")
    world.gateway.is_deaf = False
    heard(world)
    world.sweep.sweep()
    world.run(seconds=2)
    assert (rollout(world).candidate.version, world.endpoint().queued_version) == (4, None)
    assert world.gateway.shares(world.clock.now())[GREEN] == 0


def test_what_supersedes_a_candidate_waits_too() -> None:
    world = dedicated(when_busy=WhenBusy.SUPERSEDE)
    start(world, 2)
    run_until(world, RolloutState.PROGRESSING, stage=1)
    assert start(world, 3) is None
    assert (state(world), world.endpoint().queued_version) == (RolloutState.ABORTED, 3)
    heard(world)
    world.sweep.sweep()
    world.run(seconds=2)
    assert (rollout(world).candidate.version, published(world).for_slot(BLUE).routes[0].version) == (3, 3)
    assert world.gateway.shares(world.clock.now())[BLUE] == 0


def test_what_needs_both_in_one_process_is_refused_where_stable_is_in_pods_of_its_own() -> None:
    world = dedicated(lag_s=0)
    placed(world, 2)
    for strategy in (Strategy.ROLLING, Strategy.SHADOW, Strategy.SPLIT):
        world.put_policy(policy(strategy=strategy))
        with pytest.raises(
            ConflictError, match=r"version 2 of digits is in pods of its own \(blue\).*placement shared"
        ):
            start(world, 3)
    assert rollout(world).candidate.version == 2


def test_rolling_takes_no_pod_of_a_slot() -> None:
    world = dedicated(strategy=Strategy.ROLLING, placement=Placement.SHARED)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    assert published(world).pods is not None
    assert set(published(world).pods or ()) <= {"pod-1"}


def test_routes_that_are_delivered_late_or_again_never_go_back() -> None:
    world = dedicated(lag_s=0)
    start(world)
    run_until(world, RolloutState.PROGRESSING)
    late = manifest(world)
    generation = published(world).generation
    run_until(world, RolloutState.PROGRESSING, stage=1)
    newer = manifest(world)
    name = manifest_blob_name(MODEL)
    change(world, lambda endpoint: endpoint.publish(BlobContainer.MANIFESTS, name, late, generation=generation))
    change(world, lambda endpoint: endpoint.publish(BlobContainer.MANIFESTS, name, late, generation=generation))
    assert manifest(world) == newer != late


def _rolled_out(prepared: World, at: int | None) -> tuple[World, int]:
    """A rollout to the end in which a process is killed at a call of a port; how many calls there were."""
    world = copy_of(prepared)
    world.pod, world.others = Pod(), [Pod(name="blue-1", slot=BLUE)]
    world.gateway.lag_s = 2
    fuse = Fuse(at=at)
    world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
    for _ in range(2):
        with contextlib.suppress(Killed):
            start(world, command_id="start-2")
    world.run(seconds=6)
    # A minute after the switch it is known that the Gateway has heard.
    world.clock.pass_s(60)
    world.run(seconds=4)
    calls = fuse.calls
    # What was on its way when the process died waits for the sweep.
    world.clock.pass_s(120)
    world.sweep.sweep()
    world.run(seconds=1 if state(world) is RolloutState.PROMOTED else 8)
    if state(world) is RolloutState.WATCHING:
        world.clock.pass_s(60)
        world.run(seconds=4)
    return world, calls


def test_a_process_that_is_killed_at_any_call_leaves_the_gateway_s_routes_as_the_plan_has_them(ends: range) -> None:
    prepared = world_with(strategy=Strategy.ALL_AT_ONCE, placement=Placement.DEDICATED, watch_s=1)
    _, calls = _rolled_out(prepared, None)
    assert calls > 50
    for at in takewhile(lambda at: at <= calls, ends):
        world, _ = _rolled_out(prepared, at)
        assert (state(world), world.stable, slot_of_stable(world)) == (RolloutState.PROMOTED, 2, BLUE), (
            f"killed at {at}"
        )
        manifest(world)
        assert world.gateway.failed == [], f"killed at {at}"
        assert not world.endpoint().outbox


@pytest.fixture(params=[pytest.param(11, id="some"), pytest.param(1, id="all", marks=pytest.mark.long)])
def ends(request: pytest.FixtureRequest) -> range:
    """At which calls: some of them, or each."""
    return range(1, 100_000, request.param)
