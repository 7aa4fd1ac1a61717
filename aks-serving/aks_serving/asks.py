"""Predictions asked for over HTTP: each renders its answer and replies to its exchange."""

import math
from typing import Any

import msgspec

from aks_serving import plain, v2
from aks_serving.batches import Results
from aks_serving.encodings import packed
from aks_serving.engine import NORMAL
from aks_serving.exchange import Exchange, Head, Headers, Response
from aks_serving.failures import failure
from aks_serving.predictor import Ask, Read, prediction_of
from aks_serving.serving import Face, Serving
from shared.core.errors import SlipwayError

_PREDICTION_ID = b"x-slipway-prediction-id"
_encode = msgspec.json.Encoder().encode


class HttpAsk(Ask):
    """An ask whose answer goes to an exchange. `extra` are headers of the answer."""

    __slots__ = ("exchange", "extra")

    def __init__(
        self,
        exchange: Exchange,
        serving: Serving,
        *,
        packed: bytes | None = None,
        rows: int | None = None,
        read: Read | None = None,
        held_bytes: int = 0,
        deadline_s: float = math.inf,
        priority: int = NORMAL,
        extra: Headers = (),
    ) -> None:
        super().__init__(
            serving,
            started_s=exchange.received_s,
            packed=packed,
            rows=rows,
            read=read,
            held_bytes=held_bytes,
            deadline_s=deadline_s,
            priority=priority,
        )
        self.exchange = exchange
        self.extra = extra

    @property
    def gone(self) -> bool:
        return self.exchange.gone

    def reply(self, head: Head, body: bytes, extra: Headers) -> None:
        """Reply, in the coding that the client likes."""
        response = Response(head, body, extra)
        accepted = self.exchange.headers.get(b"accept-encoding")
        self.exchange.reply(response if accepted is None else packed(response, accepted))

    def refuse(self, error: SlipwayError) -> None:
        self.exchange.reply(failure(error))


class PlainAsk(HttpAsk):
    """Answers as the plain API does."""

    __slots__ = ()

    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:
        serving = self.serving
        face = serving.face(self.route.version, self.kind)
        number = serving.numbering.next()
        body = plain.response(face, number, results, start, stop, (now_s - self.started_s) * 1e3)
        extra = ((_PREDICTION_ID, face.id_prefix + number), *self.extra)
        self.reply(face.head, body, extra)


class V2Ask(HttpAsk):
    """Answers a usual request of the inference protocol: all outputs, all as JSON or all as binary data."""

    __slots__ = ("binary", "request_id")

    request_id: str | None
    binary: bool

    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:  # noqa: ARG002 - as Ask has it
        serving = self.serving
        face = serving.face(self.route.version, self.kind)
        extra: Headers = ((_PREDICTION_ID, face.id_prefix + serving.numbering.next()), *self.extra)
        request_id = b"" if self.request_id is None else b'"id":%b,' % _encode(self.request_id)
        if self.binary:
            body, header_length = _binary(face, request_id, results, start, stop)
            extra = ((b"inference-header-content-length", b"%d" % header_length), *extra)
            self.reply(face.binary_head, body, extra)
        else:
            self.reply(face.head, _json(face, request_id, results, start, stop), extra)


class GeneralV2Ask(HttpAsk):
    """Answers any request of the inference protocol."""

    __slots__ = ("request",)

    request: v2.InferRequest

    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:  # noqa: ARG002 - as Ask has it
        prediction = prediction_of(self, results, start, stop)
        face = self.serving.face(self.route.version, self.kind)
        encoded = v2.response(self.request, prediction, self.serving.plan.endpoint)
        extra: Headers = ((_PREDICTION_ID, prediction.prediction_id.encode()), *self.extra)
        if encoded.header_length is None:
            self.reply(face.head, encoded.body, extra)
            return
        length = (b"inference-header-content-length", b"%d" % encoded.header_length)
        self.reply(face.binary_head, encoded.body, (length, *extra))


def _json(face: Face, request_id: bytes, results: Results, start: int, stop: int) -> bytes:
    parts = [
        b"%b%b}" % (begin, _encode(_flat(results, values, array.ndim, start, stop)))
        for begin, array, values in zip(
            _begins(face, results, stop - start), results.arrays, results.lists(), strict=True
        )
    ]
    return b'%b%b"outputs":[%b]}' % (face.v2_start, request_id, b",".join(parts))


def _begins(face: Face, results: Results, rows: int) -> list[bytes]:
    """What stands before the data of each output, for calls of so many rows. Made once for a batch's calls."""
    found: list[bytes] | None = results.memo.get(rows)
    if found is None:
        shapes = [array.shape if results.whole else (rows, *array.shape[1:]) for array in results.arrays]
        found = results.memo[rows] = [
            b'%b%b],"data":' % (begin, ",".join(map(str, shape)).encode())
            for begin, shape in zip(face.v2_outputs, shapes, strict=True)
        ]
    return found


def _flat(results: Results, values: Any, rank: int, start: int, stop: int) -> Any:  # noqa: ANN401 - lists by rank
    if rank == 0:
        return [values]
    rows = values if results.whole else values[start:stop]
    return rows if rank == 1 else _flattened(rows, rank - 1)


def _flattened(rows: list[object], depth: int) -> list[object]:
    for _ in range(depth):
        rows = rows[0] if len(rows) == 1 else [value for row in rows for value in row]  # type: ignore[assignment,attr-defined]
    return rows


def _binary(face: Face, request_id: bytes, results: Results, start: int, stop: int) -> tuple[bytes, int]:
    data = [array.tobytes() for array in results.of(start, stop)]
    key = "binary", stop - start
    outputs: bytes | None = results.memo.get(key)
    if outputs is None:
        shapes = [array.shape if results.whole else (stop - start, *array.shape[1:]) for array in results.arrays]
        outputs = results.memo[key] = b",".join(
            b'%b%b],"parameters":{"binary_data_size":%d}}' % (begin, ",".join(map(str, shape)).encode(), len(raw))
            for begin, shape, raw in zip(face.v2_outputs, shapes, data, strict=True)
        )
    header = b'%b%b"outputs":[%b]}' % (face.v2_start, request_id, outputs)
    return b"".join((header, *data)), len(header)
