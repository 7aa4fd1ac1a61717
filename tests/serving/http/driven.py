"""A connection driven by hand: what the event loop would do is done by the test, on a clock of its own."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httptools
from aks_serving.exchange import OK, Exchange, Response
from aks_serving.http.access import Tokens
from aks_serving.http.limits import Limits
from aks_serving.http.protocol import Connection
from aks_serving.http.state import Shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer, read by llhttp."""

    status: int
    headers: dict[str, str]
    body: bytes
    date: str = field(compare=False)
    """Not among the headers: it may change between two answers that are otherwise the same."""

    def json(self) -> Any:
        return json.loads(self.body)


class _Reader:
    """What httptools calls."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.parser = httptools.HttpResponseParser(self)
        self._headers: dict[str, str] = {}
        self._body = b""

    def on_message_begin(self) -> None:
        self._headers, self._body = {}, b""

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        date = self._headers.pop("date")
        self.answers.append(
            Answer(status=self.parser.get_status_code(), headers=self._headers, body=self._body, date=date)
        )


def answers_in(wire: bytes) -> list[Answer]:
    """The answers in what a server wrote. Fails the test where it wrote anything else."""
    reader = _Reader()
    if wire:
        reader.parser.feed_data(wire)
    return reader.answers


class FakeTransport(asyncio.Transport):
    """A socket's place: keeps what is written. `taken` is how much of that the client has read; all, if not told."""

    def __init__(self, *, half_closes: bool = True) -> None:
        super().__init__()
        self._written = bytearray()
        self.writes = 0
        self.taken: int | None = None
        self.ended = self.closed = self.aborted = self.paused = False
        self._half_closes = half_closes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, "written after the end"
        assert not self.closed, "written after the close"
        self.writes += 1
        self._written += data

    @property
    def written(self) -> bytes:
        """All that was written."""
        return bytes(self._written)

    def can_write_eof(self) -> bool:
        return self._half_closes

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_write_buffer_size(self) -> int:
        return 0 if self.taken is None else len(self._written) - self.taken


def told(exchange: Exchange) -> Response:
    """All that a handler sees of a request, as a response."""
    seen = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query.decode(),
        "headers": {name.decode(): value.decode("latin-1") for name, value in exchange.headers.items()},
        "body": exchange.body.decode("latin-1"),
    }
    return Response(OK, json.dumps(seen).encode())


class Driven:
    """A connection, its fake transport, and a handler that tells what it saw, at once or (`later`) when asked."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        tokens: Tokens | None = None,
        later: bool = False,
        handle: Callable[[Exchange], None] | None = None,
        half_closes: bool = True,
        connect: bool = True,
    ) -> None:
        self.now_s = 1000.0
        self.seen: list[Exchange] = []
        self._later = later
        self.shared = Shared(handle or self._handle, limits or Limits(), tokens, lambda: self.now_s)
        self.transport = FakeTransport(half_closes=half_closes)
        self.connection = Connection(self.shared)
        if connect:
            self.connection.connection_made(self.transport)

    def _handle(self, exchange: Exchange) -> None:
        self.seen.append(exchange)
        if not self._later:
            exchange.reply(told(exchange))

    def send(self, *pieces: bytes) -> None:
        """Give what came to the connection, as an event loop would: nothing after the close."""
        for piece in pieces:
            if not self.transport.closed:
                self.connection.data_received(piece)

    def reply(self, number: int) -> None:
        """Answer the request that came as the `number`th, from 0."""
        self.seen[number].reply(told(self.seen[number]))

    def pass_s(self, seconds: float) -> None:
        """Let time pass, swept once at its end."""
        self.now_s += seconds
        self.connection.sweep(self.now_s)

    def paused(self) -> bool:
        """Whether the server reads nothing now."""
        return self.transport.paused

    @property
    def answers(self) -> list[Answer]:
        return answers_in(self.transport.written.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b""))

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.answers]

    @property
    def over(self) -> bool:
        """Whether the server ended or closed the connection."""
        return self.transport.ended or self.transport.closed


def request(
    path: str = "/predict", *, body: bytes = b"", method: str | None = None, headers: tuple[str, ...] = ()
) -> bytes:
    """A request as an ordinary client sends it."""
    lines = [f"{method or ('POST' if body else 'GET')} {path} HTTP/1.1", "Host: localhost", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*chunks: bytes, path: str = "/predict", trailer: bytes = b"") -> bytes:
    """A request whose body comes in chunks."""
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    head = request(path, method="POST", headers=("Transfer-Encoding: chunked",))
    return head + data + b"0\r\n" + trailer + b"\r\n"
