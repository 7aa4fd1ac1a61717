"""What a hot swap costs the requests that run meanwhile: p99 with swaps over p99 without, in interleaved rounds.

Run `.venv/bin/python -m benchmarks.hot_swap`. One model server over Azurite, closed-loop clients on kept-alive
connections, a small boosted-trees model. Each pair of rounds gives a ratio; what is printed is their median and spread.
The peer is the same server without swaps, in the same run.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier

from local.state import StateDir
from local.system import AZURITE, SERVER, System
from shared.core.canonical import digest_of_bytes
from shared.routing.plan import Role, Route, RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

ENDPOINT = "churn"
PAIRS, SWAPS_A_ROUND, ROUND_S, CLIENTS = 5, 10, 6.0, 8


def _models() -> list[bytes]:
    data = load_breast_cancer()
    features = data.data.astype(np.float32)
    return [
        bytes(
            to_onnx(
                GradientBoostingClassifier(n_estimators=50, random_state=seed, subsample=0.8).fit(
                    features, data.target
                ),
                features[:1],
                options={"zipmap": False},
            ).SerializeToString()
        )
        for seed in range(5)
    ]


class _Publisher:
    def __init__(self, blobs: AzureBlobs, models: list[bytes]) -> None:
        self._blobs = blobs
        self._models = models
        self._etag = ""
        self.generation = 0
        for model in models:
            blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(digest_of_bytes(model)), model)

    def swap(self) -> None:
        """Publish a plan with another version."""
        self.generation += 1
        model = self._models[self.generation % len(self._models)]
        route = Route(
            version=self.generation,
            role=Role.STABLE,
            weight_bp=10_000,
            artifact_digest=digest_of_bytes(model),
            size_bytes=len(model),
        )
        plan = RoutePlan(endpoint=ENDPOINT, generation=self.generation, salt="", routes=(route,))
        data = plan.model_dump_json().encode()
        if self.generation == 1:
            self._blobs.create(BlobContainer.ROUTES, plan_blob_name(ENDPOINT), data)
            found = self._blobs.info(BlobContainer.ROUTES, plan_blob_name(ENDPOINT))
            self._etag = found.etag if found else ""
        else:
            replaced = self._blobs.replace(BlobContainer.ROUTES, plan_blob_name(ENDPOINT), data, etag=self._etag)
            self._etag = replaced.etag


async def _round(url: str, swap: Callable[[], None] | None) -> tuple[float, int, int]:
    """Load the server for a while; the p99 in milliseconds, the number of requests, and how many failed."""
    latencies: list[float] = []
    failed = 0
    body = {"features": [load_breast_cancer().data[0].tolist()]}
    stop = time.perf_counter() + ROUND_S

    async def client() -> None:
        nonlocal failed
        async with httpx.AsyncClient(base_url=url, timeout=30) as connection:
            while time.perf_counter() < stop:
                began = time.perf_counter()
                answer = await connection.post("/predict", json=body)
                latencies.append((time.perf_counter() - began) * 1_000)
                failed += answer.status_code != httpx.codes.OK

    async def swapper() -> None:
        for _ in range(SWAPS_A_ROUND if swap else 0):
            if swap:
                await asyncio.to_thread(swap)
            await asyncio.sleep(ROUND_S / SWAPS_A_ROUND)

    await asyncio.gather(*[client() for _ in range(CLIENTS)], swapper())
    return statistics.quantiles(latencies, n=100)[98], len(latencies), failed


def _measure(system: System) -> dict[str, object]:
    with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
        publisher = _Publisher(blobs, _models())
        publisher.swap()
        while httpx.get(f"{system.server_url}/v2/models/{ENDPOINT}/ready").status_code != httpx.codes.OK:
            time.sleep(0.1)
        asyncio.run(_round(system.server_url, None))
        ratios, requests, failed = [], 0, 0
        for _ in range(PAIRS):
            quiet, quiet_count, quiet_failed = asyncio.run(_round(system.server_url, None))
            swapping, count, swap_failed = asyncio.run(_round(system.server_url, publisher.swap))
            ratios.append(swapping / quiet)
            requests += quiet_count + count
            failed += quiet_failed + swap_failed
            print(f"p99 {quiet:.2f} ms quiet, {swapping:.2f} ms swapping: {ratios[-1]:.2f}", file=sys.stderr)
    return {
        "swaps": PAIRS * SWAPS_A_ROUND,
        "requests": requests,
        "failed": failed,
        "p99_ratio_median": round(statistics.median(ratios), 3),
        "p99_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def main() -> None:
    """Measure, and print one JSON object."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        system = System(StateDir(Path(folder)), settings={SERVER: {"SLIPWAY_POLL_S": "0.1"}})
        system.state.create()
        try:
            system.start_part(AZURITE)
            system.start_part(SERVER)
            print(json.dumps(_measure(system)))
        finally:
            system.stop()


if __name__ == "__main__":
    main()
