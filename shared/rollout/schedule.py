"""The stages that a policy's strategy comes to. One machine runs them all; what differs is written here.

All-at-once has none: it goes from loading to the switch. Blue-green has one without traffic. A shadow's first stage
mirrors, and may be followed by a canary's. A split has one, which no gate ends. Of a rolling one the weights are shares
of the pods.
"""

from typing import Literal

from shared.registry.rollout_policy import RolloutPolicy, Stage, Strategy


class QuietStage(Stage):
    """A stage in which the candidate answers nobody but those who name it."""

    weight_bp: Literal[0] = 0
    mirror_bp: int = 0
    """The share of the requests of which it gets a copy."""


def schedule_of(policy: RolloutPolicy) -> tuple[Stage, ...]:
    """The stages, in order; after the last comes the switch, or the end."""
    match policy.strategy:
        case Strategy.ALL_AT_ONCE:
            return ()
        case Strategy.CANARY | Strategy.ROLLING:
            return policy.stages
        case Strategy.SPLIT:
            return policy.stages[:1]
        case Strategy.BLUE_GREEN:
            return (QuietStage(duration_s=policy.preview_s),)
        case Strategy.SHADOW:
            shadow = QuietStage(mirror_bp=policy.mirror_bp, duration_s=policy.shadow_s)
            return (shadow, *policy.stages) if policy.shadow_then is Strategy.CANARY else (shadow,)


def is_held_open(policy: RolloutPolicy) -> bool:
    """Whether the last stage lasts until somebody ends it."""
    return policy.strategy is Strategy.SPLIT


def ends_without_promotion(policy: RolloutPolicy) -> bool:
    """Whether nothing follows the last stage."""
    return policy.strategy is Strategy.SHADOW and policy.shadow_then is None
