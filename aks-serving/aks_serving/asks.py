"""Predictions asked for over HTTP: each renders its answer and replies to its exchange.

Usual requests that a batch answered are told together: what they have in common is looked up, counted and numbered once
for all of them. Each is still answered by itself, and fails by itself.
"""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from aks_serving import plain, v2
from aks_serving.awaited import prediction_of
from aks_serving.batches import Results
from aks_serving.calls import Call
from aks_serving.counts import Kind
from aks_serving.encodings import MIN_WORTHWHILE_BYTES, packed
from aks_serving.exchange import PREDICTION_ID, Exchange, Head, Headers, Response
from aks_serving.failures import failure
from aks_serving.predictor import Ask
from aks_serving.serving import CANDIDATE_OK, STABLE_OK, Face
from shared.core.errors import InvalidInputError, SlipwayError
from shared.core.tracing import Span
from shared.routing.plan import Role

log = logging.getLogger(__name__)

_ACCEPTED = b"accept-encoding"
_FLAT_RANK = 2
"""Of an output whose rows are flat lists."""
_encode = msgspec.json.Encoder().encode


class HttpAsk(Ask):
    """An ask whose answer goes to an exchange. `extra` are headers of the answer. Both are set by whoever makes it: one
    is made for each request, and a second initializer would cost each of them more than these two lines.
    """

    __slots__ = ("exchange", "extra")

    exchange: Exchange
    extra: Headers

    @property
    def gone(self) -> bool:
        return self.exchange.gone

    @property
    def span(self) -> Span | None:  # type: ignore[override]
        return self.exchange.span

    def reply(self, head: Head, body: bytes, prediction_id: bytes) -> None:
        """Reply, in the coding that the client likes."""
        exchange = self.exchange
        accepted = None if len(body) < MIN_WORTHWHILE_BYTES else exchange.headers.get(_ACCEPTED)
        if accepted is None and not self.extra:
            exchange.reply_named(head, body, prediction_id)
            return
        response = Response(head, body, ((PREDICTION_ID, prediction_id), *self.extra))
        exchange.reply(response if accepted is None else packed(response, accepted))

    def refuse(self, error: SlipwayError) -> None:
        self.exchange.reply(failure(error))


class UsualAsk(HttpAsk):
    """An ask whose answer is told together with those of its batch."""

    __slots__ = ()

    @abstractmethod
    def write(self, face: Face, number: bytes, results: Results, start: int, stop: int, latency_ms: float) -> None:
        """Answer; `number` is the rest of the prediction's id."""

    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:
        serving = self.serving
        face = serving.face(self.route.version, self.kind)
        self.write(face, serving.numbering.next(), results, start, stop, (now_s - self.started_s) * 1e3)

    @classmethod
    def answered_together(cls, calls: Sequence[Call], results: Results, now_s: float) -> Sequence[Call] | None:
        asks = _alike(cls, calls)
        if asks is None:
            return None
        serving, route = asks[0].serving, asks[0].route
        latencies_ms = [(now_s - ask.started_s) * 1e3 for ask in asks]
        tally = serving.tally_of(route.version)
        tally.answered_together(latencies_ms, results.arrays[0])
        features = serving.features.get(route.version)
        if features is not None:
            asked = [ask.subject for ask in asks], [ask.rows or 0 for ask in asks]
            features.saw(tally, results.feeds, results.arrays, asked)
        serving.seen[CANDIDATE_OK if route.role is Role.CANDIDATE else STABLE_OK] += len(asks)
        face = serving.face(route.version, Kind.ASSIGNED)
        wrong: list[UsualAsk] = []
        refused: list[UsualAsk] = []
        start = 0
        for ask, number, latency_ms in zip(asks, serving.numbering.several(len(asks)), latencies_ms, strict=True):
            stop = start + (ask.rows or 0)
            try:
                ask.write(face, number, results, start, stop, latency_ms)
            except InvalidInputError as error:
                ask.refuse(error)
                refused.append(ask)
            except Exception:
                log.exception("an answer of version %d went wrong", route.version)
                wrong.append(ask)
            start = stop
        if serving.mirrors is not None:
            serving.mirrors.copy_together(asks, results, but=(*refused, *wrong))
        serving.tally.in_flight -= len(asks) - len(wrong)
        return wrong


def _alike(cls: type[UsualAsk], calls: Sequence[Any]) -> Sequence[UsualAsk] | None:
    """The calls, where the plan of one snapshot assigned them all; None elsewhere."""
    serving, assigned = calls[0].serving, Kind.ASSIGNED
    for call in calls:
        if call.__class__ is not cls or call.serving is not serving or call.kind is not assigned:
            return None
    return calls


class PlainAsk(UsualAsk):
    """Answers as the plain API does."""

    __slots__ = ()

    def write(self, face: Face, number: bytes, results: Results, start: int, stop: int, latency_ms: float) -> None:
        body = plain.response(face, number, results, start, stop, latency_ms)
        self.reply(face.head, body, face.id_prefix + number)


class V2Ask(UsualAsk):
    """Answers a usual request of the inference protocol: all outputs, all as JSON or all as binary data."""

    __slots__ = ("binary", "request_id")

    request_id: str | None
    binary: bool

    def write(
        self,
        face: Face,
        number: bytes,
        results: Results,
        start: int,
        stop: int,
        latency_ms: float,  # noqa: ARG002 - as UsualAsk has it
    ) -> None:
        head = face.head
        request_id = b"" if self.request_id is None else b'"id":%b,' % _encode(self.request_id)
        if self.binary:
            body, header_length = _binary(face, request_id, results, start, stop)
            head = face.binary_head(header_length)
        else:
            body = _json(face, request_id, results, start, stop)
        self.reply(head, body, face.id_prefix + number)


class GeneralV2Ask(HttpAsk):
    """Answers any request of the inference protocol."""

    __slots__ = ("request",)

    request: v2.InferRequest

    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:  # noqa: ARG002 - as Ask has it
        prediction = prediction_of(self, results, start, stop)
        face = self.serving.face(self.route.version, self.kind)
        encoded = v2.response(self.request, prediction, self.serving.plan.endpoint)
        head = face.head if encoded.header_length is None else face.binary_head(encoded.header_length)
        self.reply(head, encoded.body, prediction.prediction_id.encode())


def _json(face: Face, request_id: bytes, results: Results, start: int, stop: int) -> bytes:
    begins = _begins(face, results, stop - start)
    parts = [b"%b%b}" % (begin, _data(results, place, start, stop)) for place, begin in enumerate(begins)]
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


def _data(results: Results, place: int, start: int, stop: int) -> bytes:
    """An output's values as JSON, row-major."""
    rank = results.arrays[place].ndim
    if not results.whole and stop - start == 1 and rank <= _FLAT_RANK:
        row = results.rows()[place][start]
        return row if rank == _FLAT_RANK else b"[%b]" % row
    return _encode(_flat(results, results.lists()[place], rank, start, stop))


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
    """The body, and how much of it is JSON."""
    data, rows = results.raw(start, stop), stop - start
    key = "binary", rows
    header: bytes | None = results.memo.get(key)
    if header is None:
        shapes = [array.shape if results.whole else (rows, *array.shape[1:]) for array in results.arrays]
        outputs = b",".join(
            b'%b%b],"parameters":{"binary_data_size":%d}}' % (begin, ",".join(map(str, shape)).encode(), len(part))
            for begin, shape, part in zip(face.v2_outputs, shapes, data, strict=True)
        )
        header = results.memo[key] = b'"outputs":[%b]}' % outputs
    header = b"".join((face.v2_start, request_id, header))
    return b"".join((header, *data)), len(header)
