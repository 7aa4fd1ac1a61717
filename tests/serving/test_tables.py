"""Tables as bodies: CSV, Arrow streams and rows of JSON objects give what the same JSON does, or say what is wrong."""

import json
import struct
import subprocess
import sys
import tracemalloc
from typing import Any

import httpx
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pytest
from aks_serving.arrow import read_stream
from aks_serving.cells import MAX_CELLS, TooManyCellsError
from aks_serving.exchange import JSON
from aks_serving.model import Signature, TensorSpec
from aks_serving.tables import Asked, Form, UnsupportedTypeError, by_column, form_of, read_request
from onnx import TensorProto, helper

from shared.core.errors import InvalidInputError
from tests.serving import models
from tests.serving.conftest import Running, Start
from tests.serving.damaged import stream
from tests.serving.fakes import MemoryStorage
from tests.serving.processes import ROOT

pytestmark = pytest.mark.anyio

CSV, ARROW = "text/csv", "application/vnd.apache.arrow.stream"
TABLE = models.scaler(2.0)


def _columns() -> bytes:
    """Two columns of numbers and one of text: total = age + income, and the text as it is."""
    return models.graph(
        [
            helper.make_node("Cast", ["age"], ["age_real"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["age_real", "income"], ["total"]),
            helper.make_node("Identity", ["city"], ["where"]),
        ],
        [
            ("age", TensorProto.INT64, ["n", 1]),
            ("income", TensorProto.FLOAT, ["n", 1]),
            ("city", TensorProto.STRING, ["n", 1]),
        ],
        [("total", TensorProto.FLOAT, ["n", 1]), ("where", TensorProto.STRING, ["n", 1])],
    )


def _fixed(shape: list[int]) -> bytes:
    """Doubles a tensor of one shape alone."""
    return models.graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
    )


COLUMNS = _columns()
GOOD = {"age": [31, 52], "income": [1.5, 2.5], "city": ["Ulm", "Köln, am Rhein"]}
ANSWER = {"total": [[32.5], [54.5]], "where": [["Ulm"], ["Köln, am Rhein"]]}


async def _served(start: Start, storage: MemoryStorage, model: bytes) -> Any:
    storage.put(model)
    storage.publish(models.plan(1, models.route(1, model)))
    return start()


async def _post(running: Running, body: bytes | str, kind: str, query: str = "") -> httpx.Response:
    return await running.client.post(f"/predict{query}", content=body, headers={"content-type": kind})


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ('age,income,city\r\n31,1.5,Ulm\r\n52,2.5,"Köln, am Rhein"\r\n', CSV),
        ('\ufeffcity,age,income\nUlm,31,1.5\n"Köln, am Rhein",+52,25e-1', f"{CSV}; charset=UTF-8"),
        ('31,1.5,Ulm\n52,2.5,"Köln, am Rhein"\n\n', CSV),
        ('31,1.5,Ulm\n52,2.5,"Köln, am Rhein"\n', f"{CSV};header=absent"),
        ('city,age,income\nUlm,31,1.5\n"Köln, am Rhein",52,2.5\n', f"{CSV}; header=present"),
        (stream(GOOD), ARROW),
        (stream(GOOD, batches=2), ARROW),
        (stream({"city": GOOD["city"], "age": pa.array([31, 52], pa.int8()), "income": GOOD["income"]}), ARROW),
        (
            json.dumps([dict(zip(GOOD, row, strict=True)) for row in zip(*GOOD.values(), strict=True)]),
            "application/json",
        ),
        (json.dumps({"features": GOOD}), "application/json; charset=utf-8"),
        (
            json.dumps({"features": [dict(zip(GOOD, row, strict=True)) for row in zip(*GOOD.values(), strict=True)]}),
            "application/json",
        ),
    ],
)
async def test_columns_are_the_models_inputs(
    start: Start, storage: MemoryStorage, body: bytes | str, kind: str
) -> None:
    async with await _served(start, storage, COLUMNS) as running:
        await running.reload()
        answer = await _post(running, body, kind)
        assert answer.status_code == 200, answer.text
        assert answer.json()["outputs"] == ANSWER


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("1,2\n3,4\n", CSV),
        (stream({"any": [1.0, 3.0], "name": [2, 4]}), ARROW),
        ('[{"x": [1, 2]}, {"x": [3, 4]}]', "application/json"),
    ],
)
async def test_a_model_with_one_table_takes_its_columns_in_order(
    start: Start, storage: MemoryStorage, body: bytes | str, kind: str
) -> None:
    async with await _served(start, storage, TABLE) as running:
        await running.reload()
        answer = await _post(running, body, kind)
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"] == [[2.0, 4.0], [6.0, 8.0]]


