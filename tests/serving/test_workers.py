"""Several workers behind one port, and what happens when one dies, hangs, or loses its parent."""

import os
import resource
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
from azure.storage.blob import BlobServiceClient
from onnx import TensorProto, helper
from tritonclient import grpc as triton

from shared.routing.plan import artifact_blob_name
from tests.serving import models
from tests.serving.processes import Account, Launch, Server
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


def _endless(width: int = 1) -> bytes:
    """Counts to the number that it is given, so that a great number has it run for ever."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["count", "one"], ["counted"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("count", TensorProto.INT64, [width]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("counted", TensorProto.INT64, [width]),
        ],
    )
    return models.graph(
        [
            helper.make_node("ReduceMax", ["x"], ["times"], keepdims=0),
            helper.make_node("Loop", ["times", "", "zero"], ["y"], body=body),
        ],
        [("x", TensorProto.INT64, [width])],
        [("y", TensorProto.INT64, [width])],
        {"zero": [0] * width, "one": [1] * width},
    )


def _counting(factor: int = 1) -> bytes:
    """Gives as many as it is given: what `_endless` gives, at once."""
    return models.graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", TensorProto.INT64, [1])],
        [("y", TensorProto.INT64, [1])],
        {"factor": [factor]},
    )


def _served(server: Server, generation: int = 1) -> None:
    eventually(lambda: server.generation() == generation, what=f"generation {generation} is served")
    eventually(server.ready, what="the server is ready")


def _total(server: Server) -> float:
    """Requests of version 1 that were answered, as a scrape on a connection of its own tells."""
    with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if line.startswith("model_prediction_requests_total{") and 'outcome="success"' in line
    )


def _answered_without_the_api(server: Server) -> float:
    """Requests that the transports refused, as a scrape on a connection of its own tells."""
    with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith("http_server_refused_total{"))


def _refused(server: Server, count: int) -> None:
    """Make so many requests that no transport takes, each on a connection of its own."""
    url = httpx.URL(server.url)
    for _ in range(count):
        with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost : spaced\r\n\r\n")
            assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def _spread(server: Server, count: int) -> set[str]:
    """Make so many requests, each on a connection of its own; the marks of the processes that answered."""
    marks = set()
    for number in range(count):
        with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
            answer = client.post("/predict", json={"features": [[number, 1]]})
        assert answer.json()["predictions"] == [[number, 1]]
        marks.add(answer.json()["prediction_id"].rsplit(".", 2)[0].rsplit("-", 1)[-1])
    return marks


def test_two_workers_share_the_port_and_each_tells_of_both(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_WORKERS="2")
    _served(server)
    assert len(server.workers()) == 2
    assert len(_spread(server, 40)) == 2
    # A scrape tells what the asked worker counted to the last request, and the other up to a second ago.
    eventually(lambda: _total(server) == 40, what="all requests are counted")
    assert all(_total(server) == 40 for _ in range(10))
    _refused(server, 10)
    eventually(lambda: _answered_without_the_api(server) == 10, what="all refusals are counted")
    assert all(_answered_without_the_api(server) == 10 for _ in range(10))
    assert server.stop() == 0
    assert len({window.pod for window in account.windows()}) == 2
    assert sum(w.versions[1].requests for w in account.windows() if 1 in w.versions) == 40


def test_a_reload_that_one_worker_is_asked_for_reaches_all(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_WORKERS="2", SLIPWAY_POLL_S="3600")
    eventually(server.ready, what="the server is ready")
    account.publish(models.plan(2, models.route(1, ONE)))
    assert server.http.post("/models/reload").json()["endpoints"]["churn"]["generation"] == 2

    def generations() -> set[int]:
        found = set()
        for _ in range(12):
            with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
                found.add(client.get("/ab-test/stats").json()["endpoints"]["churn"]["generation"])
        return found

    eventually(lambda: generations() == {2}, what="both workers have the new plan")
    assert server.stop() == 0


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_worker_that_is_killed_is_replaced_and_no_counter_falls(
    account: Account, launch: Launch, workers: str
) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_WORKERS=workers)
    _served(server)
    _spread(server, 20)
    eventually(lambda: _total(server) == 20, what="all requests are counted")
    before = server.workers()
    for victim in before:
        os.kill(victim, signal.SIGKILL)
        # A connection that comes while nobody serves its place waits for who is next there.
        _spread(server, 5)
        assert _total(server) >= 20
    eventually(
        lambda: len(server.workers()) == int(workers) and not set(server.workers()) & set(before), what="all are new"
    )
    with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
        eventually(lambda: client.get("/ready").status_code == 200, what="the server is ready again")
    assert server.stop() == 0


def test_a_worker_that_follows_another_answers_once_it_has_what_its_plans_name(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    """Its file is gone from the disk and, for a while, from storage. Who asks meanwhile waits and is answered."""
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection)
    _served(server)
    with BlobServiceClient.from_connection_string(account.connection) as client:
        client.get_blob_client("artifacts", artifact_blob_name(models.digest(ONE))).delete_blob()
    (tmp_path / "cache" / "artifacts" / models.digest(ONE)).unlink()
    os.kill(server.workers()[0], signal.SIGKILL)
    eventually(lambda: "missing: " in (tmp_path / "server.log").read_text(), what="it finds that the file is gone")
    url, body = httpx.URL(server.url), b'{"features": [[3, 1]]}'
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        account.put(ONE)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    assert server.stop() == 0


@pytest.mark.long
def test_a_worker_that_stands_still_is_killed_and_replaced(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_HANG_S="0.5")
    _served(server)
    (before,) = server.workers()
    os.kill(before, signal.SIGSTOP)
    _spread(server, 2)
    assert server.workers() != [before]
    assert server.stop() == 0


@pytest.mark.long
def test_workers_end_when_their_parent_is_gone(account: Account, launch: Launch) -> None:
    server = launch(account.connection, SLIPWAY_WORKERS="2")
    workers = server.workers()
    assert len(workers) == 2
    server.process.kill()
    server.process.wait()
    eventually(lambda: not any(_is_running(pid) for pid in workers), what="both workers are gone")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_run_that_holds_the_event_loop_costs_its_worker_and_the_version_its_traffic(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    endless = _endless()
    account.put(_counting(), endless)
    account.publish(models.plan(1, *models.canary((1, _counting()), (2, endless), 9_999)))
    server = launch(account.connection, SLIPWAY_HANG_S="4")
    _served(server)
    assert server.predict([3], model_version=2).json()["predictions"] == [3]
    (before,) = server.workers()
    with httpx.Client(base_url=server.url, timeout=30, verify=NO_TLS) as client, pytest.raises(httpx.HTTPError):
        client.post("/predict", json={"features": [2**62]})
    eventually(lambda: before not in server.workers() and server.workers(), what="another worker is there")
    with httpx.Client(base_url=server.url, timeout=30, verify=NO_TLS) as client:
        eventually(lambda: client.get("/ready").status_code == 200, what="it is ready")
        tripped = client.get("/ab-test/stats").json()["endpoints"]["churn"]["tripped"]
        assert "hung" in tripped["2"]
        for number in range(20):
            answer = client.post("/predict", json={"features": [2**61 + number]}).json()
            assert (answer["model_version"], answer["predictions"]) == (1, [2**61 + number])
    assert [path.name for path in (tmp_path / "cache" / "trips").iterdir()] == ["churn.1.2"]
    assert server.stop() == 0


@pytest.mark.long
def test_two_hundred_loads_and_unloads_leave_a_worker_with_the_memory_it_had(account: Account, launch: Launch) -> None:
    """Of two versions in turn: some kB of counts of each stay for an hour or two."""
    data = [models.picky(1_000_000 + seed) for seed in range(2)]
    account.put(*data)
    account.publish(models.plan(1, models.route(1, data[1])))
    server = launch(account.connection)
    _served(server)
    taken: list[int] = []
    for generation in range(2, 242):
        version = 2 - generation % 2
        account.publish(models.plan(generation, models.route(version, data[generation % 2])))
        state = server.http.post("/models/reload").json()["endpoints"]["churn"]
        assert state["loaded"] == [version]
        assert server.predict([[generation % 5]]).json()["model_version"] == version
        if generation >= 22:
            taken.append(_anonymous_bytes(server.workers()[0]))
    # The least of some: the version before is there until its last window is closed.
    assert min(taken[-20:]) < min(taken[:20]) * 1.05
    assert server.stop() == 0


def _anonymous_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


@pytest.mark.long
def test_grpc_is_served_beside_by_every_worker(account: Account, launch: Launch) -> None:
    account.put(TWO)
    account.publish(models.plan(1, models.route(1, TWO)))
    server = launch(account.connection, SLIPWAY_WORKERS="2", SLIPWAY_GRPC_PORT="0")
    address = server.grpc_address()
    _served(server)
    for _ in range(8):
        with triton.InferenceServerClient(address) as client:
            asked = triton.InferInput("x", [1, 2], "FP32")
            asked.set_data_from_numpy(np.array([[1, 2]], np.float32))
            assert client.infer("churn", [asked]).as_numpy("y").tolist() == [[2.0, 4.0]]
    assert server.stop() == 0


def test_connections_of_grpc_leave_http_the_files_that_it_needs(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_GRPC_PORT="0")
    address, _, port = server.grpc_address().rpartition(":")
    _served(server)
    resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (400, 400))  # holds for workers that start from now on
    first = server.workers()
    os.kill(first[0], signal.SIGKILL)
    eventually(lambda: server.workers() not in ([], first) and server.ready(), what="another worker serves")
    server.http.close()
    with ExitStack() as stack:
        opened = [stack.enter_context(socket.create_connection((address, int(port)))) for _ in range(500)]
        for one in opened:
            _speak_http2(one)
        assert all(_ends(one) for one in opened[-100:])
        assert httpx.get(server.http.base_url.join("/health"), timeout=30, verify=NO_TLS).status_code == 200


def _speak_http2(connection: socket.socket) -> None:
    """What a client of gRPC says first: without it the server would end the connection in any case."""
    with suppress(ConnectionError):
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0")


def _ends(connection: socket.socket) -> bool:
    connection.settimeout(20)
    try:
        while connection.recv(1 << 16):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True
