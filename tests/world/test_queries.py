"""A metrics store that is down: the rollout tries by its ticks, then holds, and goes on when somebody resumes it."""

import pytest

from shared.core.messages import CommandKind
from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Gates, Provider, QueryGate, RolloutPolicy, Stage
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.queries import QueryAnswer
from tests.world.test_replay import BASE, check_same, command, dry_runs, rolled_out
from tests.world.world import ENDPOINT, Pod, World

LOAD = QueryGate(name="load", query='sum(load{model="{endpoint}",version="{version}"})', at_most=0.5)
DOWN = QueryAnswer(error="it did not answer within 5 s")
GOOD = QueryAnswer(value=0.1)


class Store:
    """A metrics store that is as the test sets it."""

    def __init__(self, answer: QueryAnswer) -> None:
        self.answer = answer
        self.asked: list[str] = []

    def ask(self, query: str) -> QueryAnswer:
        self.asked.append(query)
        return self.answer


def policy(**gates: object) -> RolloutPolicy:
    return BASE.model_copy(update={"gates": Gates(queries=(LOAD.model_copy(update=gates),)), "error_limit": 3})


def with_store(answer: QueryAnswer, wanted: RolloutPolicy) -> tuple[World, Store]:
    world, store = World(), Store(answer)
    world.stores[Provider.PROMETHEUS] = store
    return rolled_out(wanted, Pod(), world=world, seconds=40), store


def state_of(world: World) -> RolloutState:
    return world.rollouts.rollouts(ENDPOINT)[-1].state


def outcomes(world: World) -> list[Outcome]:
    """What the query's verdict was at each tick that had one."""
    rollout_id = world.rollouts.rollouts(ENDPOINT)[-1].rollout_id
    records = dry_runs(world).ticks(ENDPOINT, rollout_id).items
    return [v.outcome for record in records for v in record.decided.verdicts if v.check == "load"]


def test_a_store_that_is_down_is_asked_again_at_each_tick_then_the_stage_holds_and_goes_on_when_resumed() -> None:
    world, store = with_store(DOWN, policy())
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    assert (rollout.state, rollout.stage, rollout.weight_bp) == (RolloutState.HELD, 0, 1_000)
    records = dry_runs(world).ticks(ENDPOINT, rollout.rollout_id).items
    (held,) = [record.decided for record in records if record.decided.event is RolloutEvent.HOLD]
    assert held.reason == "3 ticks in a row: the query could not be asked: it did not answer within 5 s"
    assert "it did not answer within 5 s" in rollout.reason
    assert outcomes(world)[:3] == [Outcome.ERROR] * 3
    assert set(store.asked) == {'sum(load{model="digits",version="2"})'}

    world.run(seconds=60)
    assert state_of(world) is RolloutState.HELD
    command(world, CommandKind.RESUME)
    world.run(seconds=30)
    assert state_of(world) is RolloutState.HELD
    store.answer = GOOD
    command(world, CommandKind.RESUME)
    world.run(seconds=80)
    assert (state_of(world), world.stable) == (RolloutState.PROMOTED, 2)
    check_same(world)


def test_an_error_now_and_then_holds_nothing_up_for_good() -> None:
    class Flickers(Store):
        def ask(self, query: str) -> QueryAnswer:
            super().ask(query)
            return DOWN if len(self.asked) % 2 else GOOD

    world = World()
    world.stores[Provider.PROMETHEUS] = Flickers(DOWN)
    rolled_out(policy(), Pod(), world=world)
    assert state_of(world) is RolloutState.PROMOTED
    assert {Outcome.ERROR, Outcome.PASS} <= set(outcomes(world))
    check_same(world)


def test_a_candidate_that_fails_is_taken_back_whatever_the_store_says() -> None:
    world = World()
    world.stores[Provider.PROMETHEUS] = Store(DOWN)
    rolled_out(policy(), Pod(errors={2: 0.5}), world=world)
    assert (state_of(world), world.stable) == (RolloutState.ROLLED_BACK, 1)


def test_no_number_never_promotes() -> None:
    world = World()
    world.stores[Provider.PROMETHEUS] = Store(QueryAnswer())
    rolled_out(policy(), Pod(), world=world)
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    assert (rollout.state, rollout.stage) == (RolloutState.ROLLED_BACK, 0)
    assert "no conclusion after" in rollout.reason


def test_a_number_beyond_the_limit_takes_it_back_after_as_many_failed_checks_as_policy_allows() -> None:
    world, _ = with_store(QueryAnswer(value=0.9), policy())
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    assert rollout.state is RolloutState.ROLLED_BACK
    assert "3 failed checks without a pass between: the query answered 0.9; wanted is at most 0.5" in rollout.reason


@pytest.mark.parametrize("answer", [DOWN, QueryAnswer(), QueryAnswer(value=0.9)])
def test_a_dry_run_query_is_recorded_and_holds_nothing(answer: QueryAnswer) -> None:
    world = World()
    world.stores[Provider.PROMETHEUS] = Store(answer)
    rolled_out(policy(dry_run=True), Pod(), world=world)
    assert state_of(world) is RolloutState.PROMOTED
    assert outcomes(world)


def test_a_stage_without_a_least_time_does_not_pass_before_its_query_was_asked() -> None:
    brief = (Stage(weight_bp=1_000, duration_s=0), Stage(weight_bp=5_000, duration_s=0))
    world, store = with_store(DOWN, policy().model_copy(update={"stages": brief}))
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    assert (rollout.state, rollout.stage) == (RolloutState.HELD, 0)
    assert store.asked


def test_without_a_store_the_gate_says_which_setting_is_absent() -> None:
    world = rolled_out(policy(), Pod(), seconds=40)
    rollout = world.rollouts.rollouts(ENDPOINT)[-1]
    assert rollout.state is RolloutState.HELD
    assert "no prometheus is configured" in rollout.reason
