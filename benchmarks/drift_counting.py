"""What it costs to count rows by a reference profile: time a row, and memory.

Run `.venv/bin/python -m benchmarks.drift_counting`. 10,000,000 rows of 50 features come in batches of 64, each with a
label and scores, as a server sees them; the bar is that memory grows by no more than 64 MB over all of it. Pictures
(3 x 64 x 64) and text are counted beside. Times are of the processor, one thread. Exits 1 where the bar is missed.
"""

import resource
import sys
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.drift.profiling import profile_of
from shared.telemetry.features import FeatureCounts
from shared.telemetry.featuretally import FeatureTally
from shared.telemetry.profile import Profile

ROWS, FEATURES, BATCH = 10_000_000, 50, 64
MAX_GROWTH_MB = 64.0

type Arrays = dict[str, NDArray[Any]]


def _profile(arrays: Arrays, outputs: tuple[str, ...]) -> Profile:
    inputs = {name: array for name, array in arrays.items() if name not in outputs}
    found = profile_of(inputs, {name: arrays[name] for name in outputs})
    if found is None:
        raise SystemExit("there are too few rows for a profile")
    return found


def _table(generator: np.random.Generator, rows: int) -> Arrays:
    table = generator.normal(size=(rows, FEATURES)).astype(np.float32)
    table[:, 3] = np.round(table[:, 3])
    table[generator.random((rows, FEATURES)) < 0.001] = np.nan
    scores = generator.dirichlet((1, 1, 1), rows).astype(np.float32)
    return {"x": table, "label": scores.argmax(axis=1), "scores": scores}


def _resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _count(profile: Profile, arrays: Arrays, rows: int, batch: int) -> tuple[FeatureCounts, float]:
    """So many rows, the arrays over and over; and the microseconds a row."""
    held = len(next(iter(arrays.values())))
    batches = [
        {name: array[start : start + batch] for name, array in arrays.items()} for start in range(0, held, batch)
    ]
    sizes = [min(batch, held - start) for start in range(0, held, batch)]
    tally, counted, at = FeatureTally(profile), 0, 0
    started = time.process_time()
    while counted < rows:
        tally.saw(batches[at], sizes[at])
        counted, at = counted + sizes[at], (at + 1) % len(batches)
    found = tally.take()
    return found, (time.process_time() - started) / counted * 1e6


def main() -> int:
    """Print cost and memory; 0 where the bar is met."""
    generator = np.random.default_rng(1)
    arrays = _table(generator, 64_000)
    profile = _profile(arrays, ("label", "scores"))
    _count(profile, arrays, 64_000, BATCH)
    before = _resident_mb()
    for batch in (1, 8):
        _, cost_us = _count(profile, arrays, 64_000, batch)
        print(f"{FEATURES} features, batches of {batch}: {cost_us:.2f} us a row")
    counts, cost_us = _count(profile, arrays, ROWS, BATCH)
    growth_mb = _resident_mb() - before
    print(f"{FEATURES} features, batches of {BATCH}: {cost_us:.2f} us a row over {counts.rows:,} rows")
    print(f"memory grew by {growth_mb:.1f} MB; a window is {len(counts.model_dump_json()):,} bytes of JSON")
    for name, wide in (
        ("pictures of 3 x 64 x 64", generator.random((256, 3, 64, 64)).astype(np.float32)),
        (
            "texts",
            np.array([f"{'word ' * int(n)}{at}" for at, n in enumerate(generator.integers(1, 60, 5_000))], object),
        ),
    ):
        answers = generator.normal(size=len(wide))
        one = {"wide": wide, "y": answers}
        _, cost_us = _count(_profile(one, ("y",)), one, 4 * len(wide), BATCH)
        print(f"{name}: {cost_us:.1f} us a row")
    held = growth_mb <= MAX_GROWTH_MB
    print("\nthe bar is met" if held else "\nthe bar is missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