@pytest.mark.parametrize(
    ("shape", "rows", "answer"),
    [
        ([1, 3], [[1, 2, 3]], [[2, 4, 6]]),
        ([2, 3], [[1, 2, 3], [4, 5, 6]], [[2, 4, 6], [8, 10, 12]]),
        ([2], [[1], [2]], [2, 4]),
        ([1, 1], [[4]], [[8]]),
    ],
)
async def test_a_model_of_a_fixed_number_of_rows_takes_a_table_of_as_many(
    start: Start, storage: MemoryStorage, shape: list[int], rows: list[list[int]], answer: list[Any]
) -> None:
    def csv(rows: list[list[int]]) -> str:
        return "".join(",".join(map(str, row)) + "\n" for row in rows)

    def arrow(rows: list[list[int]]) -> bytes:
        name = "x" if len(rows[0]) == 1 else "column"
        return stream({f"{name}{place or ''}": list(column) for place, column in enumerate(zip(*rows, strict=True))})

    async with await _served(start, storage, _fixed(shape)) as running:
        await running.reload()
        for body, more, kind in ((csv(rows), csv(rows * 2), CSV), (arrow(rows), arrow(rows * 2), ARROW)):
            good = await _post(running, body, kind)
            assert (good.status_code, good.json().get("predictions")) == (200, answer), good.text
            bad = await _post(running, more, kind)
            assert bad.status_code == 400
            assert f"has the shape [{2 * len(rows)}" in bad.json()["error"]
            assert f"wanted [{len(rows)}" in bad.json()["error"]


async def test_the_query_says_what_a_json_body_would(start: Start, storage: MemoryStorage) -> None:
    other = models.scaler(3.0)
    storage.put(TABLE, other)
    storage.publish(models.plan(1, *models.canary((1, TABLE), (2, other), 10_000)))
    async with start() as running:
        await running.reload()
        named = await _post(running, "1,1", CSV, "?model=churn&model_version=1&user_id=ada&timeout_ms=5000")
        assert (named.json()["model_version"], named.json()["predictions"]) == (1, [[2.0, 2.0]])
        assert (await _post(running, "1,1", CSV)).json()["model_version"] == 2
        for query, words in (
            ("?user=ada", "'user' is no parameter of"),
            ("?model=a&model=b", "'model' is twice in"),
            ("?timeout_ms=0", "timeout_ms is '0'"),
            ("?timeout_ms=soon", "timeout_ms is 'soon'"),
            ("?model", "the query is not one"),
            ("?user_id=%ff", "the query is not UTF-8"),
        ):
            for body, kind in ((b"1,1", CSV), (b'{"features":[[1,1]]}', "application/json"), (b"", ARROW)):
                bad = await _post(running, body, kind, query)
                assert (bad.status_code, words in bad.json()["error"]) == (400, True), bad.text
        assert (await _post(running, "1,1", CSV, "?model=none")).status_code == 404
        assert (await _post(running, "1,1", CSV, "?timeout_ms=1e-9")).status_code == 504


