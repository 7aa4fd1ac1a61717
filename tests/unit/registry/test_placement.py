"""Which strategies a candidate can have in pods of its own, and where it then goes."""

import pytest
from pydantic import ValidationError

from shared.core.slots import Slot
from shared.registry.rollout_policy import APART, Placement, RolloutPolicy, Strategy
from shared.rollout.admission import slot_for
from shared.rollout.documents import Target


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_needs_both_versions_in_one_process_is_refused_with_pods_of_its_own(strategy: Strategy) -> None:
    assert RolloutPolicy(strategy=strategy).placement is Placement.SHARED
    if strategy in APART:
        assert RolloutPolicy(strategy=strategy, placement=Placement.DEDICATED).strategy is strategy
        return
    with pytest.raises(ValidationError, match=f"strategy is {strategy}.*use all-at-once, blue-green, canary"):
        RolloutPolicy(strategy=strategy, placement=Placement.DEDICATED)


@pytest.mark.parametrize(
    ("stable", "expected"),
    [("none", Slot.BLUE), (None, Slot.BLUE), (Slot.BLUE, Slot.GREEN), (Slot.GREEN, Slot.BLUE)],
)
def test_a_candidate_goes_where_stable_is_not(stable: Slot | str | None, expected: Slot) -> None:
    of_stable = None if isinstance(stable, str) and not isinstance(stable, Slot) else _target(stable)
    assert slot_for(Placement.DEDICATED, of_stable) is expected
    assert slot_for(Placement.SHARED, of_stable) is None


def _target(slot: object) -> Target:
    return Target.model_validate(
        {"version": 1, "artifact_digest": "0" * 64, "size_bytes": 1, "golden_digest": None, "slot": slot}
    )
