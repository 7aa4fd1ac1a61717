"""Tables are cut out of long bodies where they are nothing else, and are then what the usual decoder makes of them."""

import json
import subprocess
import sys

import numpy as np
import pytest
from aks_serving.batches import Layout
from aks_serving.wide import Cut, Cutter, _parser


def _layout(name: str = "float32") -> Layout:
    return Layout(name="x", dtype=np.dtype(name), width=2)


ROWS = Cutter(_layout(), "features", flat=False)
VALUES = Cutter(_layout(), "data", flat=True)
TABLE = np.array([[1, 2], [3, 4]], np.float32)


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (b'{"features":[[1,2],[3,4]]}', b'{"features":[]}'),
        (b'{"user_id":"a]","features": \n[ [1, 2] ,[3e0,4.0]\t] }', b'{"user_id":"a]","features": \n[] }'),
        (b'{"features":[[1,2],[3,4]],"user_id":"[features"}', b'{"features":[],"user_id":"[features"}'),
        (b'{"features":[[1,2],[3,4]],"user_id":"features"}', b'{"features":[],"user_id":"features"}'),
    ],
)
def test_rows_are_cut_out(body: bytes, rest: bytes) -> None:
    assert ROWS.cut(body) == Cut(TABLE.tobytes(), 2, rest)


@pytest.mark.parametrize(
    ("body", "rest"),
    [
        (b'{"inputs":[{"name":"data","data":[1,2,3,4]}]}', b'{"inputs":[{"name":"data","data":[]}]}'),
        (b'{"inputs":[{"data": [1, 2,3,4\n],"shape":[2,2]}]}', b'{"inputs":[{"data": [],"shape":[2,2]}]}'),
    ],
)
def test_values_are_cut_out(body: bytes, rest: bytes) -> None:
    assert VALUES.cut(body) == Cut(TABLE.tobytes(), 2, rest)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_are_those_of_the_type(dtype: str) -> None:
    numbers = [0.1, -1e-45, 16777217, 2**64 - 1, -(2**63), 3.4028235677973362e38]
    cut = Cutter(_layout(dtype), "features", flat=False).cut(json.dumps({"features": [numbers[:2]] * 9}).encode())
    assert cut is not None
    assert cut.packed == np.array([numbers[:2]] * 9, dtype).tobytes()
    flat = Cutter(_layout(dtype), "data", flat=True).cut(json.dumps({"data": numbers}).encode())
    assert flat is not None
    assert flat.packed == np.array(numbers, dtype).tobytes()


NO_ROWS = {
    "no table": b'{"feature":[[1,2]]}',
    "no array": b'{"features":{"a":[1,2]}}',
    "a mark before the array": b'{"features":\xef\xbb\xbf[[1,2]]}',
    "no end": b'{"features":[[1,2',
    "no row": b'{"features":[]}',
    "a row without arrays": b'{"features":[1,2]}',
    "a number beside rows": b'{"features":[[1,2,3],4]}',
    "a row that is nested": b'{"features":[[[1,2]]]}',
    "a number that is nested": b'{"features":[[1,[2]]]}',
    "an array beside the numbers": b'{"features":[[1,2,[]]]}',
    "two arrays in a row": b'{"features":[[[1,2],[]],[3,4]]}',
    "rows of other lengths": b'{"features":[[1],[2,3,4]]}',
    "an empty row": b'{"features":[[1,2],[]]}',
    "an empty row besides": b'{"features":[[1,2,3,4],[]]}',
    "a longer row": b'{"features":[[1,2,3]]}',
    "a null": b'{"features":[[1,null]]}',
    "a truth": b'{"features":[[1,true]]}',
    "a text": b'{"features":[[1,"2"]]}',
    "an object": b'{"features":[[1,2],{"a":1,"b":2}]}',
    "no number": b'{"features":[[1,NaN]]}',
    "a large integer": b'{"features":[[1,18446744073709551616]]}',
    "a larger number than float64 holds": b'{"features":[[1,1e400]]}',
    "a larger number than float32 holds": b'{"features":[[1,3.4028235677973366e38]]}',
    "a pit": b'{"features":' + b"[" * 2000 + b"]" * 2000 + b"}",
    "the key again": b'{"features":[[1,2]],"features":0}',
    "the key again, with a gap": b'{"features":[[1,2]],"features" :0}',
    "the key again, by escapes": b'{"features":[[1,2]],"\\u0066eatures":0}',
    "the key before, by escapes": b'{"featu\\u0072es":[],"features":[[1,2]]}',
    "text that is not UTF-8": b'{"features":[[1,2\xff]]}',
    "another array after it": b'{"features":[[1,2]],"model":[1]}',
}


@pytest.mark.parametrize("case", NO_ROWS)
def test_other_bodies_are_left_whole_and_the_next_one_is_cut(case: str) -> None:
    assert ROWS.cut(NO_ROWS[case]) is None
    assert ROWS.cut(b'{"features":[[1,2],[3,4]]}') is not None


@pytest.mark.parametrize("data", ["[1,2,3]", "[[1,2]]", "[[1,2],3]", "[[],1]", '["]",1]', "[null,1]", "[1,2", "{}"])
def test_values_that_are_no_flat_rows_are_left(data: str) -> None:
    assert VALUES.cut(f'{{"data":{data}}}'.encode()) is None
    assert VALUES.cut(b'{"data":[1,2]}') is not None


def test_a_parser_that_is_in_use_is_left_alone() -> None:
    held = _parser().parse(b"[1]")
    assert ROWS.cut(b'{"features":[[1,2]]}') is None
    assert len(held) == 1
    del held
    assert ROWS.cut(b'{"features":[[1,2]]}') is not None


def test_what_the_longest_tables_take_is_not_kept() -> None:
    body = json.dumps({"features": [[1.5, 2.5]] * 30_000}).encode()
    held = _parser().parse(b"[1]")
    cut = ROWS.cut(body)
    assert cut is not None
    assert (len(cut.packed), len(held)) == (30_000 * 8, 1)


_SHORT_AND_LONG = """
import sys
from aks_serving.fast import fast_reader
from aks_serving.model import Signature, TensorSpec
from aks_serving.wide import LONG_BYTES
specs = (TensorSpec(name="x", datatype="FP32", shape=(-1, 2)),)
reader = fast_reader([Signature(inputs=specs, outputs=specs)])
body = b'{"features":[[1,2]]%b}'
assert reader.plain(body % (b" " * (LONG_BYTES - len(body) + 1)), "churn").rows == 1
print("simdjson" in sys.modules)
assert reader.plain(body % (b" " * (LONG_BYTES - len(body) + 2)), "churn").rows == 1
print("simdjson" in sys.modules)
"""


def test_the_library_is_loaded_for_a_long_body_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _SHORT_AND_LONG], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
