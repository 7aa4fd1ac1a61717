"""A day of 100,000,000 predictions in 50 features, from blob storage: fetched, merged, scored, ranked.

Run `.venv/bin/python -m benchmarks.drift_day`. Storage is Azurite, beside this process on the same machine. 100 pods
write a window a minute each, 144,000 a day, of 695 rows. What is fetched are **roll-ups**, not these windows: the timer
adds them to their hour's as they come, which is timed here for one whole hour of 6,000 windows, of the store as well.
The other hours' roll-ups are sums of as many such windows, made here. "The day" is the 24 roll-ups; "with its history"
what an hourly report reads besides, to learn what is usual: those of the days and hours before. Exits 1 where the bar
of 2 s for the day is missed in any of the rounds.
"""

import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from benchmarks.drift_traffic import reference_profile, window_of
from local.azurite import Azurite
from shared.drift.inflation import inflations
from shared.drift.limits import Limits
from shared.drift.ranking import ranked
from shared.drift.scoring import scored, verdict_of
from shared.drift.sides import check_counts
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer
from shared.telemetry.features import FeatureCounts, FeatureWindow, feature_window_blob_name
from shared.telemetry.names import MINUTE
from shared.telemetry.profile import Profile
from shared.watching.gathering import read_history
from shared.watching.merging import roll_up_hour
from shared.watching.rollups import DAY, HOUR, ROLLUPS, FeatureRollup, daily_name, hourly_name, read_rollups

ROWS, FEATURES, ROUNDS = 100_000_000, 50, 5
PODS, MINUTES, HOURS = 100, 60, 24
WINDOWS = PODS * MINUTES
"""Of an hour."""
DRAWN = 32
"""Windows that are drawn row by row; all others are like one of them."""
BAR_S = 2.0
UNTIL = datetime(2026, 11, 21, tzinfo=UTC)
KEY = "3:stable"


def _write_hour(blobs: AzureBlobs, hour: datetime, some: Sequence[FeatureCounts]) -> None:
    """Write each pod's windows of an hour, as the pods do."""

    def write(number: int) -> None:
        minute, pod = divmod(number, PODS)
        ended_at, name = hour + MINUTE * minute + timedelta(seconds=30), f"pod-{pod:04d}-5f3a9c"
        window = FeatureWindow(
            endpoint="m",
            pod=name,
            sequence=minute,
            started_at=ended_at - MINUTE,
            ended_at=ended_at,
            versions={KEY: some[number % DRAWN]},
        )
        blob = feature_window_blob_name("m", ended_at, name, minute)
        blobs.create(BlobContainer.TELEMETRY, blob, window.model_dump_json().encode())

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, range(WINDOWS)))


def _roll_up(blobs: AzureBlobs, profile: Profile, hour: datetime) -> str:
    """Add an hour's windows to its roll-up, as the timer does; what it took."""
    started, before = time.perf_counter(), time.process_time()
    rolled = roll_up_hour(blobs, "m", hour, check=lambda counts: check_counts(profile, counts), most=WINDOWS)
    took_s, processor_s = time.perf_counter() - started, time.process_time() - before
    if rolled.added != WINDOWS:
        raise ValueError(f"{rolled.added} windows went into the roll-up, and {WINDOWS} were written")
    return f"{rolled.added:,} windows into an hour's roll-up: {took_s:.1f} s, {processor_s:.1f} s of this process's"


def _store(blobs: AzureBlobs, name: str, since: datetime, length: timedelta, like: FeatureRollup, hours: int) -> None:
    """A roll-up like another, of so many of its hours."""
    counts = FeatureCounts.sum_of([like.versions[KEY]] * hours)
    rollup = like.model_copy(
        update={
            "since": since,
            "until": since + length,
            "windows": like.windows * hours,
            "versions": {KEY: counts},
            "asked": {KEY: counts.rows},
        }
    )
    blobs.create(ROLLUPS, name, rollup.model_dump_json().encode())


def _hour_like(first: FeatureRollup, some: Sequence[FeatureCounts], generator: np.random.Generator) -> FeatureRollup:
    """A roll-up of as many windows, drawn anew."""
    parts = [some[at] for at in generator.integers(0, DRAWN, WINDOWS)]
    return first.model_copy(update={"versions": {KEY: FeatureCounts.sum_of(parts)}})


def _day(blobs: AzureBlobs, profile: Profile) -> tuple[float, str, int, int]:
    started = time.perf_counter()
    rollups = read_rollups(blobs, [hourly_name("m", UNTIL - HOUR * hour) for hour in range(HOURS, 0, -1)])
    hours = [rollup.versions[KEY] for rollup in rollups]
    day = FeatureCounts.sum_of(hours)
    scores = scored(profile, day, Limits(), inflation=inflations(profile, hours))
    ranked(scores)
    said = verdict_of(scores, rows=day.rows, limits=Limits()).sentence
    return time.perf_counter() - started, said, day.rows, sum(rollup.windows for rollup in rollups)


def _with_history(blobs: AzureBlobs, profile: Profile) -> float:
    started = time.perf_counter()
    history = read_history(blobs, "m", DAY, UNTIL)
    day = FeatureCounts.sum_of(list(history.hours(KEY).values()))
    ranked(scored(profile, day, Limits(), inflation=inflations(profile, history.healthy(KEY, ()))))
    return time.perf_counter() - started


def main() -> int:
    """Print the times; 0 where the bar is met."""
    generator = np.random.default_rng(11)
    profile = reference_profile(generator, 20_000, FEATURES)
    rows = -(-ROWS // (WINDOWS * HOURS))
    some = [window_of(generator, profile, rows, FEATURES) for _ in range(DRAWN)]
    with (
        tempfile.TemporaryDirectory() as folder,
        Azurite(log_path=Path(folder) / "log") as azurite,
        closing(AzureBlobs.from_connection_string(azurite.connection_string)) as blobs,
    ):
        blobs.ensure_containers()
        _write_hour(blobs, UNTIL - HOUR, some)
        print(_roll_up(blobs, profile, UNTIL - HOUR), flush=True)
        (first,) = read_rollups(blobs, [hourly_name("m", UNTIL - HOUR)])
        likes = [_hour_like(first, some, generator) for _ in range(8)]
        for hour in range(2, HOURS * 4 + 1):
            since = UNTIL - HOUR * hour
            _store(blobs, hourly_name("m", since), since, HOUR, likes[hour % len(likes)], 1)
        for number in range(1, 32):
            since = UNTIL - DAY * number
            _store(blobs, daily_name("m", since), since, DAY, likes[number % len(likes)], HOURS)
        days = [_day(blobs, profile) for _ in range(ROUNDS)]
        histories = [_with_history(blobs, profile) for _ in range(ROUNDS)]
    seconds = sorted(day[0] for day in days)
    _, said, of_rows, of_windows = days[0]
    print(
        f"the day, 24 roll-ups of {of_windows:,} windows and {of_rows:,} rows ({said}): {seconds[ROUNDS // 2]:.2f} s, "
        f"at most {seconds[-1]:.2f} s"
    )
    print(f"with its history: {sorted(histories)[ROUNDS // 2]:.2f} s, at most {max(histories):.2f} s")
    held = seconds[-1] <= BAR_S
    print("the bar is met" if held else "the bar is missed")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
