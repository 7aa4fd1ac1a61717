"""What no sequence of events, commands, ticks and faults can do: random lives of an endpoint."""

import random

import pytest

from shared.rollout.machine import RolloutState
from tests.simulation.walks import Walk


def test_in_a_thousand_random_edits_the_plan_is_the_state_and_nothing_goes_on_unproven() -> None:
    states: set[RolloutState] = set()
    refused = edits = 0
    for seed in range(80):
        walk = Walk(random.Random(seed))
        for _ in range(25):
            walk.step()
        states |= walk.seen
        refused += walk.refused
        edits += walk.edits
    assert states == set(RolloutState)
    assert refused > 50
    assert edits >= 1_000


@pytest.mark.long
@pytest.mark.parametrize("seed", range(400))
def test_a_long_random_life(seed: int) -> None:
    walk = Walk(random.Random(1_000 + seed))
    for _ in range(150):
        walk.step()