async def test_a_json_body_and_its_query_together_say_what_is_asked(start: Start, storage: MemoryStorage) -> None:
    other = models.scaler(3.0)
    storage.put(TABLE, other)
    storage.publish(models.plan(1, *models.canary((1, TABLE), (2, other), 5_000)))

    async def ask(query: str, **fields: Any) -> httpx.Response:
        answer: httpx.Response = await running.client.post(f"/predict{query}", json={"features": [[1, 1]]} | fields)
        return answer

    async with start() as running:
        await running.reload()
        for version in (1, 2):
            assert (await ask(f"?model=churn&model_version={version}")).json()["model_version"] == version
            both = await ask(f"?model_version={version}&timeout_ms=5e3", model_version=version, timeout_ms=5000)
            assert both.json()["model_version"] == version
        for number in range(20):
            of_body = (await ask("", user_id=number)).json()["model_version"]
            assert (await ask(f"?user_id={number}")).json()["model_version"] == of_body
            assert (await ask(f"?user_id={number}", user_id=number)).json()["model_version"] == of_body
        assert (await ask("?model=none")).status_code == 404
        assert (await ask("?timeout_ms=1e-9")).status_code == 504
        for query, fields, words in (
            ("?model=churn", {"model": "none"}, "model is 'none' in the body and 'churn' in the query"),
            ("?model_version=2", {"model_version": 1}, "model_version is '1' in the body and '2' in the query"),
            ("?user_id=ada", {"user_id": "bea"}, "user_id is 'bea' in the body and 'ada' in the query"),
            ("?timeout_ms=5", {"timeout_ms": 50}, "timeout_ms is '50.0' in the body and '5.0' in the query"),
        ):
            bad = await ask(query, **fields)
            assert (bad.status_code, words in bad.json()["error"]) == (400, True), bad.text


@pytest.mark.parametrize(
    ("model", "body", "words"),
    [
        (COLUMNS, "age,income,city\n31,1.5,Ulm\n5x,2,Bonn", "row 2, column 1 (age): found '5x', wanted INT64"),
        (COLUMNS, "31,1.5,Ulm\n52,,Bonn", "row 2, column 2 (income): found nothing, wanted FP32"),
        (COLUMNS, "31,1e39,Ulm", "row 1, column 2 (income): found 1e+39, wanted FP32"),
        (COLUMNS, "31,1e999,Ulm", "row 1, column 2 (income): found '1e999', wanted FP32"),
        (COLUMNS, "31,1_0,Ulm", "row 1, column 2 (income): found '1_0', wanted FP32"),
        (COLUMNS, f"{2**63},1,Ulm", f"row 1, column 1 (age): found '{2**63}', wanted INT64"),
        (COLUMNS, "31,1\n52,2", "row 1 has 2 columns, and the model takes 3"),
        (COLUMNS, "31,1,Ulm\n52,2", "line 2 of the CSV has 2 cells, wanted 3"),
        (COLUMNS, "age,income\n31,1", "column 'city' is missing"),
        (COLUMNS, "age,age,city\n31,1,Ulm", "column 'age' is there twice"),
        (COLUMNS, "Age,income,city\n31,1,Ulm", "row 1, column 1 (age): found 'Age'"),
        (COLUMNS, 'age,income,city\n31,1,"Ulm', "line 2 of the CSV cannot be read"),
        (COLUMNS, b"\xff,1,2", "the CSV is not UTF-8: byte 0"),
        (TABLE, "1,2,3", "the table has 3 columns, and input 'x' 2"),
        (TABLE, "a,b\n1,2", "row 1, column 1: found 'a', wanted FP32"),
        (TABLE, "", "the table has 0 columns"),
    ],
)
async def test_a_bad_csv_is_refused_by_row_and_column(
    start: Start, storage: MemoryStorage, model: bytes, body: bytes | str, words: str
) -> None:
    async with await _served(start, storage, model) as running:
        await running.reload()
        answer = await _post(running, body, CSV)
        assert answer.status_code == 400
        assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('[{"age": 1}, {"income": 2}]', "row 2: 'age' is missing"),
        ('[{"age": 1}, {"age": 1, "b": 2}]', "row 2: 'b' stands in it, and not in row 1"),
        ('[{"age": 1}, 5]', "the rows are not objects"),
        ('[{"age": "x", "income": 1, "city": "Ulm"}]', "input 'age'"),
    ],
)
async def test_bad_rows_are_refused(start: Start, storage: MemoryStorage, body: str, words: str) -> None:
    async with await _served(start, storage, COLUMNS) as running:
        await running.reload()
        answer = await _post(running, body, "application/json")
        assert answer.status_code == 400
        assert words in answer.json()["error"]


