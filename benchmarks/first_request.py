"""What the first prediction after the server says that it is ready takes, over the median of those that follow.

Run `.venv/bin/python -m benchmarks.first_request`. A server process is started anew for every repeat, over Azurite and
a warm disk cache, and asked until it is ready; then one connection asks for its health 201 times and predicts 201 rows
with a small boosted-trees model, in the plain form and in that of the inference protocol, by turns a repeat each.
Printed are the ratios' median and quartiles by form, beside the bar. The health is asked for so that the processor is
not idle before: after 10 ms without a request one takes four times the median here, however long the server has run.
That is measured too, at the end, as `after_a_pause`.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
from sklearn.datasets import load_breast_cancer

from benchmarks.hot_swap import ENDPOINT, _models
from benchmarks.loading import FIRST_BAR, _published
from local.state import StateDir
from local.system import AZURITE, System
from shared.store.blobs import AzureBlobs

REPEATS, REQUESTS = 20, 201
PAUSE_S = 0.05
ROOT = Path(__file__).parents[1]


def _bodies() -> dict[str, tuple[str, bytes]]:
    row = load_breast_cancer().data[0].astype(np.float32).tolist()
    tensor = {"name": "X", "datatype": "FP32", "shape": [1, len(row)], "data": row}
    return {
        "plain": ("/predict", json.dumps({"features": [row]}).encode()),
        "v2": (f"/v2/models/{ENDPOINT}/infer", json.dumps({"inputs": [tensor]}).encode()),
    }


def _request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _answer(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < size:
        body += connection.recv(65_536)
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"the server answered {data[:500]!r}, wanted 200")
    return body


def _took_s(url: str, request: bytes) -> tuple[list[float], float]:
    """Seconds of each of the requests, on a connection of their own, and of one after a pause."""
    found = httpx.URL(url)
    took: list[float] = []
    with socket.create_connection((found.host, found.port or 80), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(REQUESTS):
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: bench\r\n\r\n")
            _answer(connection)
        for _ in range(REQUESTS):
            began = time.perf_counter()
            connection.sendall(request)
            _answer(connection)
            took.append(time.perf_counter() - began)
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        connection.sendall(request)
        _answer(connection)
        return took, time.perf_counter() - began


def _of_a_fresh_server(connection: str, cache: Path, request: bytes) -> tuple[float, float, float]:
    """Microseconds of the first request, the median of the others, and one after a pause."""
    settings = {
        "SLIPWAY_STORAGE_CONNECTION": connection,
        "SLIPWAY_CACHE_DIR": str(cache),
        "SLIPWAY_ENDPOINTS": ENDPOINT,
        "SLIPWAY_PORT": "0",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "aks_serving"],
        env=os.environ | settings,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            url = process.stdout.readline().decode().removeprefix("ready ").strip()
            while httpx.get(f"{url}/ready").status_code != httpx.codes.OK:
                time.sleep(0.02)
            took, paused = _took_s(url, request)
        finally:
            process.terminate()
            process.wait(30)
    return took[0] * 1e6, statistics.median(took[1:]) * 1e6, paused * 1e6


def _measured(connection: str, cache: Path) -> dict[str, object]:
    bodies = _bodies()
    found: dict[str, list[tuple[float, float, float]]] = {form: [] for form in bodies}
    for repeat in range(REPEATS + 1):
        for form, (path, body) in bodies.items():
            took = _of_a_fresh_server(connection, cache, _request(path, body))
            if repeat:  # the first one warms the cache, and this client
                found[form].append(took)
    shown: dict[str, object] = {"bar": FIRST_BAR, "repeats": REPEATS}
    for form, repeats in found.items():
        low, middle, high = statistics.quantiles([first / median for first, median, _ in repeats], n=4)
        shown[form] = {
            "ratio_median": round(middle, 2),
            "ratio_quartiles": [round(low, 2), round(high, 2)],
            "first_us": round(statistics.median(first for first, _, _ in repeats)),
            "median_us": round(statistics.median(median for _, median, _ in repeats)),
            "after_a_pause": round(statistics.median(paused / median for _, median, paused in repeats), 2),
        }
    return shown


def main() -> None:
    """Measure, and print one JSON object."""
    with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
        system = System(StateDir(Path(folder)))
        system.state.create()
        try:
            system.start_part(AZURITE)
            with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
                _published(blobs, ENDPOINT, 1, _models()[0])
            print(json.dumps(_measured(system.storage_connection, Path(folder) / "cache")))
        finally:
            system.stop()


if __name__ == "__main__":
    main()
