"""What the first prediction of a version takes, over the median of those that follow: after a swap, and after a start.

Run `.venv/bin/python -m benchmarks.first_request`. A small boosted-trees model, a run of which takes microseconds, then
a perceptron, a run of which takes a millisecond; over Azurite, one connection, in the plain form and in that of the
inference protocol, by turns.

After a swap: one connection predicts all the time while one version after another is published; held to the bar is the
first answer of each. After a start: a server process is started anew for every repeat, over a warm disk cache, and
asked until it is ready; then the connection asks for its health 201 times and predicts 201 rows. What has not run for
those 20 ms is cold in the processor however long the server has run, which is measured too: `again` is the first
prediction after the next 201 answers of health, and `after_a_pause` one after 50 ms without a request.

Back to back requests find everything warm that the one before used, a microsecond ago, which no first one can. So both
are measured by requests 10 ms apart as well (`_of_100_a_second`): the first is held against the median of its like.
Printed are the ratios' median and quartiles. Run as root, what is measured goes before what else runs on the machine.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import numpy as np
from sklearn.datasets import load_breast_cancer

from benchmarks.hot_swap import ENDPOINT, _models
from benchmarks.loading import _published
from benchmarks.models import mlp
from benchmarks.serving import machine
from local.state import StateDir
from local.system import AZURITE, System
from shared.store.blobs import AzureBlobs

REPEATS, SWAPS, REQUESTS = 20, 40, 201
FIRST_BAR = 1.5
PAUSE_S = 0.05
PACE_S, PACED = 0.01, 61
MID_WIDTHS, MID_MODELS = (512, 2048, 2048, 10), 3
ROOT = Path(__file__).parents[1]


def _small() -> tuple[list[bytes], dict[str, bytes]]:
    row = load_breast_cancer().data[0].astype(np.float32).tolist()
    return _models(), _requests("X", row)


def _mid() -> tuple[list[bytes], dict[str, bytes]]:
    model = mlp(MID_WIDTHS)
    models = []
    for number in range(MID_MODELS):
        model.doc_string = f"number {number}"  # of other bytes: another version
        models.append(model.SerializeToString())
    return models, _requests("x", np.random.default_rng(0).normal(size=MID_WIDTHS[0]).round(4).tolist())


def _requests(name: str, row: list[float]) -> dict[str, bytes]:
    """By form."""
    tensor = {"name": name, "datatype": "FP32", "shape": [1, len(row)], "data": row}
    return {
        "plain": _request("/predict", json.dumps({"features": [row]}).encode()),
        "v2": _request(f"/v2/models/{ENDPOINT}/infer", json.dumps({"inputs": [tensor]}).encode()),
    }


def _request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _answer(connection: socket.socket) -> bytes:
    """The head of an answer, in lower case, whose body was read."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    head = head.lower()
    size = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < size:
        body += connection.recv(65_536)
    if not head.startswith(b"http/1.1 200 "):
        raise RuntimeError(f"the server answered {data[:500]!r}, wanted 200")
    return head


def _asked(connection: socket.socket, request: bytes, pace_s: float = 0.0) -> tuple[float, bytes]:
    """Microseconds to the answer, and its head, of a request that is sent after so long without one."""
    if pace_s:
        time.sleep(pace_s)
    began = time.perf_counter()
    connection.sendall(request)
    head = _answer(connection)
    return (time.perf_counter() - began) * 1e6, head


