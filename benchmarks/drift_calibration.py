"""How often drift is said of windows without drift, and how often a real one is found; beside Evidently's defaults.

Run `.venv/bin/python -m benchmarks.drift_calibration [--quick] [--only PART]`. Features are of twelve kinds (normal,
correlated, heavy-tailed, skewed, mostly nought, counts, constant, with gaps, rare flags, rounded, hours).

The bar is an alarm in 5 % of windows without drift, from 100 to 1,000,000 rows, with each of the measures as the
alarm's effect at a limit of nothing, so that evidence alone decides; and in 5 % of windows that each have a level of
their own (an AR(1) process from window to window), the null being learned from 30 healthy windows, by the policy.
What evidence alone comes to there, and what no learned null comes to, is shown beside. Windows of a million rows take
long to draw row by row: so the counts of many windows are also drawn at once, as multinomials of shares that differ
from feature to feature. Exits 1 where a bar is missed by more than chance explains.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.drift_environments import EVIDENTLY, ask
from benchmarks.drift_traffic import Levels, reference_profile, rows_of, window_of
from benchmarks.serving.environments import EnvironmentMissingError
from shared.drift.inflation import inflations
from shared.drift.limits import MEASURES, Limits
from shared.drift.profiling import profile_of
from shared.drift.scoring import scored
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import ColumnSource, NumberFeature, Profile

type Alarms = NDArray[np.int64]

RATE, CHANCE = 0.05, 1e-4
REFERENCE_ROWS = 20_000
ANY = 1e-12
NOTHING = dict.fromkeys(MEASURES)
BY_MEASURE = {name: Limits(**{**NOTHING, name: ANY}) for name in MEASURES}
SIZES = {100: 400, 1_000: 300, 10_000: 120, 100_000: 60, 1_000_000: 21}
BESIDE = (
    (1_000, 100, 10),
    (1_000, 1_000, 10),
    (20_000, 100, 10),
    (20_000, 1_000, 10),
    (20_000, 10_000, 10),
    (20_000, 100_000, 5),
)
"""Rows of the reference and of a window, and windows."""
BESIDE_QUICK = ((1_000, 100, 5), (20_000, 100, 5))
_REFERENCES = 5
QUICK = {100: 60, 1_000: 60, 10_000: 20}


def _is_missed(alarms: int, trials: int) -> bool:
    return alarms > stats.binom.ppf(1 - CHANCE, trials, RATE)


def _alarms(profile: Profile, counts: FeatureCounts, limits: Limits, **known: object) -> bool:
    return any(score.drifted for score in scored(profile, counts, limits, **known))  # type: ignore[arg-type]


def _independent(generator: np.random.Generator, sizes: dict[int, int]) -> bool:
    print("independent rows: % of windows with an alarm, by the measure that is the effect, evidence alone deciding")
    print(f"features      rows windows | policy  {'  '.join(MEASURES)}")
    held = True
    for features in (12, 50):
        for rows, trials in sizes.items():
            trials = max(4, trials // 3) if features > 12 else trials  # noqa: PLW2901 - these cost four times as much
            found = dict.fromkeys(("policy", *MEASURES), 0)
            for _ in range(trials):
                # Each window has a reference of its own: with one for all, its chance would be counted again and again.
                profile = reference_profile(generator, REFERENCE_ROWS, features)
                counts = window_of(generator, profile, rows, features)
                for name, limits in (("policy", Limits()), *BY_MEASURE.items()):
                    found[name] += _alarms(profile, counts, limits)
            missed = any(_is_missed(alarms, trials) for alarms in found.values())
            held &= not missed
            shares = "  ".join(f"{alarms / trials:>{max(6, len(name))}.1%}" for name, alarms in found.items())
            print(f"{features:>8} {rows:>9} {trials:>7} | {shares}{'  above 5 %' if missed else ''}", flush=True)
    return held


def _drawn_at_once(generator: np.random.Generator, trials: int) -> bool:
    print(f"\ncounts drawn at once, 12 features: % of {trials} windows with an alarm")
    print("reference      rows | policy  evidence alone")
    held = True
    for before in (300, 10_000):
        for rows in SIZES:
            found = np.zeros(2, dtype=int)
            for _ in range(trials):
                shares = generator.dirichlet(np.full(10, 2.0), 12)
                profile = _profile_of(generator.multinomial(before, shares))
                zeros = np.zeros((12, 4), dtype=np.int64)
                cells = np.hstack([generator.multinomial(rows, shares), zeros]).ravel().tolist()
                counts = FeatureCounts(profile=profile.id, rows=rows, cells=cells)
                found += [_alarms(profile, counts, limits) for limits in (Limits(), BY_MEASURE["psi"])]
            missed = any(_is_missed(int(alarms), trials) for alarms in found)
            held &= not missed
            said = "  ".join(f"{alarms / trials:>7.1%}" for alarms in found)
            print(f"{before:>9} {rows:>9} | {said}{'  above 5 %' if missed else ''}", flush=True)
    return held


def _profile_of(bins: Alarms) -> Profile:
    """A profile of features with these counts, [features, bins], and none missing."""
    edges = tuple(map(float, range(bins.shape[1] - 1)))
    features = [
        NumberFeature(name=str(at), source=ColumnSource(input="x", place=at), edges=edges, counts=(*row, 0))
        for at, row in enumerate(bins.tolist())
    ]
    return Profile(rows=int(bins[0].sum()), features=tuple(features))


def _levelled(generator: np.random.Generator, repetitions: int) -> bool:
    print(
        "\nwindows with levels of their own, AR(1) of 0.6: % with an alarm, 30 healthy windows having been learned from"
    )
    print(
        "features  spread    rows windows | learned, policy   learned, evidence   not learned, policy   not, evidence"
    )
    held = True
    evidence = Limits(psi=ANY)
    for features in (12, 50):
        for spread in (0.1, 0.3):
            for rows in (300, 5_000):
                found, windows = np.zeros(4, dtype=int), 0
                for _ in range(repetitions if features == 12 else max(2, repetitions // 2)):
                    levels = Levels(generator=generator, features=features, spread=spread)
                    profile = reference_profile(generator, REFERENCE_ROWS, features, levels)
                    healthy = [window_of(generator, profile, rows, features, levels.next()) for _ in range(30)]
                    known = inflations(profile, healthy)
                    for _ in range(4):
                        counts = window_of(generator, profile, rows, features, levels.next())
                        windows += 1
                        found += [
                            _alarms(profile, counts, Limits(), inflation=known),
                            _alarms(profile, counts, evidence, inflation=known),
                            _alarms(profile, counts, Limits()),
                            _alarms(profile, counts, evidence),
                        ]
                missed = _is_missed(int(found[0]), windows)
                held &= not missed
                shares = "  ".join(f"{alarms / windows:>16.1%}" for alarms in found)
                print(
                    f"{features:>8} {spread:>7} {rows:>7} {windows:>7} | {shares}{'  above 5 %' if missed else ''}",
                    flush=True,
                )
    return held


def _beside_evidently(generator: np.random.Generator, sizes: Sequence[tuple[int, int, int]]) -> None:
    print("\nthe same windows, without drift and with one of 12 features moved by half a deviation: % with an alarm")
    print("reference      rows windows | no drift: ours  Evidently  its 'data set drift' | moved: ours  Evidently")
    for before, rows, trials in sizes:
        ours, said = np.zeros(2, dtype=int), []
        for _ in range(min(trials, _REFERENCES)):
            # Several references: the chance of one would be told again by every window.
            with tempfile.TemporaryDirectory() as folder:
                some = max(1, trials // _REFERENCES)
                ours += _compared(generator, Path(folder), before, rows, some)
                try:
                    said += ask(EVIDENTLY, folder)
                except EnvironmentMissingError as error:
                    print(f"Evidently could not be run: {error}")
                    return
        calm, moved, count = said[::2], said[1::2], len(said) // 2
        columns, whole = sum(one["columns"] > 0 for one in calm), sum(one["is_drifted"] for one in calm)
        found = sum(one["columns"] > 0 for one in moved)
        print(
            f"{before:>9} {rows:>9} {count:>7} | {ours[0] / count:>14.0%} {columns / count:>10.0%}"
            f" {whole / count:>21.0%} | {ours[1] / count:>11.0%} {found / count:>10.0%}",
            flush=True,
        )


def _compared(generator: np.random.Generator, folder: Path, before: int, rows: int, trials: int) -> Alarms:
    """Windows for Evidently in a folder, without drift and moved in turn; and our alarms on either."""
    reference = rows_of(generator, before, 12)
    np.save(folder / "reference.npy", reference)
    profile = profile_of({"x": reference}, {})
    if profile is None:
        raise ValueError("too few rows")
    ours = np.zeros(2, dtype=int)
    for at in range(2 * trials):
        window = rows_of(generator, rows, 12)
        window[:, 0] += 0.5 * (at % 2)
        np.save(folder / f"window-{at:06}.npy", window)
        tally = FeatureTally(profile)
        tally.saw({"x": window}, rows)
        ours[at % 2] += _alarms(profile, tally.take(), Limits())
    return ours


def _power(generator: np.random.Generator, trials: int) -> None:
    print(f"\none feature of twelve moved, in deviations: % of {trials} windows in which the policy's alarm names it")
    for rows in (100, 300, 1_000, 10_000):
        shares = []
        for shift in (0.25, 0.5, 0.75, 1.0):
            levels = np.zeros(12)
            levels[11] = shift
            found = 0
            for _ in range(trials):
                profile = reference_profile(generator, REFERENCE_ROWS, 12)
                scores = scored(profile, window_of(generator, profile, rows, 12, levels), Limits())
                found += scores[11].drifted
            shares.append(f"{shift}: {found / trials:.0%}")
        print(f"{rows:>9} rows | {'   '.join(shares)}", flush=True)


def main() -> int:
    """Run all; 0 where the bars are met."""
    parser = argparse.ArgumentParser(description="How often drift is said where there is none.")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller windows")
    parts = ("independent", "at-once", "levels", "power", "evidently")
    parser.add_argument("--only", choices=parts, action="append", help="these parts alone")
    asked = parser.parse_args()
    quick, only = asked.quick, asked.only or parts
    generator = np.random.default_rng(7)
    held = "independent" not in only or _independent(generator, QUICK if quick else SIZES)
    held &= "at-once" not in only or _drawn_at_once(generator, 60 if quick else 250)
    held &= "levels" not in only or _levelled(generator, 5 if quick else 40)
    if "power" in only:
        _power(generator, 10 if quick else 40)
    if "evidently" in only:
        _beside_evidently(generator, BESIDE_QUICK if quick else BESIDE)
    print("\nthe bars are met" if held else "\na bar is missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
