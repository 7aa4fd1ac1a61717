"""A day of 100,000,000 predictions in 50 features: its windows read, merged and scored; beside peers on raw rows.

Run `.venv/bin/python -m benchmarks.drift_speed [--without-peers]`. Windows are JSON in files: 24 hourly roll-ups, and
the 24 windows of each of 100 pods, which nobody has rolled up. How many rows they stand for changes nothing, so each is
the counts of some thousand rows, times so many. The bar is 2 s for the day. Evidently's DataDriftPreset and NannyML's
univariate calculator, as they come, are given 10,000 and 100,000 raw rows in 50 features, and as many for reference.
Exits 1 where the bar is missed.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.drift_environments import EVIDENTLY, NANNYML, ask
from benchmarks.drift_traffic import reference_profile, rows_of, window_of
from benchmarks.serving.environments import EnvironmentMissingError
from shared.drift.inflation import inflations
from shared.drift.limits import Limits
from shared.drift.ranking import ranked
from shared.drift.scoring import scored, verdict_of
from shared.telemetry.features import FeatureCounts
from shared.telemetry.profile import Profile

ROWS, FEATURES, HOURS = 100_000_000, 50, 24
BAR_S = 2.0
_COUNTED = 5_000


def _times(counts: FeatureCounts, times: int) -> FeatureCounts:
    return FeatureCounts(
        profile=counts.profile, rows=counts.rows * times, cells=[cell * times for cell in counts.cells]
    )


def _written(folder: Path, generator: np.random.Generator, profile: Profile, pods: int) -> None:
    some = [window_of(generator, profile, _COUNTED, FEATURES) for _ in range(8)]
    times = ROWS // (_COUNTED * pods * HOURS) + 1
    for at in range(pods * HOURS):
        (folder / f"{at:06}.json").write_text(_times(some[at % len(some)], times).model_dump_json())


def _read_and_scored(folder: Path, profile_json: bytes) -> tuple[str, int, float, float]:
    started = time.perf_counter()
    profile = Profile.model_validate_json(profile_json)
    windows = [FeatureCounts.model_validate_json(path.read_bytes()) for path in sorted(folder.iterdir())]
    read_s = time.perf_counter() - started
    day = FeatureCounts.sum_of(windows)
    scores = scored(profile, day, Limits(), inflation=inflations(profile, windows))
    ranked(scores)
    said = verdict_of(scores, rows=day.rows, limits=Limits()).sentence
    return said, day.rows, read_s, time.perf_counter() - started


def _peers(generator: np.random.Generator) -> None:
    for rows in (10_000, 100_000):
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "reference.npy", rows_of(generator, rows, FEATURES))
            np.save(Path(folder) / "window-0.npy", rows_of(generator, rows, FEATURES))
            for peer in (EVIDENTLY, NANNYML):
                try:
                    (said,) = ask(peer, folder)
                except EnvironmentMissingError as error:
                    print(f"{peer.title}, {rows:,} raw rows: could not be run: {error}", flush=True)
                else:
                    print(f"{peer.title}, {rows:,} raw rows: {said['seconds']:.1f} s", flush=True)


def main() -> int:
    """Print the times; 0 where the bar is met."""
    parser = argparse.ArgumentParser(description="A day of 100,000,000 predictions, scored.")
    parser.add_argument("--without-peers", action="store_true")
    without_peers = parser.parse_args().without_peers
    generator = np.random.default_rng(11)
    profile = reference_profile(generator, 20_000, FEATURES)
    slowest = 0.0
    for pods, name in ((1, "24 hourly roll-ups"), (100, "2,400 windows of 100 pods")):
        with tempfile.TemporaryDirectory() as folder:
            _written(Path(folder), generator, profile, pods)
            size_mb = sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6
            _read_and_scored(Path(folder), profile.model_dump_json().encode())
            said, rows, read_s, whole_s = _read_and_scored(Path(folder), profile.model_dump_json().encode())
        slowest = max(slowest, whole_s)
        print(
            f"{name}, {rows:,} rows, {size_mb:.1f} MB: {whole_s:.2f} s, of which reading took {read_s:.2f} s ({said})"
        )
    print(f"memory at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
    if not without_peers:
        _peers(generator)
    held = slowest <= BAR_S
    print("\nthe bar is met" if held else "\nthe bar is missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
