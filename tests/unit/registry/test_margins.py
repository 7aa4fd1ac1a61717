"""Gates of mode not-worse without a margin are refused when the policy is set, and stay readable where stored."""

import re

import pytest
import yaml

from shared.core.errors import InvalidInputError
from shared.registry.margins import check_margins
from shared.registry.policy import Policy
from shared.registry.rollout_policy import FeedbackGate, GateMode, GateName, Gates, RolloutPolicy, Stage, Strategy
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


FED = Gates(feedback=FeedbackGate())
SHARE = Stage(weight_bp=9_999, duration_s=60)
ALL = (Stage(weight_bp=10_000, duration_s=60),)


@pytest.mark.parametrize(
    "policy",
    [
        RolloutPolicy(strategy=Strategy.ALL_AT_ONCE, gates=FED),
        RolloutPolicy(strategy=Strategy.BLUE_GREEN, gates=FED),
        RolloutPolicy(strategy=Strategy.SHADOW, gates=FED),
        RolloutPolicy(stages=ALL, gates=FED),
        RolloutPolicy(stages=(Stage(weight_bp=10, duration_s=1, gates=Gates()), *ALL), gates=FED),
    ],
)
def test_feedback_is_not_asked_for_where_nothing_is_answered_by_both(policy: RolloutPolicy) -> None:
    with pytest.raises(InvalidInputError, match=r"use a canary with such a stage"):
        check_margins(policy)
    recorded = FED.model_copy(update={"dry_run": (GateName.FEEDBACK,)})
    check_margins(policy.model_copy(update={"gates": recorded}))


@pytest.mark.parametrize("strategy", [Strategy.CANARY, Strategy.ROLLING, Strategy.SPLIT])
def test_feedback_may_be_asked_for_where_both_answer(strategy: Strategy) -> None:
    check_margins(RolloutPolicy(strategy=strategy, gates=FED, late_feedback_s=60))


def test_late_feedback_that_no_gate_hears_is_refused() -> None:
    with pytest.raises(InvalidInputError, match=r"late_feedback_s is 60, and rollout\.gates\.feedback is not set"):
        check_margins(RolloutPolicy(late_feedback_s=60))


def test_the_gate_that_its_refusal_gives_as_an_example_is_one_that_hears_late_feedback() -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_margins(RolloutPolicy(late_feedback_s=60))
    (example,) = re.findall(r"as in (\{.*\})", str(refused.value))
    gates = Gates.model_validate({"feedback": yaml.safe_load(example)})
    assert gates.feedback != FeedbackGate()
    check_margins(RolloutPolicy(late_feedback_s=60, gates=gates))


def test_a_split_that_leaves_stable_nothing_is_not_set() -> None:
    world = World()
    nothing = RolloutPolicy(strategy=Strategy.SPLIT, stages=ALL)
    with pytest.raises(InvalidInputError, match=r"all 10000 of weight_bp: nothing is split, .* give a share below"):
        world.registry.put_policy(MODEL, Policy(rollout=nothing), by="ann")
    assert RolloutPolicy.model_validate_json(nothing.model_dump_json()) == nothing, "what is stored stays readable"
    for policy in (RolloutPolicy(stages=ALL), RolloutPolicy(strategy=Strategy.SPLIT, stages=(SHARE, *ALL))):
        check_margins(policy)