class _Counted(str):
    """A name that counts with how many others it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        _Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def test_a_header_of_many_names_is_not_compared_each_with_each() -> None:
    names = [_Counted(number) for number in range(5_000)]
    inputs = tuple(TensorSpec(name=str(name), datatype="FP32", shape=(-1,)) for name in names)
    asked = Asked(
        model=None, model_version=None, user_id=None, timeout_ms=None, form=Form.CSV, rows=[names, ["1"] * len(names)]
    )
    _Counted.compared = 0
    assert len(asked.feeds(Signature(inputs=inputs, outputs=()))) == len(names)
    assert _Counted.compared < 20 * len(names)


def _csv(cells: int) -> bytes:
    """Cells that hold what else parts cells, in rows of four."""
    return b'"a,\r\n",b""c,,"d"\r\n\r\n' * (cells // 4)


def _objects(cells: int) -> bytes:
    """The same as rows of two."""
    return b"[" + b",".join([rb'{"a:{": ":{\":", "b": "::"}'] * (cells // 2)) + b"]"


def test_a_table_has_so_many_cells_and_no_more() -> None:
    rows = read_request(Form.CSV, _csv(MAX_CELLS), b"").rows
    assert (len(rows), rows[-1]) == (MAX_CELLS // 4, ["a,\r\n", 'b""c', "", "d"])
    assert by_column(_objects(MAX_CELLS)).keys() == {"a:{", "b"}
    with pytest.raises(TooManyCellsError, match="more than 65536 cells: send fewer rows at a time, or an Arrow stream"):
        read_request(Form.CSV, _csv(MAX_CELLS + 4), b"")
    with pytest.raises(TooManyCellsError):
        by_column(_objects(MAX_CELLS + 2))


@pytest.mark.parametrize(
    "part", [b",", b"ab,", b"ab\n", b'"ab",', b'a"b,', b'"a""\r\nb"\n', b"{},", b'{"a":1},', b'{"a":"\\"","b":[2]},']
)
def test_no_memory_is_spent_on_a_table_of_too_many_cells(part: bytes) -> None:
    body = part * (3_000_000 // len(part))
    rows = b"[" + body[:-1] + b"]"
    tracemalloc.start()
    try:
        with pytest.raises(TooManyCellsError):
            _ = by_column(rows) if part.startswith(b"{") else read_request(Form.CSV, body, b"")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(body)


def test_media_types() -> None:
    assert form_of(JSON) is None
    assert form_of(b"Application/JSON; charset=utf-8") is None
    assert form_of(b"text/CSV") is Form.CSV
    assert form_of(b'text/csv; header="absent"') is Form.CSV_BARE
    assert form_of(ARROW.encode()) is Form.ARROW
    for other in (
        b"text/plain",
        b"application/xml",
        b"text/csv; charset=latin-1",
        b"application/vnd.apache.arrow.file",
    ):
        with pytest.raises(UnsupportedTypeError):
            form_of(other)


async def test_an_unknown_media_type_is_a_415(start: Start, storage: MemoryStorage) -> None:
    async with await _served(start, storage, TABLE) as running:
        await running.reload()
        answer = await _post(running, "<x/>", "application/xml")
        assert (answer.status_code, "application/xml" in answer.json()["error"]) == (415, True)


@pytest.mark.parametrize(
    "values",
    [
        *(pa.array([0, 1, 100], kind()) for kind in (pa.int8, pa.uint8, pa.int16, pa.uint16, pa.int32, pa.uint32)),
        *(pa.array([0, 2**62], kind()) for kind in (pa.int64, pa.uint64)),
        *(pa.array([0.5, -2.0, 65504.0], kind()) for kind in (pa.float16, pa.float32, pa.float64)),
        pa.array([True, False, True] * 7),
        pa.array(["", "a", "Köln"] * 5),
        pa.array(["", "a", "Köln"], pa.large_string()),
        pa.array([], pa.int32()),
    ],
    ids=lambda values: str(values.type),
)
def test_arrow_columns_are_read_as_pyarrow_wrote_them(values: Any) -> None:
    for batches in (1, 3):
        (found,) = read_stream(stream({"c": values}, batches=batches)).values()
        assert found.tolist() == values.to_pylist()
        assert found.flags.owndata
        assert found.flags.aligned
        if not pa.types.is_string(values.type) and not pa.types.is_large_string(values.type):
            assert found.dtype == values.type.to_pandas_dtype()


def _file(columns: dict[str, Any]) -> bytes:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _dictionary() -> bytes:
    return stream({"c": pa.array(["a", "b"]).dictionary_encode()})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (stream({"c": pa.array([1, None, 3])}), "row 2, column 'c' is null"),
        (_dictionary(), "column 'c' is dictionary-encoded"),
        (stream({"c": pa.array([[1]])}), "column 'c' is of type list"),
        (stream({"c": pa.array([b"x"])}), "column 'c' is of type binary"),
        (stream({"c": [1] * 1000}, options=pa.ipc.IpcWriteOptions(compression="lz4")), "its buffers are compressed"),
        (b"", "it has no schema"),
        (b"not an arrow stream", "torn or malformed"),
        (stream({"c": [1]}) * 2, f"{len(stream({'c': [1]}))} bytes follow its end: send one stream"),
        (stream({"c": [1]}) + b"\0", "1 bytes follow its end"),
        (_file({"c": [1]}), "it is an Arrow file (Feather)"),
    ],
)
def test_what_is_not_plain_in_arrow_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read as an Arrow stream") as caught:
        read_stream(body)
    assert words in str(caught.value)


def _narrowed(whole: bytes) -> bytes:
    """A stream of eight columns of 1024 bytes whose buffers are all the first one, with the others' bytes left out."""
    data = whole
    for column in range(1, 8):
        place = 1024 * column
        own, first = struct.pack("<qqqq", place, 0, place, 1024), struct.pack("<qqqq", 0, 0, 0, 1024)
        assert data.count(own) == 1
        data = data.replace(own, first)
    length = struct.pack("<q", 8 * 1024)
    end = len(data) - 8
    return data.replace(length, struct.pack("<q", 1024), 1)[: end - 7 * 1024] + data[end:]


