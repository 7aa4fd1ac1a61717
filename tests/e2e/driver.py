"""Drives a system as its users do: drops blobs, asks the admin API, sends predictions."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from azure.storage.blob import BlobServiceClient

from local.system import System
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Triggers
from tests.support.models import iris
from tests.support.plain import NO_TLS

MODEL = "iris"
POLICY = Policy(
    # Half of iris is too few rows to show that a version is no worse than the champion.
    validation=ValidationPolicy(noninferiority_margin=None, latency_ratio=None),
    rollout=RolloutPolicy(
        watch_s=0,
        stages=(Stage(weight_bp=2_000, duration_s=1), Stage(weight_bp=5_000, duration_s=1)),
        tick_s=1,
        min_requests=20,
        # This machine may be slow and busy: latency is not what these tests are about.
        gates=Gates(p99_ms=3_600_000, slow_ms=3_600_000),
        triggers=Triggers(p99_ms=None, memory_share=None),
        load_timeout_s=900,
        max_stage_s=900,
    ),
)
SETTINGS = {
    "SLIPWAY_SWEEP_SCHEDULE": "*/3 * * * * *",
    "SLIPWAY_SWEEP_GRACE_S": "10",
    "SLIPWAY_HOST_BLOB_SCAN_S": "1",
    "SLIPWAY_HOST_MESSAGE_LEASE_S": "4",
}
_POLL_S = 0.4
"""Asking takes time from what is waited for."""
SERVER_SETTINGS = {"SLIPWAY_POLL_S": "0.5", "SLIPWAY_WINDOW_S": "1"}


class Driver:
    """A user of a running system."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._blobs = BlobServiceClient.from_connection_string(system.storage_connection)
        self.predictions: dict[int, str] = {}
        """The id of the latest prediction of each version."""
        self.large_share = 0.0
        """The share of the predictions that are of flowers larger than any in the data."""

    def close(self) -> None:
        """Close the connections."""
        self._blobs.close()

    def drop(self, name: str, data: bytes) -> str:
        """Drop a file for the model; its blob's name."""
        blob = f"{MODEL}/{name}"
        self._blobs.get_blob_client("incoming", blob).upload_blob(data, overwrite=True)
        return blob

    def get(self, path: str, *, host: str = "functions") -> Any:
        """A GET of the admin API, or None where the host is down or has nothing there."""
        with suppress(httpx.TransportError):
            url = f"{self._system.url(host)}/api/{path}"
            answer = httpx.get(url, headers=self._headers(), timeout=30, verify=NO_TLS)
            if answer.is_success:
                return answer.json()
            if answer.status_code not in {404, 503}:
                raise AssertionError(f"GET {path}: {answer.status_code} {answer.text}")
        return None

    def put_policy(self, policy: Policy = POLICY) -> None:
        """Set the model's policy."""
        url = f"{self._system.functions_url}/api/models/{MODEL}/policy"
        content = policy.model_dump_json()
        httpx.put(url, headers=self._headers(), content=content, timeout=30, verify=NO_TLS).raise_for_status()

    def drops(self) -> dict[str, dict[str, Any]]:
        """The drops by their blob."""
        found = self.get(f"models/{MODEL}/drops")
        return {drop["blob"]: drop for drop in found["items"]} if found else {}

    def versions(self) -> dict[int, dict[str, Any]]:
        """The versions by their number."""
        found = self.get(f"models/{MODEL}/versions")
        return {version["version"]: version for version in found["items"]} if found else {}

    def rollouts(self) -> list[dict[str, Any]]:
        """The rollouts, oldest first."""
        found = self.get(f"endpoints/{MODEL}/rollouts")
        return found["items"] if found else []

    def wait_for(self, what: str, condition: Callable[[], Any], *, deadline_s: float = 900.0) -> Any:
        """Wait until a condition gives something true, and return that."""
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            time.sleep(_POLL_S)
        state = {"drops": self.drops(), "versions": self.versions(), "rollouts": self.rollouts()}
        raise AssertionError(f"waited {deadline_s:.0f} s for {what}; there is {json.dumps(state, indent=1)[:6_000]}")

    def settled(self, blob: str) -> dict[str, Any] | None:
        """The drop, once its version is decided and, where it was validated, rolled out to an end."""
        drop = self.drops().get(blob)
        if drop is None or drop["state"] == "received":
            return None
        if drop["state"] == "refused":
            return drop
        version = self.versions().get(drop["version"])
        if version is None or version["state"] in {"registered", "validating"}:
            return None
        if version["state"] == "validated":
            rollouts = [rollout for rollout in self.rollouts() if rollout["version"] == version["version"]]
            if not rollouts or rollouts[-1]["ended_at"] is None:
                return None
        return drop

    @contextmanager
    def traffic(self) -> Generator[Counter[str]]:
        """Keep predictions of many users coming; the counts by outcome."""
        outcomes: Counter[str] = Counter()
        stop = threading.Event()
        thread = threading.Thread(target=self._predict, args=(outcomes, stop), daemon=True)
        thread.start()
        try:
            yield outcomes
        finally:
            stop.set()
            thread.join(30)

    def _predict(self, outcomes: Counter[str], stop: threading.Event) -> None:
        rows = iris()[0].tolist()
        number = 0
        with httpx.Client(base_url=self._system.server_url, timeout=30, verify=NO_TLS) as client:
            while not stop.wait(0.01):
                number += 1
                row = rows[number % len(rows)]
                is_large = number % 10 < 10 * self.large_share
                features = [[3 * value for value in row] if is_large else row]
                body = {"model": MODEL, "features": features, "user_id": f"user-{number % 97}"}
                try:
                    answer = client.post("/predict", json=body)
                except httpx.TransportError as error:
                    outcomes[f"unreachable {type(error).__name__}"] += 1
                    continue
                if answer.status_code == 200:
                    outcomes["answered"] += 1
                    self.predictions[answer.json()["model_version"]] = answer.headers["x-slipway-prediction-id"]
                elif outcomes["answered"]:
                    outcomes[f"{answer.status_code} {answer.text[:100]}"] += 1

    def _headers(self) -> dict[str, str]:
        return {"x-functions-key": self._system.key}
