"""The short way reads and answers as the general one does: whatever it takes, it takes for the same.

The general readers (aks_serving.plain, aks_serving.v2) are the measure: where the fast reader gives anything, they give
the same rows, bit for bit, and say the same beside them; where they refuse, it gives nothing.
"""

import asyncio
import gzip
import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from aks_serving import plain, v2
from aks_serving.asks import GeneralV2Ask, HttpAsk, PlainAsk, V2Ask
from aks_serving.batches import LoadedModel, Results
from aks_serving.calls import NORMAL
from aks_serving.counts import Kind
from aks_serving.engine import Engine
from aks_serving.fast import FastReader, Read, fast_reader
from aks_serving.lanes import Lane
from aks_serving.model import Model, Signature, TensorSpec
from aks_serving.serving import Serving
from aks_serving.tensors import DTYPES, Array, nested
from aks_serving.wide import LONG_BYTES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import models, odd_bodies
from tests.serving.handled import Asked, HandServer, turn

WIDTHS = {"FP32": 2, "FP64": 1, "INT64": 2, "UINT8": 1, "INT32": 3}
SIGNATURES = {
    datatype: Signature(
        inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1, width)),),
        outputs=(TensorSpec(name="y", datatype=datatype, shape=(-1, width)),),
    )
    for datatype, width in WIDTHS.items()
}
USUAL = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])

NUMBERS = st.sampled_from(
    "0 -0 -0.0 1 -1 7 255 256 1.5 1e0 1E2 1e-50 5e-324 1e38 3.4028234663852886e38 3.4028235677973366e38 3.5e38 -3.5e38 "
    "1e308 1e309 1e400 16777217 9007199254740993 9223372036854775807 9223372036854775808 -9223372036854775808 "
    "-9223372036854775809 18446744073709551615 18446744073709551616 2147483648 1.0 true null 01 .5 1. +1 NaN Infinity "
    f'"1" "NaN" "Infinity" [] [1] {{}} {"9" * 40} {"9" * 400}'.split()
)
PLAIN_NUMBERS = st.one_of(
    st.integers(0, 255).map(str), st.floats(0, 255, width=32).map(lambda value: repr(float(value))), NUMBERS
)
TEXTS = st.sampled_from(
    ['""', '"ada"', '"\\u00e9\\ud83d\\ude00"', '"\\ud800"', '"a\\"b\\\\"', '"\x01"', '"' + "u" * 2000 + '"', '"ü"']
)
USERS = st.one_of(NUMBERS, TEXTS)
GAPS = st.sampled_from(["", " ", "\n\t"])


def _object(draw: st.DrawFn, fields: dict[str, str]) -> str:
    """A JSON object: its fields in any order, one perhaps twice, another perhaps left out."""
    pairs = draw(st.permutations(list(fields.items())))
    match draw(st.integers(0, 12)):
        case 0 if pairs:
            pairs = [*pairs, draw(st.sampled_from(pairs))]
        case 1 if pairs:
            pairs = pairs[1:]
        case _:
            pass
    gap = draw(GAPS)
    return "{" + ",".join(f'{gap}"{name}"{gap}:{gap}{value}' for name, value in pairs) + gap + "}"


def _rows(draw: st.DrawFn, width: int) -> list[list[str]]:
    """Rows of numbers: mostly good and of the width, sometimes odd or ragged."""
    count = draw(st.sampled_from([1, 1, 1, 2, 3, 0, 256]))
    if count == 256:
        return [[str(row % 200)] * width for row in range(count)]
    numbers = st.integers(0, 255).map(str) if draw(st.booleans()) else PLAIN_NUMBERS
    rows = [draw(st.lists(numbers, min_size=width, max_size=width)) for _ in range(count)]
    if rows and draw(st.integers(0, 9)) == 0:
        rows[-1] = rows[-1][:-1]
    return rows


def _some(draw: st.DrawFn, fields: dict[str, st.SearchStrategy[str]]) -> dict[str, str]:
    return {name: draw(values) for name, values in fields.items() if draw(st.integers(0, 3)) == 0}


