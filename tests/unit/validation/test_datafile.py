"""NPZ files, as numpy writes them and as nobody should."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shared.validation.datafile import read_arrays, text_of
from shared.validation.refusal import DropRefusedError, RefusalCode
from tests.unit.validation.drops import bundle, npz


def read(path: Path, content: bytes) -> dict[str, np.ndarray[Any, Any]]:
    path.write_bytes(content)
    return read_arrays(path, what="rows.npz", max_bytes=1_000_000)


def refused(path: Path, content: bytes) -> str:
    with pytest.raises(DropRefusedError) as caught:
        read(path, content)
    assert caught.value.code is RefusalCode.BAD_DATA
    return str(caught.value)


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", "f4", "f8", ">f4", "<U5", "S4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_plain_arrays_come_back_as_they_were(tmp_path: Path, dtype: str, order: Any) -> None:
    array = np.arange(12).reshape(3, 4).astype(dtype).copy(order=order)
    found = read(tmp_path / "d", npz({"x": array}))["x"]
    assert np.array_equal(found, array)
    assert found.dtype == array.dtype.newbyteorder("=")
    assert found.flags["C_CONTIGUOUS"]


def test_an_array_without_rows_is_an_array(tmp_path: Path) -> None:
    assert read(tmp_path / "d", npz({"x": np.empty((0, 3))}))["x"].shape == (0, 3)


def test_pickles_are_refused_by_name_and_never_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "ran",))

    array = np.array([Bomb()], dtype=object)
    said = refused(tmp_path / "d", npz({"x": array}, allow_pickle=True))
    assert "'x' of rows.npz holds Python objects" in said
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (npz({"x": [1, 2], "label": [1]}), "differ in rows ('x' 2, 'label' 1)"),
        (npz({"x": 5}), "is a single value"),
        (npz({"x": np.empty((2, 0))}), "every row needs values"),
        (npz({"x": np.array([1j])}), "is of type complex128"),
        (npz({"x": np.array(["2026-01-01"], dtype="M8[D]")}), "store numbers"),
        (npz({"x": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")])}), "store numbers"),
        (npz({"x": np.array([b""], dtype="V3")}), "store numbers"),
        (bundle({"x.npy": b"no array"}), "'x' of rows.npz cannot be read"),
        (bundle({"x.npy": b""}), "'x' of rows.npz cannot be read"),
        (bundle({"x.npy": npy([1, 2])[:-1]}), "does not hold the 16 bytes"),
        (bundle({"x.npy": npy([1, 2]) + b"!"}), "does not hold the 16 bytes"),
        (bundle({"x.txt": b"1 2"}), "'x.txt', which is no array"),
        (b"x,y\n1,2\n", "is not a readable zip archive"),
        (npy([1, 2]), "is not a readable zip archive"),
    ],
)
def test_what_is_no_table_of_plain_arrays_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refused(tmp_path / "d", content)


def test_text_comes_as_objects_and_other_values_as_they_are() -> None:
    words = text_of(np.array([["ä", "b"]]), name="t", what="it")
    assert (words.dtype, words.tolist()) == (np.dtype(object), [["ä", "b"]])
    assert text_of(np.array([b"\xc3\xa4", b""]), name="t", what="it").tolist() == ["ä", ""]
    numbers = np.arange(3)
    assert text_of(numbers, name="n", what="it") is numbers


@pytest.mark.parametrize("array", [np.array([b"\xff"]), np.array(["\ud800"])])
def test_text_that_is_no_unicode_is_refused(array: np.ndarray[Any, Any]) -> None:
    with pytest.raises(DropRefusedError, match="the array 't' of it holds text that is no Unicode"):
        text_of(array, name="t", what="it")


def test_a_header_that_claims_terabytes_is_not_believed(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    header += b" " * (118 - len(header) - 1) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    assert "declares 8000000000000 bytes" in refused(tmp_path / "d", bundle({"x.npy": content}))


@pytest.mark.parametrize("shape", ["(-1,)", "(True,)", "(2.0,)", "'x'", "(10**9,)"])
def test_a_shape_that_is_none_is_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(16)
    assert "'x'" in refused(tmp_path / "d", bundle({"x.npy": content}))


@pytest.mark.parametrize(
    "header",
    [
        "'''",
        "{[]: 1}",
        "{'descr': (), 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ',f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775808)}",
    ],
)
def test_a_header_that_makes_numpy_stumble_is_refused(tmp_path: Path, header: str) -> None:
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    for values in (b"", bytes(4)):
        assert "'x'" in refused(tmp_path / "d", bundle({"x.npy": content + values}))


def test_a_data_file_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = npz({"x": [[1.0, 2.0]], "label": [1]})
    for length in range(len(content)):
        refused(tmp_path / "d", content[:length])
