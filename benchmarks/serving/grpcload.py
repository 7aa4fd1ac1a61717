"""The closed loop of gRPC: unary calls over connections of their own, each sending the next when the last is answered.

What wrk is for HTTP/1.1 (benchmarks.serving.wrk), and told of in the same figures. Run as a process of its own on the
loading core: `python -m benchmarks.serving.grpcload PORT FILE CONNECTIONS SECONDS`, FILE as `wire.save` writes it, of
messages. Prints one JSON object.
"""

import gc
import json
import select
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

from benchmarks.serving import wire
from benchmarks.serving.http2 import Calls
from benchmarks.serving.openloop import quantile
from benchmarks.serving.wrk import Load, LoadError

METHOD = "/inference.GRPCInferenceService/ModelInfer"
_TIMEOUT_S = 10.0
_GRACE_S = 30.0
_RECEIVE_BYTES = 262_144
_POLL_S = 0.05


class _Connection:
    __slots__ = ("asked_s", "calls", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout=_TIMEOUT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.calls = Calls(f"127.0.0.1:{port}", METHOD)
        self.sock.sendall(self.calls.opening)
        self.asked_s: float | None = None
        """When it sent the call that is not answered yet."""

    def ask(self, message: bytes) -> None:
        self.asked_s = perf_counter()
        self.sock.sendall(self.calls.call(message))

    def receive(self) -> bytes | None:
        data = self.sock.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the server closed a connection that it should keep")
        reply, answer = self.calls.feed(data)
        if reply:
            self.sock.sendall(reply)
        return answer


def call(port: int, message: bytes) -> bytes:
    """One call over a connection of its own; empty where the server answers with an error. Raises OSError."""
    connection = _Connection(port)
    with connection.sock:
        connection.ask(message)
        while (answer := connection.receive()) is None:
            pass
        return answer


def ask_all(port: int, messages: Sequence[bytes], *, connections: int, duration_s: float) -> Load:
    """Ask for so long; what is not answered by then is left out. Raises OSError or Http2Error."""
    made = [_Connection(port) for _ in range(connections)]
    by_number = {one.sock.fileno(): one for one in made}
    poll = select.epoll()
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    latencies_s: list[float] = []
    failed = sent = 0
    began_s = now_s = perf_counter()
    for one in made:
        one.ask(messages[sent % len(messages)])
        sent += 1
    try:
        while now_s - began_s < duration_s:
            for number, _ in poll.poll(_POLL_S):
                one = by_number[number]
                answer = one.receive()
                if answer is not None and one.asked_s is not None:
                    latencies_s.append(perf_counter() - one.asked_s)
                    one.asked_s = None
                    failed += not answer
                if one.asked_s is None and one.calls.may_call(messages[sent % len(messages)]):
                    one.ask(messages[sent % len(messages)])
                    sent += 1
            now_s = perf_counter()
    finally:
        poll.close()
        for one in made:
            one.sock.close()
    return _load(sorted(latencies_s), now_s - began_s, failed)


def run(port: int, messages: Path, *, connections: int, duration_s: int, core: str) -> Load:
    """Ask from a process on a core of its own. Raises LoadError where anything failed."""
    module = [sys.executable, "-m", "benchmarks.serving.grpcload", str(port), str(messages)]
    command = ["taskset", "-c", core, *module, str(connections), str(duration_s)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=duration_s + _GRACE_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"gRPC calls to port {port} did not end within {error.timeout} s") from error
    if ended.returncode != 0:
        raise LoadError(f"gRPC calls to port {port} failed: {ended.stderr.strip()[-500:]}")
    load = Load(**json.loads(ended.stdout))
    if load.failed or not load.requests:
        raise LoadError(f"{load.failed} of {load.requests} gRPC calls to port {port} failed: see the server's log")
    return load


def _load(ordered_s: Sequence[float], duration_s: float, failed: int) -> Load:
    return Load(
        requests=len(ordered_s),
        duration_s=duration_s,
        p50_ms=quantile(ordered_s, 0.5) * 1e3,
        p90_ms=quantile(ordered_s, 0.9) * 1e3,
        p99_ms=quantile(ordered_s, 0.99) * 1e3,
        max_ms=quantile(ordered_s, 1.0) * 1e3,
        failed=failed,
    )


def main(arguments: Sequence[str]) -> None:
    """Run, and print what was found."""
    port, path, connections, seconds = arguments
    messages = wire.load(Path(path))
    gc.disable()
    found = ask_all(int(port), messages, connections=int(connections), duration_s=float(seconds))
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
