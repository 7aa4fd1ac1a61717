"""What loading a large model costs the requests that another answers meanwhile: p99 while loading over p99 without.

Run `.venv/bin/python -m benchmarks.loading`. One model server over Azurite, closed-loop clients on kept-alive
connections to a small boosted-trees model; in every other round a model of 100 MB is published at another endpoint,
over and over, so that one is being loaded nearly all the time. Each pair of rounds gives a ratio; what is printed is
their median and spread, beside the bar. The server has one core, on which it loads as well, and the clients another;
run as root, both go before what else runs on the machine.
"""

import asyncio
import json
import os
import statistics
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
from local.state import StateDir
from local.system import AZURITE, SERVER, System
from shared.core.canonical import digest_of_bytes
from shared.routing.plan import Role, Route, RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

PAIRS, ROUND_S, CLIENTS = 5, 6.0, 4
P99_BAR = 1.25
LARGE = "large"


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


async def _round(url: str) -> list[float]:
    """Milliseconds of every request of a while."""
    latencies: list[float] = []
    row = load_breast_cancer().data[0].astype(np.float32).tolist()
    body = {"model": ENDPOINT, "features": [row]}
    stop = time.perf_counter() + ROUND_S

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=30) as connection:
            while time.perf_counter() < stop:
                began = time.perf_counter()
                answer = await connection.post("/predict", json=body)
                latencies.append((time.perf_counter() - began) * 1_000)
                answer.raise_for_status()

    await asyncio.gather(*[client() for _ in range(CLIENTS)])
    return latencies


async def _loading_round(url: str, blobs: AzureBlobs, large: bytes, generation: int) -> tuple[list[float], int]:
    """The same while the large model is loaded again and again; and the last generation that was published."""
    measured = asyncio.create_task(_round(url))
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while not measured.done():
            generation += 1
            await asyncio.to_thread(_published, blobs, LARGE, generation, large)
            served = 0
            while served < generation and not measured.done():
                await asyncio.sleep(0.05)
                endpoints = (await client.get("/ab-test/stats")).json()["endpoints"]
                served = endpoints.get(LARGE, {}).get("generation", 0)
    return await measured, generation


def _measure(system: System) -> dict[str, object]:
    url = system.server_url
    with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
        _published(blobs, ENDPOINT, 1, _models()[0])
        _wait(url, ENDPOINT)
        large = layers(3_000, 3).SerializeToString()
        _published(blobs, LARGE, 1, large)
        _wait(url, LARGE)
        asyncio.run(_round(url))
        ratios, generation = [], 1
        for _ in range(PAIRS):
            quiet = statistics.quantiles(asyncio.run(_round(url)), n=100)[98]
            before = generation
            latencies, generation = asyncio.run(_loading_round(url, blobs, large, generation))
            loading = statistics.quantiles(latencies, n=100)[98]
            ratios.append(loading / quiet)
            said = f"p99 {quiet:.2f} ms quiet, {loading:.2f} ms while loading {generation - before} times"
            print(f"{said}: {ratios[-1]:.2f}", file=sys.stderr)
    return {
        "large_mb": round(len(large) / 1e6),
        "p99_ratio_median": round(statistics.median(ratios), 3),
        "p99_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "p99_bar": P99_BAR,
    }


def main() -> None:
    """Measure, and print one JSON object."""
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {int(cores.load)})
    machine.prefer(os.getpid())
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        system = System(StateDir(Path(folder)), settings={SERVER: {"SLIPWAY_POLL_S": "0.1"}})
        system.state.create()
        try:
            system.start_part(AZURITE)
            os.sched_setaffinity(0, {int(cores.serve)})  # for what is started now
            system.start_part(SERVER)
            os.sched_setaffinity(0, {int(cores.load)})
            machine.prefer(system.pids()[SERVER])
            print(json.dumps(_measure(system)))
        finally:
            system.stop()


if __name__ == "__main__":
    main()
