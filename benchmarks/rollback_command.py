"""How long a candidate goes on getting requests after a command, after a fault, and with no host alive: G29 and G30.

Run `.venv/bin/python -m benchmarks.rollback_command`: Azurite, a functions host and a model server at its usual
intervals, and closed-loop clients on kept-alive connections, at moments drawn anew.

- command: from before `POST .../rollback` is sent, at each weight, to the arrival of the candidate's last answer; at
  most 5 s. Version 1 is warm throughout. (`benchmarks.rollback` measures the servers' part alone.)
- fault: the candidate begins to fail every request, its pods' guard being off; from the first failure to its last
  request; at most two ticks.
- guard: the same with the guard on, the host killed and Azurite stopped; at most one window.

A request that the candidate fails is answered by stable, which the answer tells: both count as the candidate's.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, SERVER, System
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import RolloutPolicy, Stage, Strategy
from shared.routing.plan import FULL_WEIGHT_BP, Guard
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

MODEL = "table"
CANDIDATE = 2
WEIGHTS_BP = (1_000, 5_000, FULL_WEIGHT_BP)
COMMAND_BAR_S, POLL_S, WINDOW_S, TICK_S = 5.0, 2.0, 5.0, 10.0
ROLLBACKS, FAULTS, CLIENTS, GIVE_UP_S, AFTER_S = 8, 5, 4, 90.0, 1.0
WELL, BAD = 3, 50
"""Entries that both have, and that the candidate has not."""
_LONG_S = 3_000.0


@dataclass(slots=True, kw_only=True)
class _Traffic:
    """What the clients ask for, and saw."""

    asked: int = WELL
    requests: int = 0
    not_answered: int = 0
    failed_at_s: float | None = None
    """When the candidate failed first (perf_counter)."""
    last_at_s: float = 0.0
    """When an answer came last that the candidate gave, or failed to give."""
    users: int = 0


class _Admin:
    """A user of the system's admin API."""

    def __init__(self, system: System) -> None:
        headers = {"x-functions-key": system.key}
        self._client = httpx.Client(base_url=f"{system.functions_url}/api/", headers=headers, timeout=30)
        self._stats = f"{system.server_url}/ab-test/stats"

    def call(self, method: str, path: str, body: object = None) -> Any:  # noqa: ANN401 - JSON
        answer = self._client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    def is_state(self, *states: str) -> bool:
        """Whether the latest rollout is in one of these states."""
        found = self._client.get(f"endpoints/{MODEL}/rollouts")
        return found.is_success and bool(found.json()["items"]) and found.json()["items"][-1]["state"] in states

    def gives(self, weight_bp: int) -> bool:
        """Whether the server follows a plan that gives the candidate so much."""
        given: int = sum(r["weight_bp"] for r in self._served()["routes"] if r["version"] == CANDIDATE)
        return given == weight_bp

    def is_tripped(self) -> bool:
        """Whether the server's guard has taken the candidate out."""
        return str(CANDIDATE) in self._served()["tripped"]

    def _served(self) -> dict[str, Any]:
        endpoints = httpx.get(self._stats, timeout=30).json()["endpoints"]
        found: dict[str, Any] = endpoints.get(MODEL, {"routes": [], "tripped": {}})
        return found

    def begin(self, weight_bp: int, policy: RolloutPolicy) -> None:
        """Bring the candidate to a weight, which it keeps."""
        lenient = ValidationPolicy(require_validation_data=False, noninferiority_margin=None, latency_ratio=None)
        self.call("PUT", f"models/{MODEL}/policy", Policy(validation=lenient, rollout=policy).model_dump(mode="json"))
        if self.call("GET", f"endpoints/{MODEL}/quarantine")["items"]:
            body = {"by": "bench", "reason": "again"}
            self.call("POST", f"endpoints/{MODEL}/quarantine/{CANDIDATE}/clear", body)
        begun = self.call("POST", f"endpoints/{MODEL}/rollouts", {"version": CANDIDATE, "by": "bench"})
        _until(lambda: self.is_state("progressing"))
        if weight_bp == FULL_WEIGHT_BP:
            body = {"by": "bench"}
            self.call("POST", f"endpoints/{MODEL}/rollouts/{begun['rollout_id']}/promote", body)
        _until(lambda: self.gives(weight_bp))


