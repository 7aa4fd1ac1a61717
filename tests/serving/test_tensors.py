import json
import math
import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from aks_serving.tensors import DATATYPES, DTYPES, flat, nested, read, shaped
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError

_INTEGERS = [name for name in DATATYPES if "INT" in name]


@pytest.mark.parametrize("datatype", _INTEGERS)
def test_every_integer_type_holds_its_whole_range_and_no_more(datatype: str) -> None:
    limits = np.iinfo(DTYPES[datatype])
    edge = [int(limits.min), int(limits.max)]
    assert flat(read(json.dumps(edge).encode(), datatype, "x")) == edge
    for outside in (edge[0] - 1, edge[1] + 1):
        with pytest.raises(InvalidInputError, match=f"x holds a value that {datatype} cannot"):
            read(json.dumps([outside]).encode(), datatype, "x")


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_floats_carry_what_json_cannot_as_strings(datatype: str) -> None:
    array = read(b'[1.5, "NaN", "Infinity", "-Infinity"]', datatype, "x")
    assert array.dtype == DTYPES[datatype]
    assert math.isnan(array[1])
    assert flat(array) == [1.5, "NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize(("datatype", "text"), [("FP16", b"[65520]"), ("FP32", b"[[1e39]]"), ("FP64", b"[1e309]")])
def test_a_finite_float_never_becomes_infinite(datatype: str, text: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read(text, datatype, "x")


@pytest.mark.parametrize(
    ("datatype", "text"),
    [
        ("INT64", b"[1.0]"),
        ("INT64", b"[true]"),
        ("INT64", b'["1"]'),
        ("BOOL", b"[1]"),
        ("BYTES", b"[1]"),
        ("FP32", b"[null]"),
        ("FP32", b"[true]"),
        ("FP32", b'["nan"]'),
        ("FP32", b"[NaN]"),
        ("FP32", b"[1"),
        ("FP32", b""),
        ("FP32", b'{"a": 1}'),
        ("FP32", b"[1, [2]]"),
        ("FP32", b"[[1], 2]"),
        ("FP32", b"[[1], [2, 3]]"),
        ("BYTES", b'[["a"], ["b", "c"]]'),
        ("INT8", b"[" * 40 + b"]" * 40),
        ("BYTES", b'["\\ud800"]'),
    ],
)
def test_what_is_not_that_data_is_refused_and_named(datatype: str, text: bytes) -> None:
    with pytest.raises(InvalidInputError, match="input 'x'"):
        read(text, datatype, "input 'x'")


@pytest.mark.parametrize(
    ("text", "shape"),
    [(b"7", ()), (b"[]", (0,)), (b"[[],[]]", (2, 0)), (b" [ [1,2,3] ]", (1, 3)), (b"[[[1]],[[2]]]", (2, 1, 1))],
)
def test_nesting_gives_the_shape(text: bytes, shape: tuple[int, ...]) -> None:
    assert read(text, "INT64", "x").shape == shape


def test_white_space_costs_no_line_of_python_a_byte() -> None:
    lines = 0

    def count(_: FrameType, event: str, __: object) -> Any:
        nonlocal lines
        lines += event == "line"
        return count

    blank = b" \t\r\n" * 10_000
    before = sys.gettrace()
    sys.settrace(count)
    try:
        array = read(blank + b"[" + blank + b"[1" + blank + b", 2]]", "FP32", "x")
    finally:
        sys.settrace(before)
    assert array.tolist() == [[1.0, 2.0]]
    assert 0 < lines < 1_000


def test_strings_keep_nul_and_every_script() -> None:
    values = ["", "\0a\0", "žluť", "模型", "😀"]
    assert nested(read(json.dumps(values).encode(), "BYTES", "x")) == values


def test_flat_data_is_laid_out_row_major_and_nested_data_must_match() -> None:
    assert nested(shaped(read(b"[1,2,3,4]", "INT64", "x"), [2, 2], "x")) == [[1, 2], [3, 4]]
    assert nested(shaped(read(b"[[1,2],[3,4]]", "INT64", "x"), [2, 2], "x")) == [[1, 2], [3, 4]]
    for text, shape in ((b"[1,2,3]", [2, 2]), (b"[[1,2],[3,4]]", [4]), (b"[1]", [-1]), (b"[]", [1])):
        with pytest.raises(InvalidInputError):
            shaped(read(text, "INT64", "x"), shape, "x")


_ELEMENTS: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT8": st.integers(0, 255),
    "FP32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "FP64": st.floats(allow_nan=False, allow_infinity=False),
    "BYTES": st.text(st.characters(codec="utf-8")),
}


@given(data=st.data(), datatype=st.sampled_from(sorted(_ELEMENTS)), rows=st.integers(1, 4), width=st.integers(1, 4))
def test_reading_what_was_written_gives_the_same(data: st.DataObject, datatype: str, rows: int, width: int) -> None:
    row = st.lists(_ELEMENTS[datatype], min_size=width, max_size=width)
    values = data.draw(st.lists(row, min_size=rows, max_size=rows))
    array = read(json.dumps(values).encode(), datatype, "x")
    assert nested(array) == values
    assert nested(shaped(read(json.dumps(flat(array)).encode(), datatype, "x"), [rows, width], "x")) == values
