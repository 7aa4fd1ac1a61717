"""What loading large models costs the requests that another answers meanwhile: p99 while loading over p99 without.

Run `.venv/bin/python -m benchmarks.loading`. One model server over Azurite, requests at a constant rate to a small
boosted-trees model; at the begin of every other round a model of 100 MB is published at ENDPOINTS other endpoints at
once, so that one after the other is loaded, swapped and unloaded all through the round. Storage stands still in all
rounds, once the plans are taken: the files are in the server's cache, and it would take from either core. Each pair of
rounds gives a ratio; what is printed is their median and spread, beside the bar. The server has one core, on which it
loads as well, and who asks another; run as root, both go before what else runs on the machine.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from functools import cache
from pathlib import Path

import httpx
import numpy as np
from sklearn.datasets import load_breast_cancer

from benchmarks.hot_swap import ENDPOINT, _models
from benchmarks.models import layers
from benchmarks.serving import machine
from benchmarks.serving.machine import Cores
from benchmarks.serving.wire import Message, save
from local.state import StateDir
from local.system import AZURITE, REPOSITORY, SERVER, System
from shared.core.canonical import digest_of_bytes
from shared.routing.plan import Role, Route, RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

PAIRS, ROUND_S, RATE, CONNECTIONS = 7, 6, 2_000, 16
P99_BAR = 1.25
ENDPOINTS = 14
"""More loads than a round has time for."""
POLL_S, SETTLED_S = 0.5, 1.0


@cache
def _digest(model: bytes) -> str:
    """Found once: of a large model it would keep the clients' processor for longer than the server's load does."""
    return digest_of_bytes(model)


def _published(blobs: AzureBlobs, endpoint: str, generation: int, model: bytes, *, is_new: bool | None = None) -> None:
    """Publish a plan with a model, which is new where `is_new`, else with the first generation."""
    digest = _digest(model)
    if generation == 1 if is_new is None else is_new:
        blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(digest), model)
    route = Route(version=generation, role=Role.STABLE, weight_bp=10_000, artifact_digest=digest, size_bytes=len(model))
    plan = RoutePlan(endpoint=endpoint, generation=generation, salt="", routes=(route,)).model_dump_json().encode()
    found = blobs.info(BlobContainer.ROUTES, plan_blob_name(endpoint))
    if found is None:
        blobs.create(BlobContainer.ROUTES, plan_blob_name(endpoint), plan)
    else:
        blobs.replace(BlobContainer.ROUTES, plan_blob_name(endpoint), plan, etag=found.etag)


def _wait(url: str, endpoint: str) -> None:
    while httpx.get(f"{url}/v2/models/{endpoint}/ready").status_code != httpx.codes.OK:
        time.sleep(0.05)


def _round(url: str, requests: Path, storage: int) -> tuple[float, float]:
    """Send at a constant rate for a while, with storage (its process id) at a standstill: the p99 in milliseconds, each
    counted from when it was due, and that of how long after that it was sent, which is the generator's own part.
    """
    where = [str(httpx.URL(url).port), str(requests), str(RATE), str(ROUND_S), str(CONNECTIONS)]
    command = [sys.executable, "-m", "benchmarks.serving.openloop", *where]
    machine.freeze(storage)
    try:
        ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    finally:
        machine.thaw(storage)
    found: dict[str, float] = json.loads(ended.stdout)
    if found["failed"]:
        raise RuntimeError(f"{found['failed']:.0f} requests failed: see the server's log")
    return found["p99_ms"], found["lag_p99_ms"]


class _Large:
    """A large model, which is loaded anew at some endpoints whenever it is published again."""

    def __init__(self, url: str, blobs: AzureBlobs, model: bytes) -> None:
        self._url = url
        self._blobs = blobs
        self._model = model
        self._names = [f"large-{number}" for number in range(ENDPOINTS)]
        self._generation = 0

    def publish(self) -> None:
        """Have it loaded at each of them, and return when their plans were taken."""
        self._generation += 1
        for name in self._names:
            is_new = self._generation == 1 and name == self._names[0]
            _published(self._blobs, name, self._generation, self._model, is_new=is_new)
        time.sleep(2 * POLL_S)

    def loaded(self) -> int:
        """How many have it by now."""
        endpoints = httpx.get(f"{self._url}/ab-test/stats").json()["endpoints"]
        return sum(endpoints.get(name, {}).get("generation", 0) == self._generation for name in self._names)

    def wait(self) -> None:
        """Until all have it."""
        while self.loaded() < ENDPOINTS:
            time.sleep(0.2)
        time.sleep(SETTLED_S)


def _measure(system: System, folder: Path) -> dict[str, object]:
    url, storage = system.server_url, system.pids()[AZURITE]
    row = load_breast_cancer().data[0].astype(np.float32).tolist()
    body = json.dumps({"model": ENDPOINT, "features": [row]}).encode()
    message = Message(path="/predict", content_type="application/json", body=body)
    requests = folder / "requests.http"
    save([message.http1(httpx.URL(url).port or 80)], requests)
    with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
        _published(blobs, ENDPOINT, 1, _models()[0])
        _wait(url, ENDPOINT)
        model = layers(3_000, 3).SerializeToString()
        large = _Large(url, blobs, model)
        large.publish()
        large.wait()
        _round(url, requests, storage)
        ratios, loads = [], []
        for _ in range(PAIRS):
            quiet, _ = _round(url, requests, storage)
            large.publish()
            loading, lag = _round(url, requests, storage)
            loads.append(large.loaded())
            if not 0 < loads[-1] < ENDPOINTS:
                raise RuntimeError(f"{loads[-1]} of {ENDPOINTS} models were loaded by the end of a round, wanted some")
            large.wait()
            ratios.append(loading / quiet)
            said = f"p99 {quiet:.2f} ms quiet, {loading:.2f} ms while loading, {loads[-1]} loaded"
            print(f"{said}: {ratios[-1]:.2f} (the generator lagged by {lag:.2f} ms)", file=sys.stderr)
    return {
        "large_mb": round(len(model) / 1e6),
        "loads": loads,
        "p99_ratio_median": round(statistics.median(ratios), 3),
        "p99_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "p99_bar": P99_BAR,
    }


def main() -> None:
    """Measure, and print one JSON object."""
    cores = Cores.of_this_machine()
    machine.prefer(os.getpid())
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        system = System(StateDir(Path(folder)), settings={SERVER: {"SLIPWAY_POLL_S": str(POLL_S)}})
        system.state.create()
        try:
            system.start_part(AZURITE)
            os.sched_setaffinity(0, {int(cores.serve)})  # for what is started now
            system.start_part(SERVER)
            os.sched_setaffinity(0, {int(cores.load)})
            machine.prefer(system.pids()[SERVER])
            print(json.dumps(_measure(system, Path(folder))))
        finally:
            system.stop()


if __name__ == "__main__":
    main()
