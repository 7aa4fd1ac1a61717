"""What the heads of requests cost: those of a bare load generator, of a client's library, and of a gateway before it.

Run `.venv/bin/python -m benchmarks.heads`. The small model, one row of JSON, 64 connections, one server at a time on
one core and wrk on the other, in interleaved rounds, beside FastAPI with uvicorn and httptools. A client's library adds
the same lines to each request; a gateway numbers and traces each, so that no two heads are alike. What is told is the
rate beside the same server's with bare heads, and beside FastAPI's with the same heads.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from benchmarks.serving import catalogue, machine, subjects, wire, workloads, wrk
from benchmarks.serving.environments import cache_folder
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Spread
from benchmarks.serving.subjects import Subject
from benchmarks.serving.wire import Form

_CONNECTIONS = 64
_DRAWN = 16
"""How many times a gateway's requests are written, each with numbers of its own: a load generator that begins its file
again must not send heads that came a moment ago."""
_LIBRARY = (
    ("User-Agent", "python-requests/2.32.3"),
    ("Accept-Encoding", "gzip, deflate"),
    ("Accept", "*/*"),
    ("Connection", "keep-alive"),
)
_SERVERS = (catalogue.FASTAPI, subjects.SLIPWAY_ONE, subjects.SLIPWAY)
_BARE, _CLIENT, _GATEWAY = "bare", "a client's library", "behind a gateway"
_HEADS = (_BARE, _CLIENT, _GATEWAY)

type Headers = tuple[tuple[str, str], ...]


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2)
    asked = parser.parse_args(arguments)
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {int(cores.load)})
    machine.prefer(os.getpid())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = _started(stack, folder, cores)
        files = {
            (name, heads): _requests(server, heads, folder) for name, server in servers.items() for heads in _HEADS
        }
        rates = _rates(servers, files, cores, rounds=asked.rounds, seconds=asked.seconds)
    for name in _SERVERS:
        for heads in _HEADS:
            found = rates[name, heads]
            beside = [a / b for a, b in zip(found, rates[name, _BARE], strict=True)]
            over = [a / b for a, b in zip(found, rates[catalogue.FASTAPI, heads], strict=True)]
            print(f"{name}, {heads}: {Spread.of(found)} a second; over its bare heads {Spread.of(beside)}", end="")
            print(f"; over FastAPI {Spread.of(over)}")
    return 0


def _started(stack: ExitStack, folder: Path, cores: Cores) -> dict[str, Subject]:
    """The servers by name, all of them stopped where they stand."""
    cache = cache_folder(os.environ)
    workload = workloads.workload("small", cache)
    peer = catalogue.peer(catalogue.FASTAPI)
    connection = stack.enter_context(subjects.storage(folder))
    started = {
        catalogue.FASTAPI: stack.enter_context(
            subjects.peer(peer, peer.variants[0], workload, cache=cache, folder=folder, core=cores.serve)
        )
    }
    for name in _SERVERS[1:]:
        started[name] = stack.enter_context(
            subjects.slipway(workload, connection=connection, folder=folder, core=cores.serve, name=name)
        )
    for server in started.values():
        machine.freeze(server.pid)
    return started


def _rates(
    servers: Mapping[str, Subject],
    files: Mapping[tuple[str, str], Path],
    cores: Cores,
    *,
    rounds: int,
    seconds: int,
) -> dict[tuple[str, str], list[float]]:
    """Answers a second, of each server and each kind of heads, round by round."""
    found: dict[tuple[str, str], list[float]] = {key: [] for key in files}
    for number in range(rounds):
        turn = number % len(_SERVERS)
        for name in (*_SERVERS[turn:], *_SERVERS[:turn]):
            server = servers[name]
            machine.thaw(server.pid)
            for heads in _HEADS:
                for duration_s in (1, seconds):  # the first one warms
                    load = wrk.run(
                        server.url, files[name, heads], connections=_CONNECTIONS, duration_s=duration_s, core=cores.load
                    )
                found[name, heads].append(load.rate)
            machine.freeze(server.pid)
    return found


def _requests(server: Subject, heads: str, folder: Path) -> Path:
    drawn = random.Random(7)
    path = folder / f"{server.name}-{_HEADS.index(heads)}.http"
    messages = server.messages(Form.PLAIN, 1) * (_DRAWN if heads == _GATEWAY else 1)
    wire.save((replace(one, headers=one.headers + _headers(heads, drawn)).http1(server.port) for one in messages), path)
    return path


def _headers(heads: str, drawn: random.Random) -> Headers:
    if heads == _BARE:
        return ()
    if heads == _CLIENT:
        return _LIBRARY
    return (
        *_LIBRARY,
        ("X-Request-Id", str(UUID(int=drawn.getrandbits(128)))),
        ("Traceparent", f"00-{drawn.getrandbits(128):032x}-{drawn.getrandbits(64):016x}-00"),
        ("X-Forwarded-For", "10.0.0.7"),
        ("X-Forwarded-Proto", "https"),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
