"""The bare loop: the least that a fast server of models in Python can be, and what everything else is measured against.

httptools, uvloop, msgspec and ONNX Runtime; what arrived in one turn of the event loop runs as one batch at its end, on
the loop. No validation beyond the decoder's, no limits, no assignment, no counting, no metrics, no shutdown: nothing
that a server in production may leave out. With BARE_CONSTANT=1 no model runs either, and every answer is the same one:
the ceiling of the transport, and what the load generators are checked against.

Settings: BARE_MODEL, BARE_PORT, BARE_CONSTANT. It ends with SIGTERM's default.
"""

import asyncio
import os
from pathlib import Path
from typing import Any

import httptools
import msgspec
import numpy as np
import onnxruntime
import uvloop

_MOST_ROWS = 128
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
_CONSTANT = b'{"predictions":[[0.5]]}'


class Asked(msgspec.Struct):
    """A request's body; what else stands in it is skipped."""

    features: list[list[float]]


class Turn:
    """The requests of one turn of the loop, run together at its end."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [self._session.get_outputs()[0].name]
        self._waiting: list[tuple[Connection, list[list[float]]]] = []
        self._decode = msgspec.json.Decoder(Asked).decode
        self._encode = msgspec.json.Encoder().encode
        self._loop = asyncio.get_running_loop()

    def ask(self, connection: "Connection", body: bytes) -> None:
        """Answer a request at the end of this turn."""
        if not self._waiting:
            self._loop.call_soon(self._run)
        self._waiting.append((connection, self._decode(body).features))

    def _run(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), _MOST_ROWS):
            part = waiting[start : start + _MOST_ROWS]
            rows = np.array([row for _, asked in part for row in asked], dtype=np.float32)
            answers: list[Any] = self._session.run(self._outputs, {self._input: rows})[0].tolist()
            at = 0
            for connection, asked in part:
                connection.answer(self._encode({"predictions": answers[at : at + len(asked)]}))
                at += len(asked)


class Connection(asyncio.Protocol):
    """One connection. Requests that come before the last was answered are answered in order all the same: a turn is
    a queue.
    """

    def __init__(self, turn: Turn | None) -> None:
        self._turn = turn
        self._parser = httptools.HttpRequestParser(self)
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came."""
        self._write = transport.write  # type: ignore[attr-defined] # a stream's transport

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._parser.feed_data(data)

    def on_body(self, part: bytes) -> None:
        """A part of a body came."""
        self._body.append(part)

    def on_message_complete(self) -> None:
        """A request is whole."""
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._body.clear()
        if self._turn is None:
            self.answer(_CONSTANT)
        else:
            self._turn.ask(self, body)

    def answer(self, body: bytes) -> None:
        """Send an answer."""
        self._write(_HEAD % (len(body), body))


async def _serve() -> None:
    turn = None if os.environ.get("BARE_CONSTANT") else Turn(Path(os.environ["BARE_MODEL"]))
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(turn), "127.0.0.1", int(os.environ["BARE_PORT"])
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
