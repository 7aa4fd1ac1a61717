"""What spans cost a prediction: the model server with them off and on, asked with and without a caller's trace.

Run `.venv/bin/python -m benchmarks.tracing_cost [ROUNDS [SECONDS]]` (8 rounds of 2 s by default), with wrk on PATH and
SLIPWAY_NODE_MODULES saying where Azurite is. Both servers serve the small model (30 numbers a row), on one core; the
load, and what takes the spans over OTLP, are on another. Every round asks in every way, in turns forwards and
backwards. Told of each: processor time of the server a request, what sends the spans included, as the median of the
rounds' ratios to spans off and no trace, with their range, and the 99th percentile of the closed loop's latencies. At
full load spans come faster than they are sent: those beyond the queue are dropped, and the last line says how many
came.
"""

import os
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from benchmarks.serving import machine, subjects, wire, wrk
from benchmarks.serving.machine import Cores
from benchmarks.serving.rounds import Ask
from benchmarks.serving.subjects import TRACED, UNTRACED, Subject
from benchmarks.serving.wire import Form
from benchmarks.serving.workloads import SMALL, workload

ROUNDS, SECONDS = 8, 2
ASKS = (
    Ask(form=Form.PLAIN, rows=1, connections=1),
    Ask(form=Form.PLAIN, rows=1, connections=64),
    Ask(form=Form.V2_BINARY, rows=1, connections=64),
)
SAMPLED, UNSAMPLED = (f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}" for flags in ("01", "00"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A server, and the traces that its callers send, by turns; none for no header."""

    name: str
    server: str
    traces: tuple[str, ...] = ()


WAYS = (
    Way(name="off, no trace", server=UNTRACED),
    Way(name="off, each sampled", server=UNTRACED, traces=(SAMPLED,)),
    Way(name="on, no trace", server=TRACED),
    Way(name="on, none sampled", server=TRACED, traces=(UNSAMPLED,)),
    Way(name="on, 1 in 100 sampled", server=TRACED, traces=(SAMPLED, *[UNSAMPLED] * 99)),
    Way(name="on, each sampled", server=TRACED, traces=(SAMPLED,)),
)


@dataclass(slots=True)
class Receiver:
    """What takes the spans: where, and how many came."""

    port: int = 0
    spans: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one way of asking, in one round."""

    cpu_us: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What is measured, and where."""

    servers: Mapping[str, Subject]
    cores: Cores
    folder: Path
    files: dict[tuple[str, Ask], Path] = field(default_factory=dict)

    def requests(self, way: Way, ask: Ask) -> Path:
        """The file of a way's requests, written where it is not there yet."""
        path = self.files.get((way.name, ask))
        if path is None:
            path = self.files[way.name, ask] = self.folder / f"{len(self.files)}.http"
            server = self.servers[way.server]
            messages = server.messages(ask.form, ask.rows)
            traces = cycle(way.traces or (None,))
            traced = (
                one if trace is None else replace(one, headers=(*one.headers, ("traceparent", trace)))
                for one, trace in zip(messages, traces, strict=False)
            )
            wire.save((one.http1(server.port) for one in traced), path)
        return path

    def measured(self, way: Way, ask: Ask, duration_s: int) -> Cost:
        """Ask in one way; the other server is stopped meanwhile."""
        server, requests = self.servers[way.server], self.requests(way, ask)
        machine.thaw(server.pid)
        before_s = machine.cpu_s(server.pid)
        load = wrk.run(server.url, requests, connections=ask.connections, duration_s=duration_s, core=self.cores.load)
        cpu_us = (machine.cpu_s(server.pid) - before_s) / load.requests * 1e6
        machine.freeze(server.pid)
        return Cost(cpu_us=cpu_us, p99_ms=load.p99_ms)

    def round(self, number: int, duration_s: int) -> dict[tuple[str, Ask], Cost]:
        """Ask in every way once."""
        ways = WAYS if number % 2 else WAYS[::-1]
        return {(way.name, ask): self.measured(way, ask, duration_s) for ask in ASKS for way in ways}


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Take spans over OTLP until the end of the block."""
    found = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            asked = ExportTraceServiceRequest.FromString(data)
            found.spans += sum(len(scope.spans) for one in asked.resource_spans for scope in one.scope_spans)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def main(count: int = ROUNDS, duration_s: int = SECONDS) -> None:
    """Measure, and write a table."""
    cores = Cores.of_this_machine()
    os.sched_setaffinity(0, {int(cores.load)})
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        small = workload(SMALL, folder)
        connection = stack.enter_context(subjects.storage(folder))
        receiver = stack.enter_context(receiving())
        sends = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.port}"}
        servers = {
            name: stack.enter_context(
                subjects.slipway(
                    small, connection=connection, folder=folder, core=cores.serve, name=name, more=settings
                )
            )
            for name, settings in ((UNTRACED, {}), (TRACED, sends))
        }
        bench = Bench(servers=servers, cores=cores, folder=folder)
        for server in servers.values():
            machine.freeze(server.pid)
        try:
            bench.round(0, 1)
            rounds = [bench.round(number, duration_s) for number in range(count)]
        finally:
            for server in servers.values():
                machine.thaw(server.pid)
    print("| asked | spans | us of processor a request | ratio (range) | p99 (ms) |")
    print("| --- | --- | --- | --- | --- |")
    for ask in ASKS:
        for way in WAYS:
            print(_line(ask, way, rounds))
    print(f"\n{receiver.spans:,} spans came")


def _line(ask: Ask, way: Way, rounds: Sequence[Mapping[tuple[str, Ask], Cost]]) -> str:
    costs = [one[way.name, ask] for one in rounds]
    ratios = [one[way.name, ask].cpu_us / one[WAYS[0].name, ask].cpu_us for one in rounds]
    return (
        f"| {ask.form}, {ask.connections} at once | {way.name} | {_median(cost.cpu_us for cost in costs):.1f} "
        f"| {_median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}) "
        f"| {_median(cost.p99_ms for cost in costs):.2f} |"
    )


_median = statistics.median


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