@contextmanager
def _connected(url: str) -> Iterator[socket.socket]:
    found = httpx.URL(url)
    with socket.create_connection((found.host, found.port or 80), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield connection


@contextmanager
def _server(connection: str, cache: Path) -> Iterator[str]:
    """The URL of a server process, once it is ready."""
    settings = {
        "SLIPWAY_STORAGE_CONNECTION": connection,
        "SLIPWAY_CACHE_DIR": str(cache),
        "SLIPWAY_ENDPOINTS": ENDPOINT,
        "SLIPWAY_PORT": "0",
        "SLIPWAY_POLL_S": "0.1",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "aks_serving"],
        env=os.environ | settings,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        machine.prefer(process.pid)
        try:
            assert process.stdout is not None  # noqa: S101 - for the type checker
            url = process.stdout.readline().decode().removeprefix("ready ").strip()
            while httpx.get(f"{url}/ready").status_code != httpx.codes.OK:
                time.sleep(0.02)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def _of_a_fresh_server(connection: str, cache: Path, request: bytes) -> dict[str, float]:
    """Microseconds of the first request, the median of those that follow, and others that nothing like went before."""
    with _server(connection, cache) as url, _connected(url) as client:
        _healthy(client)
        first, _ = _asked(client, request)
        median = statistics.median(_asked(client, request)[0] for _ in range(REQUESTS - 1))
        _healthy(client)
        again, _ = _asked(client, request)
        time.sleep(PAUSE_S)
        paused, _ = _asked(client, request)
    return {"first": first, "median": median, "again": again, "after_a_pause": paused}


def _of_a_fresh_server_at_a_pace(connection: str, cache: Path, request: bytes) -> dict[str, float]:
    """Microseconds of the first request, and the median of those that follow at the same distance."""
    with _server(connection, cache) as url, _connected(url) as client:
        _healthy(client)
        first, *others = (_asked(client, request, PACE_S)[0] for _ in range(PACED))
    return {"first": first, "median": statistics.median(others)}


def _healthy(client: socket.socket) -> None:
    for _ in range(REQUESTS):
        _asked(client, b"GET /health HTTP/1.1\r\nhost: bench\r\n\r\n")


class _Swaps:
    """A server in which one version follows another."""

    def __init__(self, client: socket.socket, blobs: AzureBlobs, models: list[bytes]) -> None:
        self._client = client
        self._blobs = blobs
        self._models = models
        self._generation = 1

    def swap(self, request: bytes, *, requests: int, pace_s: float = 0.0) -> dict[str, float]:
        """Publish the next version: microseconds of its first answer, and the median of so many before and after."""
        before = statistics.median(_asked(self._client, request, pace_s)[0] for _ in range(requests))
        self._generation += 1
        model = self._models[self._generation % len(self._models)]
        _published(self._blobs, ENDPOINT, self._generation, model, is_new=self._generation <= len(self._models))
        mark = b"x-slipway-version: %d\r\n" % self._generation
        while mark not in (asked := _asked(self._client, request, pace_s))[1]:
            pass
        after = statistics.median(_asked(self._client, request, pace_s)[0] for _ in range(requests))
        return {"first": asked[0], "median": statistics.median((before, after))}


def _shown(repeats: list[dict[str, float]]) -> dict[str, object]:
    ratios = {what: [one[what] / one["median"] for one in repeats] for what in repeats[0] if what != "median"}
    shown: dict[str, object] = {what: _quartiles(found) for what, found in ratios.items()}
    shown["first_us"] = round(statistics.median(one["first"] for one in repeats))
    shown["median_us"] = round(statistics.median(one["median"] for one in repeats))
    if "again" in ratios:
        shown["first_over_again"] = _quartiles(one["first"] / one["again"] for one in repeats)
    return shown


def _quartiles(ratios: Iterable[float]) -> str:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _measured(
    blobs: AzureBlobs, connection: str, cache: Path, models: list[bytes], requests: dict[str, bytes]
) -> dict[str, object]:
    starts = _Found(requests)
    swaps = _Found(requests)
    for repeat in range(REPEATS + 1):
        for form, request in requests.items():
            took = _of_a_fresh_server(connection, cache, request)
            paced = _of_a_fresh_server_at_a_pace(connection, cache, request)
            if repeat:  # the first one warms the cache, and this client
                starts.add(form, took, paced)
    with _server(connection, cache) as url, _connected(url) as client:
        served = _Swaps(client, blobs, models)
        for _ in range(SWAPS // 2):
            for form, request in requests.items():
                took = served.swap(request, requests=REQUESTS - 1)
                swaps.add(form, took, served.swap(request, requests=PACED, pace_s=PACE_S))
    return {"after_a_swap": swaps.shown(), "after_a_start": starts.shown()}


class _Found:
    """What was measured of each form of a request, back to back and at a pace."""

    def __init__(self, forms: Iterable[str]) -> None:
        self._found: dict[str, list[dict[str, float]]] = {
            name: [] for form in forms for name in (form, f"{form}_of_100_a_second")
        }

    def add(self, form: str, back_to_back: dict[str, float], paced: dict[str, float]) -> None:
        self._found[form].append(back_to_back)
        self._found[f"{form}_of_100_a_second"].append(paced)

    def shown(self) -> dict[str, object]:
        return {name: _shown(found) for name, found in self._found.items()}


def main() -> None:
    """Measure, and print one JSON object."""
    machine.prefer(os.getpid())
    found: dict[str, object] = {"bar": FIRST_BAR}
    for name, (models, requests) in (("small", _small()), ("mid", _mid())):
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
            system = System(StateDir(Path(folder)))
            system.state.create()
            try:
                system.start_part(AZURITE)
                connection = system.storage_connection
                with closing(AzureBlobs.from_connection_string(connection)) as blobs:
                    _published(blobs, ENDPOINT, 1, models[1])
                    found[name] = _measured(blobs, connection, Path(folder) / "cache", models, requests)
            finally:
                system.stop()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
