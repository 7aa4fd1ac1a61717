"""How often two like versions are said to differ in a whole rollout, and how soon a real difference is found.

Run `.venv/bin/python -m benchmarks.drift_concurrent [--quick]`. Each subject keeps its version and has levels of its
own in twelve features, so that few subjects of one version differ from few of the other however alike the versions are.
A rollout lasts three days with a span of one, and is looked at every four hours by what the service itself compares
with (shared.watching.beside). The bar is an alarm at any look of 5 % of rollouts, evidence alone deciding: the limits
on the effect at nothing. Beside it, the same rollouts as if no request had named its subject. Exits 1 where the bar is
missed by more than chance explains.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shared.core.verdict import Outcome
from shared.drift.profiling import profile_of
from shared.registry.drift_policy import DriftPolicy
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile
from shared.telemetry.subjects import grouped
from shared.watching.beside import Beside, compare
from shared.watching.gathering import stretch

type Table = NDArray[np.float64]
type Hours = dict[datetime, FeatureCounts]

RATE, CHANCE = 0.05, 1e-3
FEATURES, HOURS, EVERY_H = 12, 72, 4
SPAN = timedelta(hours=24)
BEGUN = datetime(2026, 11, 21, tzinfo=UTC)
EVIDENCE = DriftPolicy(psi=1e-9, unusable=1e-9)
POLICY = DriftPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Of one version: so many subjects, 0 for requests that name none, with so many rows an hour together.

    `alike` is the share of a row's variance that is its subject's; `heavy`: few subjects ask for most.
    """

    subjects: int
    rows: int
    alike: float = 1.0
    heavy: bool = False

    def hours(self, generator: np.random.Generator, profile: Profile, hours: int, *, moved: float = 0.0) -> Hours:
        """What a pod would have counted."""
        count = max(1, self.subjects)
        levels = generator.normal(size=(count, FEATURES)) * np.sqrt(self.alike if self.subjects else 0.0)
        names = [f"{generator.integers(2**60)}" for _ in range(count)]
        shares = generator.pareto(1.2, count) + 0.1 if self.heavy else np.ones(count)
        found = {}
        for hour in range(hours):
            who = generator.choice(count, self.rows, p=shares / shares.sum())
            table = levels[who] + generator.normal(size=(self.rows, FEATURES)) * np.sqrt(
                1 - (self.alike if self.subjects else 0.0)
            )
            table[:, 0] += moved
            tally = FeatureTally(profile)
            tally.saw({"x": table}, self.rows)
            tally.fold()
            if self.subjects:
                asked, times = np.unique(who, return_counts=True)
                tally.asked_by(grouped([names[one] for one in asked], times.tolist()))
            found[BEGUN + timedelta(hours=hour)] = tally.take()
        return found


A_A = (
    Traffic(subjects=20, rows=1_000),
    Traffic(subjects=50, rows=250, heavy=True),
    Traffic(subjects=100, rows=20),
    Traffic(subjects=100, rows=1_000, alike=0.5),
    Traffic(subjects=300, rows=300, heavy=True),
    Traffic(subjects=1_000, rows=100),
    Traffic(subjects=1_000, rows=2_000),
    Traffic(subjects=0, rows=20),
)
A_A_QUICK = A_A[0], A_A[2], A_A[7]


def alarms(profile: Profile, own: Hours, stables: Hours, policy: DriftPolicy) -> Iterator[tuple[int, bool]]:
    """Each look, by the hours that had gone by, and whether it failed."""
    for passed in range(EVERY_H, len(own) + 1, EVERY_H):
        until = BEGUN + timedelta(hours=passed)
        since, part = stretch(BEGUN, SPAN, until)
        compared, hours = ({at: one for at, one in side.items() if since <= at < until} for side in (own, stables))
        beside = Beside(version=1, profile=profile, compared=compared, hours=hours, part=part)
        yield passed, compare(2, profile, beside, policy).verdict.outcome is Outcome.FAIL


def _of_nobody(hours: Hours) -> Hours:
    return {at: counts.model_copy(update={"subjects": []}) for at, counts in hours.items()}


def _is_missed(count: int, trials: int) -> bool:
    return bool(count > stats.binom.ppf(1 - CHANCE, trials, RATE))


def _profile(generator: np.random.Generator) -> Profile:
    found = profile_of({"x": generator.normal(size=(20_000, FEATURES))}, {})
    if found is None:
        raise ValueError("too few rows")
    return found


def _like(generator: np.random.Generator, profile: Profile, traffics: tuple[Traffic, ...], trials: int) -> bool:
    print(
        f"two like versions: % of {trials} rollouts of {HOURS} hours with an alarm at any of {HOURS // EVERY_H} looks"
    )
    print("subjects  rows an hour  their share  heavy | evidence alone   policy   as if of nobody, policy")
    held = True
    for traffic in traffics:
        found = np.zeros(3, dtype=int)
        for _ in range(trials):
            own, stables = (traffic.hours(generator, profile, HOURS) for _ in range(2))
            by_evidence = any(is_alarm for _, is_alarm in alarms(profile, own, stables, EVIDENCE))
            found += [
                by_evidence,
                by_evidence and any(is_alarm for _, is_alarm in alarms(profile, own, stables, POLICY)),
                any(is_alarm for _, is_alarm in alarms(profile, _of_nobody(own), _of_nobody(stables), POLICY)),
            ]
        missed = _is_missed(int(found[0]), trials)
        held &= not missed
        shares = "  ".join(f"{count / trials:>12.0%}" for count in found)
        print(
            f"{traffic.subjects:>8} {traffic.rows:>13} {traffic.alike:>12} {traffic.heavy!s:>6} | {shares}"
            f"{'  above 5 %' if missed else ''}",
            flush=True,
        )
    return held


def _moved(generator: np.random.Generator, profile: Profile, subjects: tuple[int, ...], trials: int) -> None:
    print(f"\none feature of the candidate moved: median hours until the policy's alarm, of {trials}, within a day")
    for count in subjects:
        traffic = Traffic(subjects=count, rows=max(500, count), alike=0.5)
        said = []
        for moved in (0.5, 0.75, 1.0, 2.0):
            hours = []
            for _ in range(trials):
                own = traffic.hours(generator, profile, 24, moved=moved)
                looks = alarms(profile, own, traffic.hours(generator, profile, 24), POLICY)
                hours.append(next((passed for passed, is_alarm in looks if is_alarm), None))
            seen = sorted(one for one in hours if one is not None)
            when = f"{seen[len(seen) // 2]} h" if seen else "-"
            said.append(f"{moved}: {len(seen) / trials:.0%} {when}")
        print(f"{count:>8} subjects | {'   '.join(said)}", flush=True)


def main() -> int:
    """Run all; 0 where the bar is met."""
    parser = argparse.ArgumentParser(description="Like versions and unlike ones, over whole rollouts.")
    parser.add_argument("--quick", action="store_true", help="fewer rollouts")
    parser.add_argument("--trials", type=int, default=40, help="rollouts of each kind")
    asked = parser.parse_args()
    generator = np.random.default_rng(11)
    profile = _profile(generator)
    trials = 10 if asked.quick else asked.trials
    held = _like(generator, profile, A_A_QUICK if asked.quick else A_A, trials)
    _moved(generator, profile, (300,) if asked.quick else (100, 300, 1_000, 10_000), 5 if asked.quick else 10)
    print("\nthe bar is met" if held else "\nthe bar is missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