def test_columns_that_share_their_buffers_are_no_more_than_the_body() -> None:
    columns = {str(number): np.arange(128) + 1024 * number for number in range(8)}
    whole = stream(columns)
    assert [values.tolist() for values in read_stream(whole).values()] == [v.tolist() for v in columns.values()]
    with pytest.raises(InvalidInputError, match="its columns share buffers: write each column's own"):
        read_stream(_narrowed(whole))


def test_a_big_endian_stream_is_refused() -> None:
    data = bytearray(stream({"c": [1, 2, 3]}))
    (root,) = struct.unpack_from("<I", data, 8)
    message = 8 + root
    (vtable,) = struct.unpack_from("<i", data, message)
    (header,) = struct.unpack_from("<H", data, message - vtable + 8)
    schema = message + header + struct.unpack_from("<I", data, message + header)[0]
    (vtable,) = struct.unpack_from("<i", data, schema)
    # The byte order, which pyarrow leaves out where it is little, is read from any two bytes that hold a 1.
    one = next(at for at in range(schema, len(data), 2) if data[at : at + 2] == b"\1\0")
    struct.pack_into("<H", data, schema - vtable + 4, one - schema)
    with pytest.raises(InvalidInputError, match="it is big-endian: write it little-endian"):
        read_stream(bytes(data))


@pytest.mark.parametrize("count", [3_000, pytest.param(300_000, marks=pytest.mark.long)])
def test_a_damaged_arrow_stream_is_read_or_refused_and_nothing_else(count: int) -> None:
    command = [sys.executable, "-m", "tests.serving.damaged", "20261121", str(count)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert found["read"] + found["refused"] == count
    assert min(found.values()) > count / 50


_WITHOUT_PYARROW = """
import sys

sys.modules["pyarrow"] = None  # as Python treats a package that is not there
from aks_serving.failures import failure
from aks_serving.model import Signature, TensorSpec
from aks_serving.tables import Form, UnsupportedTypeError, form_of

assert form_of(b"text/csv") is Form.CSV
try:
    form_of(b"application/vnd.apache.arrow.stream")
except UnsupportedTypeError as error:
    response = failure(error)
    print(response.head.status, response.body.decode())
"""


def test_without_the_extra_an_arrow_stream_is_a_415_that_names_it() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_PYARROW], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    status, body = ended.stdout.split(maxsplit=1)
    assert status == "415"
    assert "slipway-serving[arrow]" in json.loads(body)["error"]


def test_a_server_loads_pyarrow_only_when_a_stream_comes() -> None:
    look = "import sys, aks_serving.server, aks_serving.api; print('pyarrow' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", look], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"
