"""From what pods count to what becomes of a rollout: windows, the look, the alarm, the tick, the published plan."""

from dataclasses import dataclass

import numpy as np
import pytest

from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, ValidateVersion
from shared.core.verdict import Outcome
from shared.registry.documents import version_id
from shared.registry.drift_policy import DriftPolicy, Following
from shared.registry.policy import Policy
from shared.registry.rollout_policy import Stage, Strategy
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Trigger
from shared.store.ports import Container
from tests.world.strategies import Forgiving, give, policy, published, rollout, run_until, start
from tests.world.watched import Watched, counted, rows_of
from tests.world.world import ENDPOINT, MODEL

STAGES = (Stage(weight_bp=1_000, duration_s=40), Stage(weight_bp=5_000, duration_s=20))


@dataclass
class RolledOut(Watched):
    """A world in which version 2 is being rolled out beside version 1, both with the profile, by the rollouts' own
    service and plans.
    """

    def __post_init__(self) -> None:
        self.world = world = Forgiving()
        self.rng, self.sequences = np.random.default_rng(self.seed), {}
        self.profile = self.profiled(rows_of(self.rng, 4_000))
        world.put_policy(policy(strategy=Strategy.ALL_AT_ONCE, watch_s=0))
        for number in (1, 2):
            world.registration.register(world.drop(f"content {number}", name=f"{number}.onnx"))
            world.validation.validate(ValidateVersion(model=MODEL, version=VersionNumber(number)))
            stored = world.documents.held[Container.MODELS, MODEL, version_id(number)]
            body = {**stored.body, "profile_digest": self.profile.id}
            world.documents.replace(Container.MODELS, body, etag=stored.etag)
        start(world, 1)
        world.run(seconds=4)
        world.put_policy(Policy(rollout=policy(stages=STAGES, tick_s=5).rollout, drift=self.policy))
        start(world, 2)
        run_until(world, RolloutState.PROGRESSING, stage=0)

    def look_at(self, *, moved: float) -> None:
        """Half a minute of traffic of which the candidate's is other than stable's by so much, and the timer's call."""
        self.world.run(seconds=15)
        own = rows_of(self.rng, 400, {"income": moved})
        stable = rows_of(self.rng, 1_200)
        self.write({"1:stable": counted(self.profile, stable), "2:candidate": counted(self.profile, own)})
        self.world.watching.watch()
        self.world.run(seconds=15)


def watched_by(following: Following, *, hours: int = 1) -> RolledOut:
    return RolledOut(policy=DriftPolicy(following=following, following_min_rows=300, following_min_hours=hours))


def test_a_candidate_that_is_asked_otherwise_than_stable_is_taken_back_and_the_plan_names_it_no_more() -> None:
    watched = watched_by(Following.ROLL_BACK)
    world = watched.world
    assert [route.version for route in published(world).routes] == [1, 2]
    watched.look_at(moved=2.0)
    found = rollout(world)
    assert found.state is RolloutState.ROLLED_BACK
    assert [route.version for route in published(world).routes] == [1]
    (rollback,) = world.rollouts.rollbacks(ENDPOINT)
    assert rollback.trigger is Trigger.DATA_DRIFT
    assert world.endpoint().is_quarantined(2)
    # Its reason is the report's, which is there to be read.
    finding = world.watching.reports.finding(MODEL, 2, "candidate", "concurrent")
    assert finding is not None
    assert finding.features[0].name == "income"
    assert found.reason == f"{finding.sentence} (report {finding.report_id})"
    assert world.watching.reports.one(MODEL, finding.report_id).version == 2


def test_it_is_held_at_its_share_and_goes_on_when_somebody_says_so() -> None:
    watched = watched_by(Following.HOLD)
    world = watched.world
    watched.look_at(moved=2.0)
    world.run(seconds=45)
    assert (rollout(world).state, rollout(world).weight_bp) == (RolloutState.HELD, 1_000)
    assert published(world).candidate is not None
    give(world, CommandKind.RESUME, reason="a campaign")
    run_until(world, RolloutState.PROMOTED)


@pytest.mark.parametrize(
    ("following", "moved", "hours"),
    [(Following.ROLL_BACK, 0.0, 1), (Following.NOTHING, 2.0, 1), (Following.ROLL_BACK, 2.0, 8)],
)
def test_nothing_follows_where_none_drifted_or_policy_says_so_or_hours_are_too_few(
    following: Following, moved: float, hours: int
) -> None:
    watched = watched_by(following, hours=hours)
    for _ in range(4):
        watched.look_at(moved=moved)
        finding = watched.world.watching.reports.finding(MODEL, 2, "candidate", "concurrent")
        assert finding is not None
        assert (finding.outcome is Outcome.FAIL) == bool(moved)
    assert rollout(watched.world).state is RolloutState.PROMOTED
    assert watched.world.rollouts.rollbacks(ENDPOINT) == []
