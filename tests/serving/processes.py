"""Server processes over Azurite for tests, started and stopped, and the account as the control plane fills it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.storage.blob import BlobServiceClient

from shared.routing.plan import RoutePlan, artifact_blob_name, plan_blob_name
from shared.telemetry.features import FeatureWindow
from shared.telemetry.window import Window
from tests.serving import models
from tests.support.plain import NO_TLS

ROOT = Path(__file__).parents[2]


class Account:
    """A storage account as the control plane fills it."""

    def __init__(self, connection: str) -> None:
        self.connection = connection
        self._client = BlobServiceClient.from_connection_string(connection)
        for container in ("artifacts", "routes", "telemetry"):
            self._client.create_container(container)

    def put(self, *files: bytes) -> None:
        for data in files:
            self._client.get_blob_client("artifacts", artifact_blob_name(models.digest(data))).upload_blob(data)

    def publish(self, plan: RoutePlan) -> None:
        self.write_plan(plan.endpoint, plan.model_dump_json().encode())

    def write_plan(self, endpoint: str, data: bytes) -> None:
        self._client.get_blob_client("routes", plan_blob_name(endpoint)).upload_blob(data, overwrite=True)

    def windows(self) -> list[Window]:
        container = self._client.get_container_client("telemetry")
        names = sorted(blob.name for blob in container.list_blobs() if "/features/" not in blob.name)
        return [Window.model_validate_json(container.download_blob(name).readall()) for name in names]

    def feature_windows(self) -> list[FeatureWindow]:
        container = self._client.get_container_client("telemetry")
        names = sorted(blob.name for blob in container.list_blobs() if "/features/" in blob.name)
        return [FeatureWindow.model_validate_json(container.download_blob(name).readall()) for name in names]

    def close(self) -> None:
        self._client.close()


class Server:
    """A server process. What it says on stdout after it is ready is kept for its end."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "aks_serving"], env=environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=self._log
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready http://"), log.read_text()
        self.url = line.removeprefix("ready ").strip()
        self.http = httpx.Client(base_url=self.url, timeout=20, verify=NO_TLS)

    def predict(self, features: Any, **fields: Any) -> httpx.Response:
        return self.http.post("/predict", json={"features": features, **fields})

    def generation(self) -> int:
        found: int = self.http.get("/ab-test/stats").json()["endpoints"].get("churn", {}).get("generation", 0)
        return found

    def ready(self) -> bool:
        return self.http.get("/ready").status_code == 200

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics, by name and labels as they stand there."""
        lines = [line for line in self.http.get("/metrics").text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}

    def workers(self) -> list[int]:
        """The ids of the processes that answer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children]

    def grpc_address(self) -> str:
        """What follows the line that says ready."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().removeprefix("grpc ").strip()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def close(self) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._log.close()


type Launch = Callable[..., Server]


@pytest.fixture
def account(unused_accounts: Iterator[str]) -> Iterator[Account]:
    made = Account(next(unused_accounts))
    yield made
    made.close()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    servers: list[Server] = []

    def launched(connection: str, **settings: str) -> Server:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "SLIPWAY_STORAGE_CONNECTION": connection,
            "SLIPWAY_CACHE_DIR": str(tmp_path / "cache"),
            "SLIPWAY_PORT": "0",
            "SLIPWAY_POLL_S": "0.1",
            "SLIPWAY_WINDOW_S": "0.2",
            "SLIPWAY_DRAIN_S": "0.1",
        }
        servers.append(Server(environment | settings, tmp_path / "server.log"))
        return servers[-1]

    yield launched
    for server in servers:
        server.close()


def dead_connection() -> str:
    """A connection string to a port where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return (
        "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=a2V5;"
        f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
    )
