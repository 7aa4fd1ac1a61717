"""The model server under a real Granian, over Azurite: predictions by HTTP/1.1 and HTTP/2, and what a stop does."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.serving import models
from tests.serving.processes import ROOT, Account
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

DOUBLE = models.scaler(2.0)


class _Granian:
    """Granian, which serves the server; it listens before the first plan is read."""

    def __init__(self, connection: str, directory: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "SLIPWAY_STORAGE_CONNECTION": connection,
            "SLIPWAY_CACHE_DIR": str(directory / "cache"),
            "SLIPWAY_POLL_S": "0.1",
            "SLIPWAY_WINDOW_S": "60",
            "SLIPWAY_MAX_BODY_BYTES": "1000",
            "SLIPWAY_DRAIN_S": "3",
        }
        serve = [sys.executable, "-m", "granian", "--interface", "rsgi", "--factory", "--workers", "1"]
        where = ["--host", "127.0.0.1", "--port", str(self.port), "aks_serving.rsgi_server:app"]
        with (directory / "granian.log").open("wb") as log:
            self.process = subprocess.Popen(
                [*serve, *where], env=environment, cwd=ROOT, stdout=log, stderr=log, start_new_session=True
            )

    def client(self, *, http2: bool) -> httpx.Client:
        """A client that speaks one version of HTTP from its first byte."""
        url = f"http://127.0.0.1:{self.port}"
        return httpx.Client(base_url=url, http1=not http2, http2=http2, timeout=20, verify=NO_TLS)

    def ready(self) -> bool:
        assert self.process.poll() is None
        try:
            with self.client(http2=False) as client:
                return client.get("/ready").status_code == 200
        except httpx.TransportError:
            return False

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def granian(account: Account, tmp_path: Path) -> Iterator[_Granian]:
    account.put(DOUBLE)
    account.publish(models.plan(1, models.route(1, DOUBLE)))
    running = _Granian(account.connection, tmp_path)
    try:
        eventually(running.ready, what="the server under Granian is ready")
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)  # its worker too, which would outlive it
        running.process.wait()


def _tensor(*values: float) -> dict[str, object]:
    return {"name": "x", "datatype": "FP32", "shape": [1, len(values)], "data": values}


def test_granian_carries_the_server_by_both_versions_of_http(granian: _Granian, account: Account) -> None:
    for http2 in (False, True):
        with granian.client(http2=http2) as client:
            answer = client.post("/predict", json={"features": [[3, 1]]})
            assert (answer.http_version, answer.status_code) == ("HTTP/2" if http2 else "HTTP/1.1", 200)
            assert answer.json()["predictions"] == [[6, 2]]
            answer = client.post("/v2/models/churn/infer", json={"inputs": [_tensor(1.5, -2)]})
            assert answer.json()["outputs"][0]["data"] == [3, -4]
            assert client.post("/predict", json={"features": [["no number", 1]]}).status_code == 400
            refused = client.post("/predict", content=b"[" * 1_001)
            assert (refused.status_code, refused.headers.get("connection")) == (413, None if http2 else "close")
            assert client.head("/health").status_code == 200
            assert client.get("/predict").status_code == 405
    assert granian.stop() == 0
    # What the stop told: it closes the last window.
    assert sum(window.versions[1].requests for window in account.windows() if 1 in window.versions) == 4


def test_a_stop_is_told_first_and_no_request_is_lost(granian: _Granian, account: Account) -> None:
    answered = [0] * 4
    ready: list[int] = []

    def call(number: int) -> None:
        """Ask over one connection until an answer says that it is the last, as a proxy does."""
        with granian.client(http2=False) as client:
            is_last = False
            while not is_last:
                answer = client.post("/predict", json={"features": [[number, 1]]})
                assert answer.json()["predictions"] == [[2 * number, 2]]
                answered[number] += 1
                is_last = answer.headers.get("connection") == "close"
            ready.append(client.get("/ready").status_code)

    with ThreadPoolExecutor(len(answered)) as threads:
        calls = [threads.submit(call, number) for number in range(len(answered))]
        try:
            eventually(lambda: all(answered), what="each caller has an answer")
        finally:
            os.killpg(granian.process.pid, signal.SIGTERM)  # the worker hears it twice: from here and from its parent
        for made in calls:
            made.result(30)
    assert ready == [503] * len(answered)
    assert granian.process.wait(30) == 0
    assert sum(window.versions[1].requests for window in account.windows() if 1 in window.versions) == sum(answered)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
def test_a_stop_waits_for_a_request_that_is_in_flight(granian: _Granian, account: Account, version: str) -> None:
    asked = ["--verbose", "--no-buffer", version, "--request", "POST", "--upload-file", "-"]
    with subprocess.Popen(
        ["curl", *asked, f"http://127.0.0.1:{granian.port}/predict"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as curl:
        assert curl.stdin is not None
        assert curl.stderr is not None
        assert any(line.startswith(b"> POST") for line in curl.stderr)
        granian.process.send_signal(signal.SIGTERM)
        eventually(lambda: not granian.listens(), what="Granian takes no more connections")
        curl.stdin.write(b'{"features": [[3, 1]]}')
        answer, _ = curl.communicate(timeout=30)
    assert b'"predictions":[[6' in answer
    assert granian.process.wait(30) == 0
    assert sum(window.versions[1].requests for window in account.windows() if 1 in window.versions) == 1
