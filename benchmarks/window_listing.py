"""What a call that runs each minute lists and reads at many pods, from Azurite beside this process.

Run `.venv/bin/python -m benchmarks.window_listing [PODS]`. Pods write a window every five seconds. Stored are those of
the newest minutes, which is all that a call lists that keeps up; then a minute's windows are read and counted. Scaled
to 1,000 pods, by how many names and windows there are, and held beside a call that lists the hour whole.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

from local.azurite import Azurite
from shared.budgets.sums import RequestSums, counted
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer
from shared.telemetry.evidence import windows_after
from shared.telemetry.names import CLOCK_SKEW, HOUR, MINUTE, prefixes
from shared.telemetry.window import VersionCounts, Window, window_blob_name

EVERY_S, MANY = 5, 1_000
NOW = datetime(2026, 11, 21, 8, 30, tzinfo=UTC)


def _store(blobs: AzureBlobs, pods: int) -> tuple[int, dict[str, int]]:
    """Store the windows of the newest minutes; how many, and the marks of one that read all but the last minute's."""
    first = NOW - CLOCK_SKEW - MINUTE
    number = int((NOW - first) / timedelta(seconds=EVERY_S))
    per_minute = 60 // EVERY_S

    def write(place: tuple[int, int]) -> None:
        pod, sequence = place
        at = first + timedelta(seconds=EVERY_S * sequence)
        window = Window(
            endpoint="m",
            pod=f"pod-{pod:04d}-5f3a9c",
            sequence=sequence,
            generation=1,
            started_at=at,
            ended_at=at,
            loaded=[1],
            versions={1: VersionCounts(requests=50, latency_ms=dict.fromkeys(range(10), 5))},
        )
        name = window_blob_name("m", at, window.pod, sequence)
        blobs.create(BlobContainer.TELEMETRY, name, window.model_dump_json().encode())

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(write, [(pod, sequence) for sequence in range(number) for pod in range(pods)]))
    return number * pods, {f"pod-{pod:04d}-5f3a9c": number - per_minute - 1 for pod in range(pods)}


def main(pods: int) -> int:
    """Print the figures."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Azurite(log_path=Path(folder) / "log") as azurite,
        closing(AzureBlobs.from_connection_string(azurite.connection_string)) as blobs,
    ):
        blobs.ensure_containers()
        stored, marks = _store(blobs, pods)
        started = time.perf_counter()
        asked = prefixes("m", NOW - MINUTE - CLOCK_SKEW, NOW + CLOCK_SKEW)
        listed = sum(1 for prefix in asked for _ in blobs.list(BlobContainer.TELEMETRY, prefix))
        list_s = time.perf_counter() - started
        started, began_cpu = time.perf_counter(), time.process_time()
        sums = RequestSums(endpoint="m", since=NOW - HOUR, whole_at=NOW - MINUTE)
        read = list(windows_after(blobs, "m", marks, NOW - 3 * HOUR, NOW, recent=NOW - MINUTE))
        sums = counted(sums, read, NOW, is_all=True)
        whole_s, cpu_s = time.perf_counter() - started, time.process_time() - began_cpu
    times, hour = MANY / pods, MANY * 3600 // EVERY_S
    requests = sum(one.requests for one in sums.hours.values())
    print(f"{pods} pods: {stored:,} windows stored; {listed:,} names listed in {list_s:.2f} s")
    print(f"{len(read):,} windows ({requests:,} requests) listed, read and counted in {whole_s:.2f} s")
    print(f"at {MANY} pods: {listed * times:,.0f} names, {list_s * times:.1f} s;", end=" ")
    print(f"with reading {whole_s * times:.1f} s, of which this process computed for {cpu_s * times:.1f} s")
    print(f"the hour whole: up to {hour:,} names, {list_s / listed * hour:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100))
