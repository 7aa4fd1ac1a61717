"""Gates of mode not-worse without a margin are refused when the policy is set, and stay readable where stored."""

import pytest

from shared.core.errors import InvalidInputError
from shared.registry.margins import check_margins
from shared.registry.policy import Policy
from shared.registry.rollout_policy import GateMode, GateName, Gates, RolloutPolicy, Stage
from tests.world.world import MODEL, World

NONE = Gates(mode=GateMode.NOT_WORSE, error_rate=0.0)


def test_a_policy_by_which_an_equal_version_never_passes_is_not_set() -> None:
    world = World()
    with pytest.raises(InvalidInputError, match=r"rollout\.gates\.error_rate is 0 in mode not-worse: .* give a margin"):
        world.registry.put_policy(MODEL, Policy(rollout=RolloutPolicy(gates=NONE)), by="ann")


def test_the_gates_of_each_stage_are_looked_at() -> None:
    slow = Gates(mode=GateMode.NOT_WORSE, slow_rate=0.0)
    stages = (Stage(weight_bp=10, duration_s=1), Stage(weight_bp=20, duration_s=1, gates=slow))
    with pytest.raises(InvalidInputError, match=r"rollout\.stages, in stage 2 gates\.slow_rate is 0"):
        check_margins(RolloutPolicy(stages=stages))


@pytest.mark.parametrize(
    "gates",
    [
        Gates(mode=GateMode.NOT_WORSE),
        Gates(error_rate=0.0, slow_rate=0.0),
        NONE.model_copy(update={"dry_run": (GateName.ERROR_RATE,)}),
    ],
)
def test_a_margin_of_nothing_is_fine_where_it_decides_nothing(gates: Gates) -> None:
    check_margins(RolloutPolicy(gates=gates))


def test_what_is_stored_already_stays_readable() -> None:
    stored = RolloutPolicy(gates=NONE).model_dump_json()
    assert RolloutPolicy.model_validate_json(stored).gates == NONE
