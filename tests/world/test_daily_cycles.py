"""A healthy daily cycle raises no alarm, neither while a version's first day goes by nor afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.core.verdict import Outcome
from shared.registry.drift_policy import DriftPolicy, RetrainingPolicy
from shared.telemetry.profile import Profile
from tests.world.watched import NAMES, Table, Watched, counted, rows_of
from tests.world.world import MODEL

SWING = 1.0


@dataclass
class OfWholeDays(Watched):
    """Its reference is of whole days: `income` swings by a deviation, and `age` is the hour."""

    def profiled(self, reference: Mapping[str, Table]) -> Profile:
        hours = self.rng.integers(0, 24, len(reference["x"]))
        return super().profiled(self.at(reference, hours))

    def at(self, rows: Mapping[str, Table], hours: NDArray[np.int64]) -> dict[str, Table]:
        """The rows, as they come at these hours."""
        table = rows["x"].copy()
        table[:, NAMES.index("income")] += SWING * np.sin(2 * np.pi * hours / 24)
        table[:, NAMES.index("age")] = hours
        return {**rows, "x": table}

    def hour_of_day(self, hour: int, *, moved: dict[str, float] | None = None) -> None:
        """An hour of traffic, as it comes at that hour of the day."""
        self.world.clock.pass_s(1_800)
        rows = self.at(rows_of(self.rng, 200, moved), np.full(200, hour % 24))
        self.write({"1:stable": counted(self.profile, rows)})
        self.world.clock.pass_s(1_800)
        self.look()


def test_a_daily_cycle_raises_no_alarm_and_a_drift_that_stays_does_after_a_day() -> None:
    policy = DriftPolicy(retraining=RetrainingPolicy(enabled=True))
    calm, moved = OfWholeDays(policy=policy), OfWholeDays(policy=policy)
    for hour in range(34):
        calm.hour_of_day(hour)
        assert calm.firing() == {}, (hour, calm.latest.sentences)
        if hour == 12:
            assert calm.latest.findings[0].outcome is Outcome.INCONCLUSIVE
            assert "an alarm waits for 24 of them" in calm.latest.sentences[0]
    assert calm.latest.findings[0].outcome is Outcome.PASS
    assert calm.world.watching.requests(MODEL).requests == []
    for hour in range(24):
        assert moved.firing() == {}
        moved.hour_of_day(hour, moved={"score": 1.5})
    assert moved.firing() == {"data_drift": 1}