@st.composite
def plain_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    datatype = draw(st.sampled_from(list(WIDTHS)))
    rows = _rows(draw, WIDTHS[datatype])
    said = _some(
        draw,
        {
            "model": st.sampled_from(['"churn"', '"other"', "null", "1", '""']),
            "model_version": st.one_of(st.sampled_from(["1", '"2"', "null", '"007"']), USERS),
            "user_id": USERS,
            "timeout_ms": st.one_of(st.sampled_from(["250", "0.5", "null", "1e-320"]), NUMBERS),
            "wish": st.just("1"),
        },
    )
    features = "[" + ",".join("[" + ",".join(row) + "]" for row in rows) + "]"
    return datatype, _object(draw, {"features": features} | said).encode("utf-8", "surrogatepass")


def _said_v2(draw: st.DrawFn) -> dict[str, str]:
    parameters = _some(
        draw,
        {
            "user_id": USERS,
            "timeout": st.one_of(st.sampled_from(["0", "1", "-1", "2500"]), NUMBERS),
            "binary_data_output": st.sampled_from(["true", "false", "null", "1"]),
            "priority": st.sampled_from(["0", "1", "3"]),
            "unasked": st.just("[1]"),
        },
    )
    said = _some(draw, {"id": st.one_of(TEXTS, NUMBERS), "outputs": st.sampled_from(["[]", "null", '[{"name":"y"}]'])})
    return said | ({"parameters": _object(draw, parameters)} if draw(st.booleans()) else {})


def _tensor(draw: st.DrawFn, datatype: str, rows: int, how: dict[str, str]) -> str:
    name = draw(st.sampled_from(['"x"'] * 8 + ['"y"', '"\\u0078"']))
    kind = draw(st.sampled_from([datatype] * 8 + ["FP32", "INT64"]))
    width = WIDTHS[datatype]
    shapes = [[rows, width]] * 8 + [[rows * width], [rows, width, 1], [width, rows], [-rows, -width], [2**63, width]]
    shape = draw(st.sampled_from(shapes))
    return _object(draw, {"name": name, "datatype": f'"{kind}"', "shape": json.dumps(shape)} | how)


@st.composite
def v2_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    datatype = draw(st.sampled_from(list(WIDTHS)))
    rows = _rows(draw, WIDTHS[datatype])
    values = ",".join(value for row in rows for value in row)
    how = {"data": f"[{values}]"} | _some(draw, {"parameters": st.sampled_from(["null", "{}", "{}"])})
    tensors = [_tensor(draw, datatype, len(rows), how)] * draw(st.sampled_from([1] * 12 + [0, 2]))
    fields = {"inputs": f"[{','.join(tensors)}]"} | _said_v2(draw)
    return datatype, _object(draw, fields).encode("utf-8", "surrogatepass")


@st.composite
def binary_bodies(draw: st.DrawFn) -> tuple[str, bytes, int]:
    datatype = draw(st.sampled_from(list(WIDTHS)))
    rows = draw(st.sampled_from([1, 2, 256, 0]))
    size = rows * WIDTHS[datatype] * DTYPES[datatype].itemsize
    data = draw(st.binary(min_size=size, max_size=size)) if rows < 256 else bytes(size)
    odd = draw(st.sampled_from([0] * 8 + [1, -1]))
    parameters = draw(st.sampled_from([f'{{"binary_data_size":{size + odd}}}'] * 8 + ["{}", "null"]))
    how = {"parameters": parameters}
    head = _object(draw, {"inputs": f"[{_tensor(draw, datatype, rows, how)}]"} | _said_v2(draw))
    text = head.encode("utf-8", "surrogatepass")
    off = draw(st.sampled_from([0] * 8 + [1, -1]))
    return datatype, text + data[: len(data) - draw(st.sampled_from([0] * 8 + [1]))], max(0, len(text) + off)


@st.composite
def broken(draw: st.DrawFn, bodies: st.SearchStrategy[tuple[str, bytes]]) -> tuple[str, bytes]:
    """A body with some bytes of it cut out, replaced or put in."""
    datatype, body = draw(bodies)
    start = draw(st.integers(0, len(body)))
    stop = draw(st.integers(start, min(len(body), start + 3)))
    return datatype, body[:start] + draw(st.binary(max_size=3)) + body[stop:]


