"""Refuses gates that no version as good as stable can ever pass, and such as never are asked; and a split of nothing.

Asked when a policy is set, and not by the policy's form: what is stored already, in rollouts under way too, must stay
readable. Pure.
"""

from shared.core.errors import InvalidInputError
from shared.registry.rollout_policy import GateMode, GateName, Gates, RolloutPolicy, Stage, Strategy
from shared.routing.plan import FULL_WEIGHT_BP


def check_margins(policy: RolloutPolicy) -> None:
    """Raise InvalidInputError for gates of mode not-worse that leave no margin, for a feedback gate where the candidate
    and stable never have traffic at the same time, for late feedback that no gate hears, and for a split that leaves
    stable nothing.
    """
    _check_split(policy)
    _check_feedback(policy)
    _check("gates", policy.gates)
    for number, stage in enumerate(policy.stages, start=1):
        if stage.gates is not None:
            _check(f"stages, in stage {number} gates", stage.gates)


def _check(where: str, gates: Gates) -> None:
    if gates.mode is not GateMode.NOT_WORSE:
        return
    margins = {GateName.ERROR_RATE: ("", gates.error_rate), GateName.SLOW_RATE: ("", gates.slow_rate)}
    if gates.feedback is not None:
        margins[GateName.FEEDBACK] = (".margin", gates.feedback.margin)
    for name, (part, margin) in margins.items():
        if not margin and name not in gates.dry_run:
            raise InvalidInputError(
                f"rollout.{where}.{name}{part} is 0 in mode {gates.mode}: of a version that is as good as stable it is "
                f"never proven that it is worse by less than nothing, so that it never passes; give a margin, as in "
                f"0.01, or the mode {GateMode.NO_PROVEN_HARM}"
            )


def _check_split(policy: RolloutPolicy) -> None:
    if policy.strategy is Strategy.SPLIT and policy.stages[0].weight_bp == FULL_WEIGHT_BP:
        raise InvalidInputError(
            f"rollout.strategy is {policy.strategy}, and the first of its stages gives the candidate all "
            f"{FULL_WEIGHT_BP} of weight_bp: nothing is split, and stable has nothing to be compared with; give a "
            f"share below that, as in 5000, or use the strategy {Strategy.ALL_AT_ONCE}"
        )


def _check_feedback(policy: RolloutPolicy) -> None:
    shared = [stage for stage in _stages(policy) if stage.weight_bp < FULL_WEIGHT_BP]
    if _hears(policy.gates) and not any(_hears(stage.gates or policy.gates) for stage in shared):
        raise InvalidInputError(
            f"rollout.gates.feedback is set, and no stage of the {policy.strategy} gives a share below "
            f"{FULL_WEIGHT_BP} to the candidate under that gate: its feedback is compared with stable's of the same "
            "time, and there is none; use a canary with such a stage, or leave the gate out"
        )
    if policy.late_feedback_s and not _hears(policy.gates):
        raise InvalidInputError(
            f"rollout.late_feedback_s is {policy.late_feedback_s:g}, and rollout.gates.feedback is not set, or is "
            "recorded only: no gate hears late feedback; set that gate too, as in "
            "{min_feedback: 500}, or late_feedback_s to 0"
        )


def _stages(policy: RolloutPolicy) -> tuple[Stage, ...]:
    """The stages in which the candidate answers."""
    match policy.strategy:
        case Strategy.ALL_AT_ONCE | Strategy.BLUE_GREEN:
            return ()
        case Strategy.SPLIT:
            return policy.stages[:1]
        case Strategy.SHADOW if policy.shadow_then is None:
            return ()
        case _:
            return policy.stages


def _hears(gates: Gates) -> bool:
    return gates.feedback is not None and GateName.FEEDBACK not in gates.dry_run
