"""What follows from a drift of the candidate: the tick takes the alarm that stands as its evidence."""

from datetime import timedelta
from functools import cache

from shared.core.messages import CommandKind, RolloutCommand
from shared.core.verdict import Outcome
from shared.registry.drift_policy import DriftPolicy, Following
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Stage
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Trigger
from shared.store.ports import Container
from shared.watching.documents import Alarm, DriftReport, Episode, drift_report_id
from tests.world.twins import twin
from tests.world.world import ENDPOINT, MODEL, World

STAGES = (Stage(weight_bp=1_000, duration_s=20), Stage(weight_bp=5_000, duration_s=20))


@cache
def _begun() -> World:
    world = World()
    world.put_policy(Policy(rollout=RolloutPolicy(stages=STAGES, tick_s=5, watch_s=0)))
    world.event(world.drop("one takes:x", name="one.onnx"))
    world.run(seconds=12)
    world.event(world.drop("two takes:x", name="two.onnx"))
    world.run(seconds=12)
    assert rollout(world).state is RolloutState.PROGRESSING
    return world


def drifting(following: Following) -> World:
    """A rollout whose candidate drifts, as watching says."""
    world = twin(_begun())
    world.put_policy(Policy(drift=DriftPolicy(following=following)))
    now = world.clock.now()
    episode = Episode(
        since=now,
        seen=now,
        sentence="income drifted",
        features=("income",),
        report_id="drift-2",
        may_follow=True,
    )
    report = DriftReport(
        id=drift_report_id(2, "candidate"),
        model=MODEL,
        endpoint=MODEL,
        version=2,
        role="candidate",
        alarms={Alarm.CONCURRENT_DRIFT: episode},
        is_alarming=True,
    )
    world.documents.create(Container.REPORTS, report.to_body())
    return world


def rollout(world: World) -> Rollout:
    found = world.endpoint().rollout
    assert found is not None
    return found


def test_nothing_follows_where_policy_says_so() -> None:
    world = drifting(Following.NOTHING)
    world.run(seconds=60)
    assert (rollout(world).state, rollout(world).drift) == (RolloutState.PROMOTED, None)


def test_it_is_taken_back_with_the_report_as_evidence() -> None:
    world = drifting(Following.ROLL_BACK)
    world.run(seconds=15)
    found = rollout(world)
    assert (found.state, found.reason) == (RolloutState.ROLLED_BACK, "income drifted (report drift-2)")
    assert world.rollouts.rollbacks(ENDPOINT)[-1].trigger is Trigger.DATA_DRIFT
    assert [v.outcome for v in found.verdicts if v.check == "drift"] == [Outcome.FAIL]


def test_it_is_held_until_somebody_who_saw_it_lets_it_go_on() -> None:
    world = drifting(Following.HOLD)
    world.run(seconds=60)
    assert (rollout(world).state, rollout(world).weight_bp) == (RolloutState.HELD, 1_000)
    command = RolloutCommand(
        command=CommandKind.RESUME, command_id="on", endpoint=MODEL, requested_by="ann", reason="a campaign"
    )
    world.rollouts.handle(command)
    world.run(seconds=60)
    assert rollout(world).state is RolloutState.PROMOTED


def test_a_candidate_that_fails_is_taken_back_though_drift_would_hold_it() -> None:
    world = drifting(Following.HOLD)
    world.pod.errors[2] = 1.0
    world.run(seconds=15)
    assert rollout(world).state is RolloutState.ROLLED_BACK
    assert world.rollouts.rollbacks(ENDPOINT)[-1].trigger is Trigger.ERROR_RATE


def test_the_alarm_of_an_earlier_role_holds_nothing() -> None:
    world = drifting(Following.ROLL_BACK)
    key = (Container.REPORTS, MODEL, drift_report_id(2, "candidate"))
    stored = world.documents.held[key]
    world.documents.replace(Container.REPORTS, {**stored.body, "alarms": {}}, etag=stored.etag)
    world.run(seconds=60)
    assert rollout(world).state is RolloutState.PROMOTED


def test_the_alarm_of_an_earlier_rollout_of_the_version_holds_nothing() -> None:
    world = drifting(Following.ROLL_BACK)
    key = (Container.REPORTS, MODEL, drift_report_id(2, "candidate"))
    stored = world.documents.held[key]
    report = DriftReport.from_body(stored.body)
    before = report.alarms[Alarm.CONCURRENT_DRIFT].model_copy(
        update={"since": rollout(world).started_at - timedelta(seconds=1)}
    )
    report.alarms = {Alarm.CONCURRENT_DRIFT: before}
    world.documents.replace(Container.REPORTS, report.to_body(), etag=stored.etag)
    world.run(seconds=60)
    assert (rollout(world).state, rollout(world).drift) == (RolloutState.PROMOTED, None)


def test_what_too_few_rows_or_answers_alone_show_holds_nothing() -> None:
    world = drifting(Following.ROLL_BACK)
    key = (Container.REPORTS, MODEL, drift_report_id(2, "candidate"))
    stored = world.documents.held[key]
    report = DriftReport.from_body(stored.body)
    episode = report.alarms[Alarm.CONCURRENT_DRIFT]
    report.alarms = {Alarm.CONCURRENT_DRIFT: episode.model_copy(update={"may_follow": False})}
    world.documents.replace(Container.REPORTS, report.to_body(), etag=stored.etag)
    world.run(seconds=60)
    assert rollout(world).state is RolloutState.PROMOTED