def _reader(datatype: str) -> FastReader:
    reader = fast_reader([SIGNATURES[datatype]])
    assert reader is not None
    return reader


READERS = {datatype: _reader(datatype) for datatype in WIDTHS}


LONG = b" " * LONG_BYTES
"""What makes a body one that is read as long ones are, and says nothing."""


def _same_rows(read: Read, array: Array, datatype: str) -> None:
    assert (read.packed, read.rows) == (array.tobytes(), array.shape[0])
    assert array.shape[1:] == (WIDTHS[datatype],)


def _same_plain(datatype: str, body: bytes) -> bool:
    read = READERS[datatype].plain(body, "churn")
    assert repr(READERS[datatype].plain(body + LONG, "churn")) == repr(read)
    if read is None:
        return False
    asked = plain.read_request(body)
    _same_rows(read, asked.feeds(SIGNATURES[datatype])["x"], datatype)
    assert asked.model in (None, "churn")
    assert [repr(read.user), repr(read.version)] == [repr(asked.user_id), repr(asked.model_version)]
    assert read.timeout_s == (None if asked.timeout_ms is None else asked.timeout_ms / 1e3)
    assert (read.id, read.binary) == (None, False)
    return True


def _same_v2(datatype: str, body: bytes, header_length: int | None = None) -> bool:
    read = READERS[datatype].v2(body, header_length)
    if header_length is None:
        assert repr(READERS[datatype].v2(body + LONG, None)) == repr(read)
    if read is None:
        return False
    asked, signature = v2.read_request(body, header_length), SIGNATURES[datatype]
    _same_rows(read, asked.feeds(signature)["x"], datatype)
    assert asked.wanted(signature) == [(0, read.binary, 0)]
    assert [repr(read.user), read.id, read.timeout_s] == [repr(asked.user()), asked.id, asked.timeout_s()]
    assert (read.version, asked.priority()) == (None, NORMAL)
    return True


@USUAL
@given(st.one_of(plain_bodies(), broken(plain_bodies())))
def test_a_plain_body_is_read_as_the_general_reader_does(case: tuple[str, bytes]) -> None:
    _same_plain(*case)


@USUAL
@given(st.one_of(v2_bodies(), broken(v2_bodies())))
def test_an_inference_body_is_read_as_the_general_reader_does(case: tuple[str, bytes]) -> None:
    _same_v2(*case)


@USUAL
@given(binary_bodies())
def test_an_inference_body_with_binary_data_is_read_as_the_general_reader_does(case: tuple[str, bytes, int]) -> None:
    _same_v2(*case)


@pytest.mark.parametrize("seed", range(4))
def test_many_plain_bodies_are_read_as_the_general_reader_does(seed: int) -> None:
    draw = random.Random(seed)
    read = [_same_plain(*odd_bodies.plain(draw, WIDTHS)) for _ in range(4000)]
    assert 0.2 < sum(read) / len(read) < 0.8


@pytest.mark.parametrize("seed", range(4))
def test_many_inference_bodies_are_read_as_the_general_reader_does(seed: int) -> None:
    draw = random.Random(seed)
    read = [_same_v2(*odd_bodies.v2(draw, WIDTHS)) for _ in range(4000)]
    assert 0.2 < sum(read) / len(read) < 0.8


@pytest.mark.parametrize("rows", [1, 2, 256])
@pytest.mark.parametrize("datatype", WIDTHS)
def test_the_usual_body_is_read_at_once(datatype: str, rows: int) -> None:
    width = WIDTHS[datatype]
    table = [[(row * width + column) % 250 for column in range(width)] for row in range(rows)]
    body = {"features": table, "user_id": "ada", "timeout_ms": 1.5, "model": "churn", "model_version": 3}
    assert _same_plain(datatype, json.dumps(body).encode())
    tensor: dict[str, Any] = {"name": "x", "datatype": datatype, "shape": [rows, width]}
    said = {"id": "a", "parameters": {"timeout": 9, "user_id": 5, "binary_data_output": True}}
    values = [value for row in table for value in row]
    assert _same_v2(datatype, json.dumps({"inputs": [tensor | {"data": values}]} | said).encode())
    data = np.array(table, DTYPES[datatype]).tobytes()
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": len(data)}}]} | said).encode()
    assert _same_v2(datatype, head + data, len(head))


