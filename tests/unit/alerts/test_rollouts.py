"""Alerts on rollouts: fired and resolved by what the endpoint's state says, whoever looks and however often."""

from collections.abc import Iterator
from functools import cache

import pytest

from shared.alerts.documents import AlertRule
from shared.core.messages import CommandKind, RolloutCommand
from shared.registry.policy import Policy
from shared.registry.rollout_policy import Otherwise, RolloutPolicy, Stage
from shared.rollout.machine import RolloutState
from tests.world.fakes import Fuse, Killed
from tests.world.twins import twin
from tests.world.world import ENDPOINT, MODEL, Pod, World

STAGES = (Stage(weight_bp=1_000, duration_s=5), Stage(weight_bp=5_000, duration_s=5, approval=True))


def rolling(**rollout: object) -> World:
    """A world in which version 1 serves, and version 2 has begun to roll out."""
    world = twin(_serving())
    given = {"stages": STAGES, "tick_s": 5, "watch_s": 0, "approval_link_s": 600}
    world.put_policy(Policy(rollout=RolloutPolicy.model_validate(given | rollout)))
    world.event(world.drop("two takes:x", name="two.onnx"))
    world.run(seconds=2)
    return world


@cache
def _serving() -> World:
    world = World()
    world.put_policy(Policy(rollout=RolloutPolicy(stages=STAGES[:1], tick_s=5, watch_s=0)))
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=12)
    return world


def firing(world: World) -> dict[str, str]:
    """The rules that fire after a look, with what they say."""
    world.rollout_alerts.settle()
    return dict(_firing(world))


def _firing(world: World) -> Iterator[tuple[str, str]]:
    for rule in AlertRule:
        for alert in world.alerts.firing(rule):
            yield rule.value, alert.sentence


def command(world: World, kind: CommandKind, **given: object) -> None:
    asked = {"command": kind, "command_id": f"{kind} {world.clock.now()}", "endpoint": MODEL, "requested_by": "cid"}
    world.rollouts.handle(RolloutCommand.model_validate(asked | given))


def state(world: World) -> RolloutState:
    rollout = world.endpoint().rollout
    assert rollout is not None
    return rollout.state


def test_a_rollout_that_goes_well_fires_nothing() -> None:
    world = rolling()
    assert firing(world) == {}
    world.run(seconds=15)
    command(world, CommandKind.APPROVE)
    world.run(seconds=15)
    assert (state(world), firing(world)) == (RolloutState.PROMOTED, {})


def test_a_rollback_and_the_quarantine_fire_until_somebody_clears_the_version() -> None:
    world = rolling()
    world.pod.errors[2] = 1.0
    world.run(seconds=30)
    assert state(world) is RolloutState.ROLLED_BACK
    fired = firing(world)
    assert fired.keys() == {"rollout_rolled_back", "version_quarantined"}
    assert fired["rollout_rolled_back"].startswith("the rollout of version 2 on digits was rolled back: ")
    assert "slipway quarantine clear digits 2" in fired["version_quarantined"]
    held = dict(world.documents.held)
    world.clock.pass_s(3_600)
    firing(world)
    assert world.documents.held == held
    world.rollouts.clear_quarantine(ENDPOINT, 2, by="ann", reason="it was the network")
    assert firing(world) == {}


def test_the_next_rollout_ends_the_alert_on_the_one_before_and_not_the_quarantine() -> None:
    world = rolling()
    command(world, CommandKind.ROLLBACK, reason="it looks odd")
    assert firing(world)["rollout_rolled_back"] == "the rollout of version 2 on digits was rolled back: it looks odd"
    world.event(world.drop("three takes:x", name="three.onnx"))
    world.run(seconds=3)
    assert firing(world).keys() == {"version_quarantined"}


def test_an_abort_is_nobodys_fault() -> None:
    world = rolling()
    command(world, CommandKind.ABORT)
    assert firing(world) == {}


def test_a_held_rollout_fires_until_it_goes_on() -> None:
    world = rolling(on_inconclusive=Otherwise.HOLD, min_requests=10_000_000, max_stage_s=20)
    world.run(seconds=60)
    assert state(world) is RolloutState.HELD
    assert firing(world) == {
        "rollout_held": "the rollout of version 2 on digits is held at 10 %: resume, skip or abort it"
    }
    command(world, CommandKind.RESUME)
    assert firing(world) == {}


def test_an_approval_is_overdue_once_the_first_link_has_expired() -> None:
    world = rolling()
    world.run(seconds=15)
    assert state(world) is RolloutState.AWAITING
    assert firing(world) == {}
    world.clock.pass_s(601)
    said = "the rollout of version 2 on digits awaits an approval of stage 2 of 2: approve or reject it"
    assert firing(world) == {"approval_overdue": said}
    command(world, CommandKind.APPROVE)
    assert firing(world) == {}


def test_a_version_that_a_pod_cannot_load_fires_while_it_is_so() -> None:
    world = rolling(on_load_failure=Otherwise.HOLD)
    world.pod.unloadable = {2: "the disk is full"}
    world.run(seconds=12)
    said = "the rollout of version 2 on digits: pod pod-1 cannot load it: the disk is full"
    assert firing(world) == {"version_unloadable": said}
    world.pod.unloadable = {}
    world.run(seconds=12)
    assert firing(world) == {}


def test_a_version_that_cannot_be_loaded_is_one_finding_whatever_each_pod_says_at_each_look() -> None:
    world = rolling(on_load_failure=Otherwise.HOLD)
    world.others = [Pod(name="pod-2")]
    for left in range(12):
        failing, other = (world.pod, world.others[0]) if left % 2 else (world.others[0], world.pod)
        failing.unloadable, other.unloadable = {2: f"it takes 900 MiB: {left} MiB are left"}, {}
        world.run(seconds=6)
        assert firing(world).keys() == {"version_unloadable"}
    (alert,) = world.alerts.firing(AlertRule.VERSION_UNLOADABLE)
    assert alert.count == 1
    assert [event.kind for event in world.audit.events(alert.stream)] == ["alert_fired"]


@pytest.mark.parametrize("over", [False, True])
def test_a_look_that_is_killed_anywhere_is_made_good_by_the_next(over: bool) -> None:  # noqa: FBT001 - a case
    before = rolling()
    command(before, CommandKind.ROLLBACK)
    if over:
        before.rollout_alerts.settle()
        before.rollouts.clear_quarantine(ENDPOINT, 2, by="ann", reason="fine")
    at, died = 0, True
    while died:
        at += 1
        world = twin(before)
        world.documents.fuse = Fuse(at=at)
        died = False
        try:
            world.rollout_alerts.settle()
        except Killed:
            died = True
        world.documents.fuse = Fuse()
        assert firing(world).keys() == (set() if over else {"rollout_rolled_back", "version_quarantined"})
        world.sweep.sweep()
        alerts = world.alerts.alerts().items
        assert [alert.count for alert in alerts] == [1, 1]
        assert world.audit.verify().verified
    assert at > 6
