"""The server as a process of its own, over Azurite: started, stopped, killed, and started again without storage."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from shared.routing.plan import Signing
from shared.telemetry.window import merge_counts
from tests.serving import models
from tests.serving.processes import ROOT, Account, Launch, dead_connection
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually
from tests.unit.signing import made

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


def test_a_pod_follows_the_plans_in_storage_and_writes_its_windows_there(account: Account, launch: Launch) -> None:
    account.put(ONE, TWO)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_POD="pod-a")
    eventually(lambda: server.generation() == 1, what="generation 1 is served")
    for _ in range(5):
        assert server.predict([[1, 2]]).json()["predictions"] == [[1.0, 2.0]]
    account.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 10_000)))
    eventually(lambda: server.generation() == 2, what="generation 2 is served")
    assert server.predict([[1, 2]]).json()["predictions"] == [[2.0, 4.0]]
    account.write_plan("churn", b'{"torn')
    account.write_plan("Not An Endpoint", b"")
    account.write_plan("empty", b"")
    account.publish(models.plan(1, models.route(1, TWO), endpoint="fraud"))
    eventually(lambda: server.predict([[1, 2]], model="fraud").status_code == 200, what="fraud is served")
    assert server.generation() == 2
    assert server.stop() == 0
    windows = [window for window in account.windows() if window.endpoint == "churn"]
    assert all(window.pod.startswith("pod-a-") for window in windows)
    assert {(w.generation, tuple(w.loaded)) for w in windows} == {(1, (1,)), (2, (1, 2))}
    assert merge_counts([w.versions[1] for w in windows if 1 in w.versions]).requests == 5
    assert merge_counts([w.versions[2] for w in windows if 2 in w.versions]).requests == 1


def test_a_pod_starts_from_its_cache_while_storage_is_down(account: Account, launch: Launch, tmp_path: Path) -> None:
    account.put(TWO)
    account.publish(models.plan(3, models.route(2, TWO)))
    stopping = []
    for end in (signal.SIGTERM, signal.SIGKILL):
        cache = tmp_path / end.name
        first = launch(account.connection, SLIPWAY_CACHE_DIR=str(cache))
        eventually((cache / "plans" / "churn.json").exists, what="the plan is kept on disk")
        first.process.send_signal(end)
        first.process.wait(30)
        second = launch(dead_connection(), SLIPWAY_CACHE_DIR=str(cache))
        eventually(second.ready, what="the pod is ready from its cache")
        answer = second.predict([[1, 2]]).json()
        assert (answer["predictions"], answer["generation"]) == ([[2.0, 4.0]], 3)
        # Storage that is down holds up a stop for some seconds: both pods spend them at once.
        second.process.send_signal(signal.SIGTERM)
        stopping.append(second.process)
    assert [process.wait(30) for process in stopping] == [0, 0]


def test_sigterm_is_not_ready_at_once_finishes_requests_and_flushes(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_DRAIN_S="5", SLIPWAY_WINDOW_S="60")
    eventually(lambda: server.generation() == 1, what="generation 1 is served")
    eventually(server.ready, what="the pod is ready")
    answered = [0] * 4
    closed = [0] * 4
    broken: list[str] = []

    def caller(number: int) -> None:
        # Each on its own connection, which it opens anew when an answer closes it, until the port is closed to it.
        with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
            while True:
                try:
                    answer = client.post("/predict", json={"features": [[number, 1]]})
                except httpx.ConnectError:
                    return
                except httpx.HTTPError as error:
                    broken.append(repr(error))
                    return
                if answer.status_code != 200 or answer.json()["predictions"] != [[number, 1]]:
                    broken.append(answer.text)
                answered[number] += 1
                closed[number] += answer.headers.get("connection") == "close"

    callers = [threading.Thread(target=caller, args=(number,)) for number in range(4)]
    for thread in callers:
        thread.start()
    eventually(lambda: min(answered) > 20, what="all callers are answered")
    server.process.send_signal(signal.SIGTERM)
    eventually(lambda: not server.ready(), what="the pod is not ready")
    at_signal = sum(answered)
    assert server.process.wait(30) == 0
    for thread in callers:
        thread.join(30)
    assert sum(answered) > at_signal
    counted = sum(w.versions[1].requests for w in account.windows() if 1 in w.versions)
    assert not broken
    assert min(closed) > 1
    assert counted == sum(answered)


def test_hostile_requests_leave_the_process_answering(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection, SLIPWAY_MAX_BODY_BYTES="20000")
    eventually(lambda: server.generation() == 1, what="generation 1 is served")
    address = ("127.0.0.1", int(server.url.rsplit(":", 1)[1]))
    for raw in (
        b"\x00\xff\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(raw)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass
    assert server.http.post("/predict", content=b" " * 30_000).status_code == 413
    deep = json.dumps({"features": [[1, 2]]}).replace("[[1, 2]]", "[" * 9_000 + "]" * 9_000)
    assert server.http.post("/predict", content=deep).status_code == 400
    assert server.predict([[1, 2]]).status_code == 200


def test_a_pod_with_keys_of_its_own_serves_a_signed_model_in_several_files_and_nothing_else(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    table = models.numbers(*(float(number) for number in range(1000)))
    data = models.lookup(("data/table.bin", 0, len(table)))
    key = made.public_key(made.private_key())
    signature = made.signed({"model.onnx": models.digest(data), "data/table.bin": models.digest(table)})
    (tmp_path / "release.pem").write_text(key.pem)
    account.put(ONE, data, table, signature)
    signing = Signing(digest=models.digest(signature), trusted_keys=(key.pem,))
    signed = models.route(1, data, external={"data/table.bin": table}, signing=signing)
    account.publish(models.plan(1, signed))
    server = launch(account.connection, SLIPWAY_TRUSTED_KEYS=str(tmp_path / "release.pem"))
    eventually(lambda: server.generation() == 1, what="generation 1 is served")
    assert server.predict([[7], [999]]).json()["predictions"] == [[7.0], [999.0]]
    account.publish(models.plan(2, models.route(2, ONE)))
    eventually(
        lambda: any("2" in e["failed"] for e in server.http.post("/models/reload").json()["endpoints"].values()),
        what="the unsigned version is refused",
    )
    assert server.predict([[7]]).json()["model_version"] == 1
    assert server.stop() == 0
    assert account.windows()[-1].failed[2].startswith("unsigned: ")


def test_an_address_of_ipv6_is_told_in_brackets(launch: Launch) -> None:
    with socket.socket(socket.AF_INET6) as tried:
        try:
            tried.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no loopback for IPv6")
    server = launch(dead_connection(), SLIPWAY_BIND="::1", SLIPWAY_GRPC_PORT="0")
    assert server.url.startswith("http://[::1]:")
    assert server.http.get("/health").status_code == 200
    assert server.grpc_address().startswith("[::1]:")
    assert server.stop() == 0


def test_a_bad_setting_ends_the_start_with_a_sentence(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    good = {
        "SLIPWAY_STORAGE_CONNECTION": dead_connection(),
        "SLIPWAY_CACHE_DIR": str(tmp_path),
        "SLIPWAY_PORT": "0",
    }
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for change, named in (
            ({"SLIPWAY_PORT": "x"}, "SLIPWAY_PORT"),
            ({"SLIPWAY_STORAGE_CONNECTION": "rubbish"}, "SLIPWAY_STORAGE_CONNECTION"),
            ({"SLIPWAY_PORT": str(taken.getsockname()[1])}, "SLIPWAY_PORT"),
            ({"SLIPWAY_BIND": "no.such.address"}, "SLIPWAY_BIND"),
            ({"SLIPWAY_BIND": "https://no.such?sig=c2VjcmV0"}, "SLIPWAY_BIND 'https://no.such?sig=***"),
            ({"SLIPWAY_TRUSTED_KEYS": str(tmp_path)}, "SLIPWAY_TRUSTED_KEYS"),
        ):
            ended = subprocess.run(
                [sys.executable, "-m", "aks_serving"],
                env=environment | good | change,
                cwd=ROOT,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert ended.returncode == 2, ended.stderr
            assert ended.stderr.decode().startswith("error: ")
            assert named in ended.stderr.decode()
            assert b"c2VjcmV0" not in ended.stderr
            assert b"Traceback" not in ended.stderr


@pytest.mark.parametrize(("given", "code"), [("--help", 0), ("--port=80", 2)])
def test_it_takes_no_arguments_and_says_where_its_settings_are(given: str, code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "aks_serving", given], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == code
    told, quiet = (ended.stderr, ended.stdout) if code else (ended.stdout, ended.stderr)
    assert "All settings are environment variables" in told
    assert not quiet
    assert ("error: there are no arguments, and '--port=80' was given" in told) == bool(code)