_TENSOR = '{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}]%s}'
REFUSED = {
    "text that is not UTF-8": ("/predict", b'{"features":[[1,2]],"user_id":"\xff"}'),
    "a name that is not UTF-8": ("/predict", b'{"features":{"\xff":[[1,2]]}}'),
    "a pit": ("/predict", b'{"features":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
    "a pit below a name": ("/predict", b'{"features":{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}}"),
    "an id that is not UTF-8": ("/v2/models/churn/infer", (_TENSOR % ',"id":"\\').encode() + b"\xff"),
    "half a surrogate pair": ("/v2/models/churn/infer", (_TENSOR % ',"id":"\\ud800"').encode()),
    "a negative timeout": ("/v2/models/churn/infer", (_TENSOR % ',"parameters":{"timeout":-5}').encode()),
    "a huge timeout": ("/v2/models/churn/infer", (_TENSOR % f',"parameters":{{"timeout":{"9" * 400}}}').encode()),
    "a longer timeout": ("/v2/models/churn/infer", (_TENSOR % f',"parameters":{{"timeout":{2**63}}}').encode()),
    "no timeout at all": ("/predict", b'{"features":[[1,2]],"timeout_ms":0}'),
    "a huge user": ("/v2/models/churn/infer", (_TENSOR % f',"parameters":{{"user_id":{"9" * 40}}}').encode()),
    "a long user": ("/predict", json.dumps({"features": [[1, 2]], "user_id": "u" * 1025}).encode()),
    "an odd version": ("/predict", b'{"features":[[1,2]],"model_version":"007x"}'),
}


@pytest.mark.anyio
@pytest.mark.parametrize("case", REFUSED)
async def test_what_neither_reader_takes_is_the_callers_error(case: str) -> None:
    data = models.scaler(2.0)
    server = HandServer(models.plan(1, models.route(1, data)), {1: Model(version=1, digest="", data=data)}, inline=True)
    asked = Asked(*REFUSED[case])
    server.ask(asked)
    assert asked.status == 400, asked.response.body
    assert asked.json()["error"]
    assert (server.waiting, server.serving.tally.in_flight) == (0, 0)
    server.close()


@pytest.mark.anyio
async def test_the_json_parts_length_is_of_the_body_without_its_coding() -> None:
    data = models.scaler(2.0)
    server = HandServer(models.plan(1, models.route(1, data)), {1: Model(version=1, digest="", data=data)}, inline=True)
    tensor = {"name": "x", "datatype": "FP32", "shape": [100, 2], "parameters": {"binary_data_size": 800}}
    head = json.dumps({"inputs": [tensor], "id": "i" * 200}).encode()
    body = gzip.compress(head + np.ones((100, 2), np.float32).tobytes())
    assert len(body) < len(head)
    length = str(len(head)).encode()
    asked = Asked(
        "/v2/models/churn/infer", body, {b"inference-header-content-length": length, b"content-encoding": b"gzip"}
    )
    server.ask(asked)
    await turn()
    assert asked.json()["outputs"][0]["data"] == [2.0] * 200
    server.close()


type Part = tuple[Results, int, int]

IDS = st.none() | st.text(max_size=5)
VALUES = {
    "FP32": st.sampled_from([0.0, -0.0, 1.5, 3.4028234663852886e38, 1e-45, math.nan, math.inf, -math.inf]),
    "FP64": st.floats(),
    "FP16": st.sampled_from([0.0, 65504.0, math.nan, -math.inf]),
    "BF16": st.sampled_from([0.0, 1.0, -2.5, math.nan, math.inf]),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
    "INT8": st.integers(-128, 127),
    "BOOL": st.booleans(),
    "BYTES": st.sampled_from(["", '"', "\\", "\n\x00", "é😀", '"],"x":[', "%b", "a" * 100]),
}


@st.composite
def outputs(draw: st.DrawFn, *, rows: int | None) -> tuple[str, Array]:
    """A datatype and an output of it: of so many rows, or of any shape."""
    datatype = draw(st.sampled_from(list(VALUES)))
    sizes = st.sampled_from([1, 2, 3, 0])
    shape = draw(st.lists(sizes, max_size=3)) if rows is None else [rows, *draw(st.lists(sizes, max_size=3))]
    count = math.prod(shape)
    values = draw(st.lists(VALUES[datatype], min_size=count, max_size=count))
    return datatype, np.array(values, DTYPES[datatype]).reshape(shape)


class _Told(Model):
    """A model of which the test says what its outputs are called and what they are."""

    def __init__(self, signature: Signature) -> None:
        self.version, self.digest, self.signature = 1, "", signature


def _serving(found: list[tuple[str, Array]]) -> Serving:
    names = ['label "x"', "p\\é", "plain"]
    specs = tuple(
        TensorSpec(name=name, datatype=datatype, shape=())
        for name, (datatype, _) in zip(names[: len(found)], found, strict=True)
    )
    lane = Lane(LoadedModel(model=_Told(Signature(inputs=(), outputs=specs)), batchable=True), Engine(max_queue=9))
    return Serving(plan=models.plan(1, models.route(1, b"")), lanes={1: lane}, failed={})


def _given[A: HttpAsk](kind: Callable[..., A], serving: Serving, tell: Callable[[A], None], part: Part) -> Asked:
    asked = Asked("/")
    ask = kind(serving, 0.0)
    ask.exchange, ask.extra = asked, ()
    ask.route, ask.kind = serving.plan.routes[0], Kind.ASSIGNED
    tell(ask)
    results, start, stop = part
    ask.give(results, start, stop, 0.0)
    return asked


async def _compare(found: list[tuple[str, Array]], part: Part, request_id: str | None, *, binary: bool) -> None:
    serving = _serving(found)
    parameters = {"binary_data_output": binary}
    request = {"inputs": [], "parameters": parameters} | ({} if request_id is None else {"id": request_id})

    def short(ask: V2Ask) -> None:
        ask.request_id, ask.binary = request_id, binary

    def general(ask: GeneralV2Ask) -> None:
        ask.request = v2.read_request(json.dumps(request).encode())

    if not (binary and serving.gives_bytes):
        quick, measure = _given(V2Ask, serving, short, part), _given(GeneralV2Ask, serving, general, part)
        assert quick.json() == measure.json()
        assert [o.keys() for o in quick.json()["outputs"]] == [o.keys() for o in measure.json()["outputs"]]
        assert quick.response.head is measure.response.head
        lengths = [
            int(one.told.get(b"inference-header-content-length", len(one.response.body))) for one in (quick, measure)
        ]
        assert quick.response.body[lengths[0] :] == measure.response.body[lengths[1] :]
    results, start, stop = part
    answer = _given(PlainAsk, serving, lambda _: None, part).json()
    wanted = [json.loads(json.dumps(nested(array))) for array in results.of(start, stop)]
    assert answer["predictions"] == wanted[0]
    if len(found) > 1:
        names = [spec.name for spec in serving.lanes[1].model.signature.outputs]
        assert answer["outputs"] == dict(zip(names, wanted, strict=True))
    assert answer["prediction_id"]


@USUAL
@given(data=st.data(), found=st.lists(outputs(rows=5), min_size=1, max_size=3), request_id=IDS, binary=st.booleans())
def test_a_callers_part_of_a_batch_is_written_as_in_general(
    *, data: st.DataObject, found: list[tuple[str, Array]], request_id: str | None, binary: bool
) -> None:
    results = Results([array for _, array in found], whole=False)
    for _ in range(3):  # callers of one batch, whose answers have parts in common
        start = data.draw(st.integers(0, 4))
        stop = data.draw(st.integers(start + 1, 5))
        asyncio.run(_compare(found, (results, start, stop), request_id, binary=binary))


@USUAL
@given(found=st.lists(outputs(rows=None), min_size=1, max_size=3), request_id=IDS, binary=st.booleans())
def test_the_whole_of_a_run_is_written_as_in_general(
    *, found: list[tuple[str, Array]], request_id: str | None, binary: bool
) -> None:
    part = (Results([array for _, array in found], whole=True), 0, 0)
    asyncio.run(_compare(found, part, request_id, binary=binary))
