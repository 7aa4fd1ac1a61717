"""Refuses gates that no version as good as stable can ever pass.

Asked when a policy is set, and not by the policy's form: what is stored already, in rollouts under way too, must stay
readable. Pure.
"""

from shared.core.errors import InvalidInputError
from shared.registry.rollout_policy import GateMode, GateName, Gates, RolloutPolicy


def check_margins(policy: RolloutPolicy) -> None:
    """Raise InvalidInputError for gates of mode not-worse that leave no margin."""
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
