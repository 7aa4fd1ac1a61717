"""Drift of real traffic whose days differ much: flights out of New York in 2013 and their weather, day by day.

Run `.venv/bin/python -m benchmarks.drift_flights`. Every second day of winter, January to March, makes the profile;
each other day of the year is a window. Of each month: on how many days a report by the policy's defaults has an alarm,
the null being learned from winter's other days, and not; and on how many, temperature or dew point being among them.
Then the detector of slow drift is fed winter's other days in their order, 24 of them to learn from, and after them
spring and summer, or July alone: when it alarms, and of what. 100 windows are to lie between false alarms.

The bars: alarms on 5 % of winter's days, within chance, with what was learned; slow drift in neither winter's days nor
later than the twentieth day of what follows. Exits 1 where one is missed.
"""

import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np
from scipy import stats

from local.demo.drift.flights import COLUMNS, JULY, WINTER, read_flights
from shared.drift.inflation import inflations
from shared.drift.limits import Limits
from shared.drift.profiling import profile_of
from shared.drift.scoring import scored
from shared.drift.slow import SlowDrift
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile

INPUT = "flights"
REFERENCE_ROWS = 16_000
LEARNS, BETWEEN_FALSE_ALARMS, IN_TIME = 24, 100, 20
RATE, CHANCE = 0.05, 1e-2
CULPRITS = {"temp", "dewp"}

type Days = Mapping[int, FeatureCounts]


def main() -> None:
    """Look at every day of the year, and then at the days in their order."""
    flights, dates = read_flights(range(1, 13))
    days = np.unique(dates)
    winter = days[np.isin(days // 100, WINTER)]
    rows = np.random.default_rng(0).permutation(np.flatnonzero(np.isin(dates, winter[::2])))[:REFERENCE_ROWS]
    profile = profile_of({INPUT: flights.columns[rows]}, {}, names={INPUT: COLUMNS})
    if profile is None:
        sys.exit("there are too few flights for a profile")
    others = [int(day) for day in days if day not in winter[::2]]
    counted = {day: _counted(profile, flights.columns[dates == day]) for day in others}
    healthy = [day for day in others if day // 100 in WINTER]
    held = [_by_month(profile, counted, healthy), _in_order(profile, counted, healthy)]
    sys.exit(not all(held))


def _counted(profile: Profile, rows: np.ndarray) -> FeatureCounts:
    tally = FeatureTally(profile)
    tally.saw({INPUT: rows}, len(rows))
    return tally.take()


def _by_month(profile: Profile, counted: Days, healthy: Sequence[int]) -> bool:
    """Alarms of each day by itself. Whether winter's are as rare as they should be."""
    print("month  days | learned: alarm  of temp or dewp | not learned: alarm  of temp or dewp")
    of_winter = 0
    for month in range(1, 13):
        days = [day for day in counted if day // 100 == month]
        found = np.zeros(4, dtype=np.int64)
        for day in days:
            usual = inflations(profile, [counted[other] for other in healthy if other != day])
            for place, known in ((0, usual), (2, {})):
                scores = scored(profile, counted[day], Limits(), inflation=known)
                drifted = {score.feature.name for score in scores if score.drifted}
                found[place] += bool(drifted)
                found[place + 1] += bool(drifted & CULPRITS)
        of_winter += found[0] if month in WINTER else 0
        print(f"{month:>5}  {len(days):>4} | {found[0]:>14}  {found[1]:>15} | {found[2]:>18}  {found[3]:>15}")
    return bool(of_winter <= stats.binom.ppf(1 - CHANCE, len(healthy), RATE))


def _in_order(profile: Profile, counted: Days, healthy: Sequence[int]) -> bool:
    """Slow drift in the days' order. Whether winter is quiet, and what follows is found in time."""
    held = True
    for said, months in (("spring and summer", range(4, 9)), ("July alone", (JULY,))):
        following = [day for day in counted if day // 100 in months]
        detector, seen = SlowDrift(profile, mean_windows=BETWEEN_FALSE_ALARMS), list(healthy[:LEARNS])
        for day in [*healthy[LEARNS:], *following]:
            detector.add(
                counted[day], learned=[(datetime(2013, *divmod(one, 100), tzinfo=UTC), counted[one]) for one in seen]
            )
            seen.append(day)
            if detector.has_alarmed:
                break
        place = following.index(seen[-1]) + 1 if seen[-1] in following else 0
        held &= detector.has_alarmed and 1 <= place <= IN_TIME
        named = ", ".join(f"{name} ({moved})" for name, moved in detector.blamed) if detector.has_alarmed else "nothing"
        print(f"winter and then {said}: slow drift of {named} on {seen[-1]:04d}, day {place} after winter")
    return held


if __name__ == "__main__":
    main()
