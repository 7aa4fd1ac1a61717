"""How long a candidate goes on answering after a plan that takes its traffic back: row G30's bar is 5 seconds.

Run `.venv/bin/python -m benchmarks.rollback`. One model server over Azurite, at its usual polling interval, closed-loop
clients on kept-alive connections. From each weight of the candidate a plan goes back to the warm stable version, by
turns with the candidate kept warm and without it, at moments that are drawn anew so that they fall anywhere between two
polls. Measured is the time from before the plan is written to the arrival of the candidate's last answer. There is no
peer: what is told is the bar, and how far below it the worst rollback stayed.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier

from local.state import StateDir
from local.system import AZURITE, SERVER, System
from shared.core.canonical import digest_of_bytes
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan, artifact_blob_name, plan_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

ENDPOINT = "churn"
STABLE, CANDIDATE = 1, 2
WEIGHTS_BP = (1_000, 5_000, FULL_WEIGHT_BP)
BAR_S, POLL_S = 5.0, 2.0
ROLLBACKS, CLIENTS, GIVE_UP_S, AFTER_S = 10, 4, 30.0, 0.5


@dataclass(slots=True, kw_only=True)
class _Seen:
    """What the clients saw since it was made."""

    generation: int = 0
    candidate_at_s: float = 0.0
    """When the candidate answered last (perf_counter)."""
    under: dict[int, set[int]] = field(default_factory=dict)
    """By generation, the versions that answered."""
    requests: int = 0
    failed: int = 0


class _Publisher:
    """Writes the plans of one endpoint, one generation after another."""

    def __init__(self, blobs: AzureBlobs, models: dict[int, bytes]) -> None:
        self._blobs = blobs
        self._routes = {}
        self._etag = ""
        self.generation = 0
        for version, model in models.items():
            blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(digest_of_bytes(model)), model)
            self._routes[version] = Route(
                version=version,
                role=Role.STABLE if version == STABLE else Role.CANDIDATE,
                weight_bp=0,
                artifact_digest=digest_of_bytes(model),
                size_bytes=len(model),
            )

    def publish(self, weight_bp: int | None) -> None:
        """A plan with so much for the candidate; None: without it."""
        self.generation += 1
        weights = {STABLE: FULL_WEIGHT_BP - (weight_bp or 0)} | ({} if weight_bp is None else {CANDIDATE: weight_bp})
        routes = tuple(self._routes[v].model_copy(update={"weight_bp": weight}) for v, weight in weights.items())
        plan = RoutePlan(endpoint=ENDPOINT, generation=self.generation, salt="benchmark", routes=routes)
        data, name = plan.model_dump_json().encode(), plan_blob_name(ENDPOINT)
        if self.generation == 1:
            self._blobs.create(BlobContainer.ROUTES, name, data)
            found = self._blobs.info(BlobContainer.ROUTES, name)
            self._etag = found.etag if found else ""
        else:
            self._etag = self._blobs.replace(BlobContainer.ROUTES, name, data, etag=self._etag).etag


def _models() -> dict[int, bytes]:
    data = load_breast_cancer()
    features = data.data.astype(np.float32)
    found = {}
    for version in (STABLE, CANDIDATE):
        fitted = GradientBoostingClassifier(n_estimators=50, random_state=version, subsample=0.8)
        model = to_onnx(fitted.fit(features, data.target), features[:1], options={"zipmap": False})
        found[version] = bytes(model.SerializeToString())
    return found


async def _client(url: str, seen: _Seen, stop: asyncio.Event) -> None:
    body = {"features": [load_breast_cancer().data[0].tolist()]}
    async with httpx.AsyncClient(base_url=url, timeout=GIVE_UP_S) as connection:
        while not stop.is_set():
            answer = await connection.post("/predict", json=body)
            seen.requests += 1
            if answer.status_code != httpx.codes.OK:
                seen.failed += 1
                continue
            told = answer.json()
            seen.generation = max(seen.generation, told["generation"])
            seen.under.setdefault(told["generation"], set()).add(told["model_version"])
            if told["model_version"] == CANDIDATE:
                seen.candidate_at_s = time.perf_counter()


async def _until(seen: _Seen, generation: int, *, also: bool) -> None:
    """Until an answer came under a generation, from the candidate where `also` is set."""
    async with asyncio.timeout(GIVE_UP_S):
        # Looked at, not awaited: the clients are measured, and tell nobody.
        while seen.generation < generation or (also and CANDIDATE not in seen.under.get(generation, ())):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _roll_back(
    url: str, publisher: _Publisher, weight_bp: int, to: int | None, wait_s: float
) -> tuple[float, _Seen]:
    """Seconds from the plan's writing to the candidate's last answer, and what was seen."""
    seen, stop = _Seen(), asyncio.Event()
    await asyncio.to_thread(publisher.publish, weight_bp)
    clients = [asyncio.create_task(_client(url, seen, stop)) for _ in range(CLIENTS)]
    try:
        await _until(seen, publisher.generation, also=True)
        await asyncio.sleep(wait_s)
        published_s = time.perf_counter()
        await asyncio.to_thread(publisher.publish, to)
        await _until(seen, publisher.generation, also=False)
        await asyncio.sleep(AFTER_S)
    finally:
        stop.set()
        await asyncio.gather(*clients)
    if CANDIDATE in seen.under[publisher.generation]:
        raise RuntimeError(f"the candidate answered under generation {publisher.generation}, which gives it no traffic")
    return max(0.0, seen.candidate_at_s - published_s), seen


def _measure(system: System, rollbacks: int) -> dict[str, object]:
    draw = random.Random(1)
    by_weight: dict[str, object] = {}
    worst_s, failed = 0.0, 0
    with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
        publisher = _Publisher(blobs, _models())
        publisher.publish(0)
        while httpx.get(f"{system.server_url}/v2/models/{ENDPOINT}/ready").status_code != httpx.codes.OK:
            time.sleep(0.1)
        for weight_bp in WEIGHTS_BP:
            took_s, requests = [], 0
            for turn in range(rollbacks):
                to = None if turn % 2 else 0
                took, seen = asyncio.run(
                    _roll_back(system.server_url, publisher, weight_bp, to, draw.uniform(0.0, POLL_S))
                )
                took_s.append(took)
                requests += seen.requests
                failed += seen.failed
                print(f"from {weight_bp} bp: {took:.2f} s, {seen.requests} requests", file=sys.stderr)
            worst_s = max(worst_s, *took_s)
            by_weight[str(weight_bp)] = {
                "rollbacks": rollbacks,
                "requests": requests,
                "median_s": round(statistics.median(took_s), 2),
                "worst_s": round(max(took_s), 2),
            }
    return {
        "poll_s": POLL_S,
        "from_weight_bp": by_weight,
        "failed_requests": failed,
        "worst_s": round(worst_s, 2),
        "bar_s": BAR_S,
        "holds": worst_s <= BAR_S and not failed,
    }


def main() -> int:
    """Measure, and print one JSON object. 1 where the bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollbacks", type=int, default=ROLLBACKS, help="from each weight")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        system = System(StateDir(Path(folder)), settings={SERVER: {"SLIPWAY_POLL_S": f"{POLL_S:g}"}})
        system.state.create()
        try:
            system.start_part(AZURITE)
            system.start_part(SERVER)
            found = _measure(system, asked.rollbacks)
            print(json.dumps(found))
        finally:
            system.stop()
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
