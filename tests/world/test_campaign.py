"""Rollouts of every strategy end under faults as they do without: no weight jumps, and the audit chain is whole."""

from itertools import groupby, pairwise

import pytest

from shared.registry.rollout_policy import Strategy
from shared.rollout import progress
from shared.rollout.schedule import schedule_of
from shared.routing.plan import FULL_WEIGHT_BP, RoutePlan
from tests.world.campaign import Play, disturbed, prepared, undisturbed
from tests.world.campaign_draws import CANDIDATE, SET_BP, Regret, Scenario, Trait, Wish, faults_of, scenario_of
from tests.world.world import World

LONG = range(300)
SHORT = (1, 2, 6, 14, 15, 22, 25, 33, 37, 38, 41, 45, 86)
NEXT = 3
ENDS = {
    (Trait.HEALTHY, Regret.NONE): {"promoted", "concluded"},
    (Trait.HEALTHY, Regret.LATER): {"promoted", "concluded"},
    (Trait.HEALTHY, Regret.ABORT): {"aborted"},
    (Trait.UNLOADABLE, Regret.NONE): {"rolled_back", "loading"},
    (Trait.DRIFTED, Regret.NONE): {"rolled_back", "promoted"},
    (Trait.QUIET, Regret.NONE): {"rolled_back", "held", "watching", "progressing"},
}
"""Where it is not taken back."""
BAD = {Trait.ERRING, Trait.SLOW, Trait.DRIFTED}
HEALTHY_STEPS = {"stage_started", "rollout_watching", "rollout_promoted", "rollout_concluded", "rollout_started"}


@pytest.fixture(scope="module")
def start() -> World:
    return prepared()


def ladder(scenario: Scenario) -> list[int]:
    """The weights that the candidate may have, in the order in which it may have them."""
    return [0, *sorted({stage.weight_bp for stage in schedule_of(scenario.rollout)} - {0}), FULL_WEIGHT_BP]


def step_of(plan: RoutePlan, version: int) -> int:
    """A version's weight as a candidate; all of it once it is stable."""
    if plan.stable and plan.stable.version == version:
        return FULL_WEIGHT_BP
    return plan.candidate.weight_bp if plan.candidate and plan.candidate.version == version else 0


def check_plans(scenario: Scenario, plans: list[RoutePlan]) -> None:
    """A candidate goes up by one step at a time, or back to nothing for good; its pods stay its pods."""
    steps = ladder(scenario)
    assert [plan.generation for plan in plans] == sorted({plan.generation for plan in plans})
    for version in (CANDIDATE, NEXT):
        for before, after in pairwise(plans):
            was, now = step_of(before, version), step_of(after, version)
            if scenario.wish is Wish.SET_WEIGHT and SET_BP in {was, now}:
                continue
            assert now in {0, was} or steps.index(now) == steps.index(was) + 1, (before, after)
    ids = [plan.rollout_id for plan in plans if plan.rollout_id]
    assert [one for one, _ in groupby(ids)] == list(dict.fromkeys(ids))


def check_counted_once(play: Play) -> None:
    """What was counted is at most what the pods served: nothing twice, whoever looked how often."""
    rollout = play.rollout()
    assert rollout is not None
    for version, counts in rollout.progress.counts.items():
        assert counts.requests <= play.served[version]
    state = rollout.progress.tests.get(progress.TestName.ERRORS_WORSE)
    if state is not None:
        assert state.total[0] <= play.served[CANDIDATE]


def ends_of(scenario: Scenario) -> set[str]:
    """The states in which the candidate's rollout may end, faults or none."""
    policy = scenario.rollout
    if policy.strategy is Strategy.SHADOW and policy.shadow_then is None and scenario.trait in BAD:
        # How long copies take is not looked at; whether they agree only where there is a limit.
        is_seen = scenario.trait is not Trait.SLOW and policy.gates.disagreement is not None
        return {"rolled_back"} if is_seen else {"concluded"}
    return ENDS.get((scenario.trait, scenario.regret), {"rolled_back"})


def check(start: World, seed: int) -> None:
    scenario, faults = scenario_of(seed), faults_of(seed)
    calm = undisturbed(start, scenario)
    rollout, end = calm.rollout(), calm.standing()
    assert rollout is not None
    assert rollout.state.value in ends_of(scenario), rollout.reason
    assert (end["problems"], end["undelivered"], end["is_published"]) == ([], [], True)
    rough = disturbed(start, scenario, faults, end)
    assert rough.standing() == end
    if scenario.trait is Trait.HEALTHY and scenario.regret in {Regret.NONE, Regret.LATER}:
        steps = [[kind for kind in play.kinds() if kind in HEALTHY_STEPS] for play in (calm, rough)]
        assert steps[0] == steps[1]
    for play in (calm, rough):
        check_plans(scenario, play.plans)
        check_counted_once(play)


@pytest.mark.parametrize("seed", SHORT)
def test_a_rollout_under_faults_ends_where_it_would_have(seed: int, start: World) -> None:
    check(start, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", [seed for seed in LONG if seed not in SHORT])
def test_a_rollout_under_faults_ends_where_it_would_have_of_300_seeds(seed: int, start: World) -> None:
    check(start, seed)


def test_the_faults_of_the_short_campaign_are_real(start: World) -> None:
    plays = [Play(start, scenario_of(seed), faults_of(seed)) for seed in SHORT[:4]]
    for play in plays:
        while play.second < play.faults.until_s:
            play.go_on()
    assert sum(play.kills for play in plays) > 0
    assert sum(play.stalls for play in plays) > 0
    assert sum(play.refusals for play in plays) > 0
    assert sum(play.lost for play in plays) > 0