def _policy(weight_bp: int, *, has_guard: bool, tick_s: float = 1.0) -> RolloutPolicy:
    return RolloutPolicy(
        automatic=False,
        strategy=Strategy.CANARY,
        stages=(Stage(weight_bp=min(weight_bp, FULL_WEIGHT_BP - 1), duration_s=_LONG_S),),
        watch_s=_LONG_S,
        guard=Guard(enabled=has_guard),
        tick_s=tick_s,
    )


def _table(entries: int) -> bytes:
    """A model that looks an entry up: beyond its last one the request fails."""
    nodes = [
        helper.make_node("Cast", ["x"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["entries", "place"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 1])],
        [numpy_helper.from_array(np.arange(entries, dtype=np.float32), "entries")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def _until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + GIVE_UP_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError("the system did not come to where it is measured")
        time.sleep(0.1)


async def _client(url: str, seen: _Traffic, stop: asyncio.Event) -> None:
    async with httpx.AsyncClient(base_url=url, timeout=GIVE_UP_S) as connection:
        while not stop.is_set():
            seen.users += 1
            body = {"model": MODEL, "features": [[seen.asked]], "user_id": f"user-{seen.users}"}
            answer = await connection.post("/predict", json=body)
            seen.requests += 1
            if answer.status_code != httpx.codes.OK:
                seen.not_answered += 1
                continue
            told = answer.json()
            if told["fallback"] and seen.failed_at_s is None:
                seen.failed_at_s = time.perf_counter()
            if told["fallback"] or told["model_version"] == CANDIDATE:
                seen.last_at_s = time.perf_counter()


@asynccontextmanager
async def _traffic(url: str) -> AsyncGenerator[_Traffic]:
    """Clients that go on asking, once the candidate has answered some."""
    seen, stop = _Traffic(), asyncio.Event()
    clients = [asyncio.create_task(_client(url, seen, stop)) for _ in range(CLIENTS)]
    try:
        await _awaited(lambda: seen.last_at_s > 0)
        yield seen
    finally:
        stop.set()
        await asyncio.gather(*clients)


async def _awaited(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        # Looked at, not awaited: the clients are measured, and tell nobody.
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _after_command(url: str, admin: _Admin, wait_s: float) -> tuple[float, _Traffic]:
    async with _traffic(url) as seen:
        await asyncio.sleep(wait_s)
        sent_s = time.perf_counter()
        await asyncio.to_thread(admin.call, "POST", f"endpoints/{MODEL}/rollback", {"by": "bench"})
        await _awaited(lambda: admin.gives(0))
        await asyncio.sleep(AFTER_S)
    return max(0.0, seen.last_at_s - sent_s), seen


async def _after_fault(url: str, is_out: Callable[[], bool], wait_s: float) -> tuple[float, _Traffic]:
    async with _traffic(url) as seen:
        await asyncio.sleep(wait_s)
        seen.asked = BAD
        await _awaited(lambda: seen.failed_at_s is not None)
        await _awaited(is_out)
        await asyncio.sleep(AFTER_S)
    return seen.last_at_s - (seen.failed_at_s or 0.0), seen


def _measure(system: System, rollbacks: int, faults: int) -> dict[str, object]:
    admin, draw, url = _Admin(system), random.Random(1), system.server_url
    found: dict[str, list[float]] = {}
    not_answered = 0

    def note(name: str, took: tuple[float, _Traffic]) -> None:
        nonlocal not_answered
        found.setdefault(name, []).append(took[0])
        not_answered += took[1].not_answered
        print(f"{name}: {took[0]:.2f} s, {took[1].requests} requests", file=sys.stderr)

    for weight_bp in WEIGHTS_BP:
        for _ in range(rollbacks):
            admin.begin(weight_bp, _policy(weight_bp, has_guard=True))
            note(f"command, {weight_bp} bp", asyncio.run(_after_command(url, admin, draw.uniform(0, POLL_S))))
    for _ in range(faults):
        admin.begin(WEIGHTS_BP[0], _policy(WEIGHTS_BP[0], has_guard=False, tick_s=TICK_S))
        note("fault", asyncio.run(_after_fault(url, partial(admin.gives, 0), draw.uniform(0, TICK_S))))
        _until(lambda: admin.is_state("rolled_back"))
    for _ in range(faults):
        admin.begin(WEIGHTS_BP[0], _policy(WEIGHTS_BP[0], has_guard=True))
        system.kill_part(FUNCTIONS)
        system.stop_part(AZURITE)
        try:
            note("guard", asyncio.run(_after_fault(url, admin.is_tripped, draw.uniform(0, WINDOW_S))))
        finally:
            system.start_part(AZURITE)
            system.start_part(FUNCTIONS)
        _until(lambda: admin.is_state("rolled_back"))
    bars_s = {"fault": 2 * TICK_S, "guard": WINDOW_S}
    held = all(max(took) <= bars_s.get(name, COMMAND_BAR_S) for name, took in found.items())
    return {
        name: {
            "n": len(took),
            "median_s": round(statistics.median(took), 2),
            "worst_s": round(max(took), 2),
            "bar_s": bars_s.get(name, COMMAND_BAR_S),
        }
        for name, took in found.items()
    } | {"not_answered": not_answered, "holds": held and not not_answered}


def _prepare(system: System) -> None:
    """Two versions: 1 serves, 2 knows fewer entries."""
    admin = _Admin(system)
    lenient = ValidationPolicy(require_validation_data=False, noninferiority_margin=None, latency_ratio=None)
    rollout = RolloutPolicy(automatic=False, strategy=Strategy.ALL_AT_ONCE, watch_s=0)
    admin.call("PUT", f"models/{MODEL}/policy", Policy(validation=lenient, rollout=rollout).model_dump(mode="json"))
    with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
        for number, entries in enumerate((100, 10), 1):
            blobs.create(BlobContainer.INCOMING, f"{MODEL}/{number}.onnx", _table(entries))
            _until(lambda number=number: _is_validated(admin, number))  # type: ignore[misc]
    admin.call("POST", f"endpoints/{MODEL}/rollouts", {"version": 1, "by": "bench"})
    _until(lambda: admin.is_state("promoted"))


def _is_validated(admin: _Admin, number: int) -> bool:
    versions = admin.call("GET", f"models/{MODEL}/versions")["items"]
    found = next((version for version in versions if version["version"] == number), None)
    if found and found["state"] == "rejected":
        raise RuntimeError(f"version {number} was rejected: {found['validation']}")
    return bool(found and found["state"] == "validated")


def main() -> int:
    """Measure, and print one JSON object. 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rollbacks", type=int, default=ROLLBACKS, help="from each weight")
    parser.add_argument("--faults", type=int, default=FAULTS, help="with hosts, and without")
    asked = parser.parse_args()
    settings = {
        SERVER: {"SLIPWAY_POLL_S": f"{POLL_S:g}", "SLIPWAY_WINDOW_S": f"{WINDOW_S:g}"},
        FUNCTIONS: {"SLIPWAY_SWEEP_SCHEDULE": "*/5 * * * * *", "SLIPWAY_SWEEP_GRACE_S": "10"},
    }
    with (
        tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder,
        System(StateDir(Path(folder)), settings=settings) as system,
    ):
        _prepare(system)
        found = _measure(system, asked.rollbacks, asked.faults)
        print(json.dumps(found))
    return 0 if found["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
