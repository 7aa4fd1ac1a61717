"""No sequence of commands, policies and faults breaks what a rollout promises."""

from itertools import count

import pytest

from tests.world.lives import Life
from tests.world.strategies import world_with
from tests.world.world import World

EDITS = 1_000
STEPS = 60
LONG = range(100, 500)


@pytest.fixture(scope="module")
def start() -> World:
    """A world whose version 1 serves, and in which four more are validated."""
    return world_with(versions=5)


def lived(start: World, seed: int) -> Life:
    life = Life(start, seed)
    for _ in range(STEPS):
        life.step()
    life.end()
    return life


def test_in_a_thousand_random_edits_under_faults_the_published_plan_is_the_state_and_nothing_goes_on_unproven(
    start: World,
) -> None:
    lives: list[Life] = []
    seeds = count(3)
    while sum(life.witness.edits for life in lives) < EDITS:
        lives.append(lived(start, next(seeds)))
    # That the lives were not idle.
    assert len(set.union(*(life.witness.states for life in lives))) >= 8
    assert len(set.union(*(life.heard for life in lives))) >= 8
    assert min(sum(life.kills for life in lives), sum(life.refused for life in lives)) >= 20
    assert sum(life.rolled_back for life in lives) >= 20


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG)
def test_a_long_life_under_faults(seed: int, start: World) -> None:
    lived(start, seed)
