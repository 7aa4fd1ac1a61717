"""What a policy loosens of what keeps candidates back, and that nobody does so without a name and a reason."""

from datetime import UTC, datetime

import pytest

from shared.core.errors import InvalidInputError
from shared.registry.loosening import check_loosened, loosened
from shared.registry.rollout_policy import ErrorBudget, FreezeWindow, RolloutPolicy, Stage, Weekday

LAUNCH = FreezeWindow(name="launch", since=datetime(2026, 11, 1, tzinfo=UTC), until=datetime(2026, 11, 2, tzinfo=UTC))
NIGHT = FreezeWindow(name="night", days=(Weekday.FRI,), start="22:00", end="06:00")
SHORTER = NIGHT.model_copy(update={"end": "05:00"})


def stages(*approved: int) -> RolloutPolicy:
    shares = enumerate((100, 1_000, 5_000))
    return RolloutPolicy(
        stages=tuple(Stage(weight_bp=bp, duration_s=60, approval=number in approved) for number, bp in shares)
    )


def budget(objective: float, hours: int = 24) -> RolloutPolicy:
    return RolloutPolicy(error_budget=ErrorBudget(objective=objective, hours=hours))


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (RolloutPolicy(), RolloutPolicy(), []),
        (RolloutPolicy(), RolloutPolicy(freezes=(NIGHT,), switch_approval=True, approvals=2), []),
        (RolloutPolicy(freezes=(NIGHT,)), RolloutPolicy(freezes=(LAUNCH, NIGHT)), []),
        (RolloutPolicy(freezes=(LAUNCH, NIGHT)), RolloutPolicy(freezes=(NIGHT,)), ["freeze window launch"]),
        (RolloutPolicy(freezes=(NIGHT,)), RolloutPolicy(freezes=(SHORTER,)), ["freeze window night"]),
        (budget(0.99), budget(0.999), []),
        (budget(0.99), budget(0.9), ["the error budget"]),
        (budget(0.99), budget(0.99, hours=1), ["the error budget"]),
        (budget(0.99), RolloutPolicy(), ["the error budget"]),
        (RolloutPolicy(approvals=2), RolloutPolicy(approvals=1), ["the approvals of a version"]),
        (RolloutPolicy(switch_approval=True), RolloutPolicy(), ["the approval of the switch"]),
        (stages(1), stages(0, 1), []),
        (stages(1), stages(0), []),
        (stages(1), stages(2), ["the approvals of stages"]),
        (stages(0, 1), stages(0), ["the approvals of stages"]),
        (stages(1), stages(), ["the approvals of stages"]),
    ],
)
def test_what_is_taken_away_or_weaker_is_loosened(before: RolloutPolicy, after: RolloutPolicy, said: list[str]) -> None:
    assert loosened(before, after) == said
    check_loosened(before, after, by="ann", reason="the launch is over")
    for by, reason in (("ann", " "), ("", "why"), ("api", "why"), (" API ", "why")):
        if said:
            with pytest.raises(InvalidInputError, match=f"loosens {said[0]}, at once: say who does that and why"):
                check_loosened(before, after, by=by, reason=reason)
        else:
            check_loosened(before, after, by=by, reason=reason)
