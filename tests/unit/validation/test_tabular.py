"""Data files as Parquet, CSV and NPZ: the same values give the same table, and anything else is refused by name."""

import datetime as dt
import decimal
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from shared.registry.manifest import Manifest
from shared.registry.signature import Signature, TensorSpec
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.steps.data import _rows
from shared.validation.steps.quality import _features
from shared.validation.tabular import Table, read_table
from tests.unit.validation.drops import npz

MATRIX = Signature(
    inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, 3)),),
    outputs=(TensorSpec(name="y", datatype="INT64", shape=(-1,)),),
)
MIXED = Signature(
    inputs=(
        TensorSpec(name="age", datatype="FP32", shape=(-1, 1)),
        TensorSpec(name="visits", datatype="INT64", shape=(-1, 1)),
        TensorSpec(name="city", datatype="BYTES", shape=(-1, 1)),
    ),
    outputs=(TensorSpec(name="y", datatype="BYTES", shape=(-1,)),),
)
VALUES: Mapping[str, ArrayLike] = {
    "a": np.array([1.5, -0.25, 3.0], np.float32),
    "b": np.array([0.1, 1e30, 7.0], np.float32),
    "c": np.array([2, 3, 4], np.int32),
    "label": np.array([0, 1, 1]),
    "region": np.array(["north", "south", ""]),
}
MANIFEST: Mapping[str, Any] = {"feature_names": ["a", "b", "c"], "slices": ["region", "c"]}


def parquet(values: Mapping[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(dict(values)), buffer, **options)
    return buffer.getvalue()


def csv(values: Mapping[str, ArrayLike]) -> bytes:
    columns = [[str(value) for value in np.asarray(column).tolist()] for column in values.values()]
    lines = [",".join(values), *(",".join(row) for row in zip(*columns, strict=True))]
    return "\n".join(lines).encode()


def read(
    folder: Path, content: bytes, ending: str, signature: Signature = MATRIX, *, max_bytes: int = 1_000_000, **said: Any
) -> Table:
    name = f"rows{ending}"
    (folder / "data").write_bytes(content)
    manifest = Manifest.model_validate({"task": "classification", "validation": name, **said})
    return read_table(
        folder / "data", name=name, manifest=manifest, signature=signature, what="the data", max_bytes=max_bytes
    )


def refused(folder: Path, content: bytes, ending: str, signature: Signature = MATRIX, **said: Any) -> str:
    with pytest.raises(DropRefusedError) as caught:
        read(folder, content, ending, signature, **said)
    return f"{caught.value.code}: {caught.value}"


def assert_same(found: Table, wanted: Table) -> None:
    assert found.rows == wanted.rows
    for one, other in ((found.inputs, wanted.inputs), (found.columns, wanted.columns)):
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype, name
            assert np.array_equal(one[name], other[name], equal_nan=one[name].dtype.kind == "f"), name
    assert found.label is not None
    assert wanted.label is not None
    assert found.label.tolist() == wanted.label.tolist()
    assert found.label.dtype == wanted.label.dtype


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_parquet_gives_the_same_table_as_npz(tmp_path: Path, compression: str) -> None:
    wanted = read(tmp_path, npz(VALUES), ".npz", **MANIFEST)
    assert wanted.inputs["X"].tolist() == [[1.5, np.float32(0.1), 2.0], [-0.25, np.float32(1e30), 3.0], [3.0, 7.0, 4.0]]
    assert list(wanted.columns) == ["a", "b", "c", "region"]
    for options in ({}, {"use_dictionary": False}, {"row_group_size": 1}):
        found = read(tmp_path, parquet(VALUES, compression=compression, **options), ".parquet", **MANIFEST)
        assert_same(found, wanted)


def test_csv_gives_the_same_table_as_npz(tmp_path: Path) -> None:
    wanted = read(tmp_path, npz(VALUES), ".npz", **MANIFEST)
    assert_same(read(tmp_path, csv(VALUES), ".csv", **MANIFEST), wanted)
    assert_same(read(tmp_path, b"\xef\xbb\xbf" + csv(VALUES).replace(b"\n", b"\r\n"), ".csv", **MANIFEST), wanted)


def test_columns_for_inputs_of_several_types(tmp_path: Path) -> None:
    values = {
        "age": np.array([1.5, 2.0], np.float32),
        "visits": np.array([2**53 + 1, -4]),
        "city": np.array(["01", 'a, "b"\nc']),
        "label": np.array(["01", "x"]),
    }
    wanted = read(tmp_path, npz(values), ".npz", MIXED)
    assert wanted.inputs["city"].tolist() == [["01"], ['a, "b"\nc']]
    assert wanted.inputs["visits"].tolist() == [[2**53 + 1], [-4]]
    text = f'age,visits,city,label\n1.5,{2**53 + 1},01,01\n2,-4,"a, ""b""\nc",x\n'
    assert_same(read(tmp_path, text.encode(), ".csv", MIXED), wanted)
    assert_same(read(tmp_path, parquet(values), ".parquet", MIXED), wanted)


def test_a_matrix_may_lie_whole_in_an_npz_or_column_by_column_under_indexed_names(tmp_path: Path) -> None:
    matrix = np.array([[0.1, 1, 2], [3, 4, 5]], np.float32)
    whole = read(tmp_path, npz({"X": matrix, "label": [0, 1]}), ".npz")
    assert list(whole.columns) == ["X[0]", "X[1]", "X[2]"]
    assert_same(read(tmp_path, b"X[2],X[0],X[1],label\n2,0.1,1,0\n5,3,4,1\n", ".csv"), whole)
    named = read(tmp_path, npz({"X": matrix, "label": [0, 1]}), ".npz", feature_names=["a", "b", "c"])
    assert named.columns["b"].tolist() == [1.0, 4.0]


def test_real_numbers_are_rounded_to_the_inputs_precision(tmp_path: Path) -> None:
    values: dict[str, Any] = {"X": np.array([[0.1, 1e-60, -np.inf]]), "label": [0]}
    found = read(tmp_path, npz(values), ".npz")
    assert found.inputs["X"].tolist() == [[float(np.float32(0.1)), 0.0, -np.inf]]


def test_inputs_take_columns_of_other_names(tmp_path: Path) -> None:
    found = read(tmp_path, b"n,k,m,label\n1,2,3,0\n", ".csv", inputs={"X": ["m", "n", "k"]})
    assert found.inputs["X"].tolist() == [[3.0, 1.0, 2.0]]
    assert list(found.columns) == ["m", "n", "k"]


def test_what_is_missing_is_nan_where_there_is_nan(tmp_path: Path) -> None:
    values = {"a": pa.array([1.0, None], pa.float32()), "b": pa.array([None, 2], pa.int64()), "c": [1.0, np.nan]}
    values |= {"label": [0, 1], "region": pa.array([None, "x"]), "age": pa.array([3, None])}
    said: dict[str, Any] = {"feature_names": ["a", "b", "c"], "slices": ["region", "age"]}
    found = read(tmp_path, parquet(values), ".parquet", **said)
    assert np.array_equal(found.inputs["X"], np.array([[1, np.nan, 1], [np.nan, 2, np.nan]]), equal_nan=True)
    assert found.columns["region"].tolist() == ["", "x"]
    assert np.array_equal(found.columns["age"], [3, np.nan], equal_nan=True)
    text = b"a,b,c,label,region,age\n1,,1,0,,3\n,2,nan,1,x,\n"
    assert_same(read(tmp_path, text, ".csv", **said), found)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"visits": pa.array([1, None])}, "the column 'visits' of the data has no value in 1 rows, first in row 1"),
        ({"city": pa.array([None, "x"])}, "the column 'city' of the data has no value in 1 rows, first in row 0"),
        ({"label": pa.array(["x", None])}, "the label 'label' of the data has no value in row 1"),
        ({"age": [1e300, 2.0]}, "'age' of the data is float64 with values that float32 does not hold"),
        ({"age": ["1", "2"]}, "'age' of the data is text, and the input 'age' takes FP32: store it as float32"),
        ({"visits": [1.5, 2.0]}, "'visits' of the data is float64 with values that int64 does not hold"),
        ({"visits": [np.nan, 2.0]}, "'visits' of the data is float64 with values that int64 does not hold"),
        ({"visits": np.array([2**63, 1], np.uint64)}, "is uint64 with values that int64 does not hold"),
        ({"city": [1, 2]}, "'city' of the data is int64, and the input 'city' takes BYTES: store it as text"),
        ({"city": [b"\xff", b""]}, "'city' of the data is of type binary: store numbers, booleans or text"),
        ({"city": [["x"], ["y"]]}, "is of type list<element: string>"),
        ({"age": pa.array([decimal.Decimal("1.5")] * 2)}, "'age' of the data is of type decimal128(2, 1)"),
        ({"age": [dt.date(2026, 1, 1)] * 2}, "'age' of the data is of type date32[day]"),
        ({"age": [dt.datetime(2026, 1, 1)] * 2}, "'age' of the data is of type timestamp[us]"),  # noqa: DTZ001
        ({"age": [{"a": 1}, {"a": 2}]}, "'age' of the data is of type struct<a: int64>"),
        ({"height": [1, 2]}, "the data holds 'height', which the model does not take: leave it out, or name it in"),
    ],
)
def test_a_column_that_does_not_fit_is_refused_by_name(tmp_path: Path, values: Mapping[str, Any], said: str) -> None:
    good = {"age": np.array([1, 2], np.float32), "visits": [1, 2], "city": ["x", "y"], "label": ["x", "y"]}
    read(tmp_path, parquet(good), ".parquet", MIXED)
    sentence = refused(tmp_path, parquet(good | dict(values)), ".parquet", MIXED)
    assert said in sentence
    assert sentence.startswith("bad_data")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, False], "?"),
        ([0, 1], "?"),
        (np.array([1, 2], np.uint8), "i8"),
        ([1.0, 2.0], "i8"),
        ([0.5, np.nan], "f4"),
        ([np.inf, -np.inf], "f2"),
        ([2048, -2048], "f2"),
        (np.array([0, 2**63], np.uint64), "u8"),
        ([True, False], "f4"),
    ],
)
def test_a_number_is_converted_where_nothing_is_lost(tmp_path: Path, values: ArrayLike, kind: str) -> None:
    datatype = {"?": "BOOL", "i8": "INT64", "f4": "FP32", "f2": "FP16", "u8": "UINT64"}[kind]
    signature = Signature(inputs=(TensorSpec(name="x", datatype=datatype, shape=(-1,)),), outputs=MATRIX.outputs)
    for content, ending in ((npz({"x": values}), ".npz"), (parquet({"x": values}), ".parquet")):
        found = read(tmp_path, content, ending, signature).inputs["x"]
        assert found.dtype == np.dtype(kind)
        assert np.array_equal(found.astype(float), np.asarray(values, float), equal_nan=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "does not read as CSV: Empty CSV file"),
        ("a,b\n1,2\n3\n", "does not read as CSV: CSV parse error: Row #3: Expected 2 columns, got 1"),
        ("a,b,c,label\n1,x,3,0\n", "In CSV column #1: Row #2: CSV conversion error to float: invalid value 'x'"),
        ("a,b,c,a,label\n1,2,3,1,0\n", "has the column 'a' twice"),
        ("a,b,,label\n1,2,3,0\n", "has a column without a name, the 3. of 4"),
        ("a,b,label\n1,2,0\n", "lacks 'c' for the input 'X', and has 'a', 'b', 'label'"),
        ("1,2,3,0\n1,2,3,0\n", "lacks 'a', 'b', 'c' for the input 'X'"),
        ("a,b,c,label\n1,2,3,\udcff\n", "does not read as CSV"),
        ("a;b;c;label\n1;2;3;0\n", "lacks 'a', 'b', 'c' for the input 'X', and has 'a;b;c;label'"),
    ],
)
def test_a_csv_that_does_not_fit_is_refused(tmp_path: Path, text: str, said: str) -> None:
    content = text.encode("utf-8", "surrogateescape")
    assert said in refused(tmp_path, content, ".csv", feature_names=["a", "b", "c"]).replace(
        "'a', 'b', 'c', 'label' twice", ""
    )


def test_a_column_that_the_manifest_declares_must_be_in_the_validation_data_alone(tmp_path: Path) -> None:
    said: dict[str, Any] = {"feature_names": ["a", "b", "c"], "slices": ["region"], "protected": ["sex"]}
    content = b"a,b,c,label,region\n1,2,3,0,x\n"
    sentence = refused(tmp_path, content, ".csv", **said)
    assert "lacks 'sex', which `slices` or `protected` of the manifest names" in sentence
    found = read(tmp_path, b"a,b,c\n1,2,3\n", ".csv", **said | {"validation": "other.csv", "reference": "rows.csv"})
    assert (found.label, list(found.columns)) == (None, ["a", "b", "c"])


def test_the_label_may_be_a_slice(tmp_path: Path) -> None:
    found = read(tmp_path, b"a,b,c,label\n1,2,3,7\n", ".csv", feature_names=["a", "b", "c"], slices=["label"])
    assert found.columns["label"].tolist() == [7]


def test_inputs_that_the_model_does_not_take_are_named(tmp_path: Path) -> None:
    sentence = refused(tmp_path, b"a,label\n1,0\n", ".csv", inputs={"Z": ["a"]})
    assert "`inputs` of the manifest names 'Z', and the model takes 'X'" in sentence


def test_feature_names_must_be_as_many_as_the_matrix_has_columns(tmp_path: Path) -> None:
    content = npz({"X": np.zeros((2, 3), np.float32), "label": [0, 1]})
    assert "has 2 names, and the input 'X' has 3 columns" in refused(
        tmp_path, content, ".npz", feature_names=["a", "b"]
    )
    sentence = refused(tmp_path, b"a,b,label\n1,2,0\n", ".csv", feature_names=["a", "b"])
    assert "takes rows of the shape [3], and the data gives [2] by 'a', 'b'" in sentence


def test_a_parquet_file_cut_or_changed_anywhere_is_refused_or_the_same(tmp_path: Path) -> None:
    content = parquet(VALUES, write_page_checksum=True)
    for length in range(0, len(content), 41):
        assert "does not read as Parquet" in refused(tmp_path, content[:length], ".parquet", **MANIFEST)
    wanted = read(tmp_path, content, ".parquet", **MANIFEST)
    changed = 0
    for position in range(4, len(content) // 3, 5):
        twisted = bytearray(content)
        twisted[position] ^= 0xFF
        try:
            assert_same(read(tmp_path, bytes(twisted), ".parquet", **MANIFEST), wanted)
        except DropRefusedError:
            changed += 1
    assert changed > 30


def test_a_column_of_one_value_a_billion_times_is_refused_by_its_size(tmp_path: Path) -> None:
    content = parquet({"X": pa.array(np.zeros(2_000_000, np.float32)), "label": np.zeros(2_000_000, np.int8)})
    assert len(content) < 50_000
    assert "too_large: the data expands to 10000000 bytes: at most 1000000" in refused(tmp_path, content, ".parquet")


def test_a_long_text_that_is_repeated_is_held_once(tmp_path: Path) -> None:
    signature = Signature(inputs=(TensorSpec(name="t", datatype="BYTES", shape=(-1,)),), outputs=MATRIX.outputs)
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(50_000, np.int32)), ["x" * 100_000])
    for stored_as_dictionary in (True, False):
        content = parquet({"t": texts}, store_schema=stored_as_dictionary)
        found = read(tmp_path, content, ".parquet", signature).inputs["t"]
        assert found.shape == (50_000,)
        assert len({id(text) for text in found}) == 1
    assert pa.system_memory_pool().max_memory() < 500_000_000, "of five billion characters"


def test_a_csv_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    content = csv(VALUES)
    assert "too_large" in refused(tmp_path, content, ".csv", max_bytes=len(content) - 1, **MANIFEST)
    read(tmp_path, content, ".csv", max_bytes=len(content), **MANIFEST)


def test_an_extension_type_is_refused(tmp_path: Path) -> None:
    flags = pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, 0, 1], pa.int8()))
    sentence = refused(tmp_path, parquet(dict(VALUES) | {"a": flags}), ".parquet", **MANIFEST)
    assert "the column 'a' of the data is of type extension<arrow.bool8>" in sentence


def test_without_a_signature_a_file_is_read_and_not_mapped(tmp_path: Path) -> None:
    manifest = Manifest.model_validate({"task": "classification", "validation": "v.csv"})
    (tmp_path / "v").write_bytes(csv(VALUES))
    table = read_table(tmp_path / "v", name="v.csv", manifest=manifest, signature=None, what="v", max_bytes=10_000)
    assert (table.rows, table.inputs, table.columns) == (3, {}, {})
    (tmp_path / "v").write_bytes(b"a,b\n1\n")
    with pytest.raises(DropRefusedError) as caught:
        read_table(tmp_path / "v", name="v.csv", manifest=manifest, signature=None, what="v", max_bytes=10_000)
    assert caught.value.code is RefusalCode.BAD_DATA


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(
        [(parquet(VALUES), ".parquet"), (parquet(VALUES, compression="zstd"), ".parquet"), (csv(VALUES), ".csv")]
    ),
    st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=4)), min_size=1, max_size=4),
)
def test_no_mutation_gets_anything_but_a_table_or_a_refusal(
    tmp_path: Path, file: tuple[bytes, str], changes: list[tuple[int, bytes]]
) -> None:
    content, ending = file
    for place, patch in changes:
        at = place % len(content)
        content = content[:at] + patch + content[at + 2 :] or b"x"
    try:
        table = read(tmp_path, content, ending, **MANIFEST)
    except DropRefusedError as error:
        refusal = error
    else:
        assert all(len(column) == table.rows for column in (*table.inputs.values(), *table.columns.values()))
        return
    assert refusal.code in {RefusalCode.BAD_DATA, RefusalCode.TOO_LARGE}


def test_a_declared_column_is_no_feature_where_inputs_share_columns(tmp_path: Path) -> None:
    shared_by_two = Signature(
        inputs=(*MATRIX.inputs, TensorSpec(name="Z", datatype="FP32", shape=(-1, 1))), outputs=MATRIX.outputs
    )
    said: dict[str, Any] = {"inputs": {"X": ["a", "b", "c"], "Z": ["b"]}, "protected": ["region"]}
    table = read(tmp_path, parquet(VALUES), ".parquet", shared_by_two, **said)
    assert list(table.columns) == ["a", "b", "c", "region"]
    assert table.features == ("a", "b", "c")
    assert list(_features(_rows(table, np.arange(2)))) == ["a", "b", "c"]


def test_a_whole_number_is_rounded_alike_in_each_form(tmp_path: Path) -> None:
    names: dict[str, Any] = {"feature_names": ["a", "b", "c"]}
    numbers = [2**24 + 1, 2**40 + 1]
    columns = {name: np.array(numbers, np.int64) for name in ("a", "b", "c", "label")}
    whole = read(tmp_path, parquet(columns), ".parquet", **names)
    assert whole.inputs["X"][:, 0].tolist() == [2**24, 2**40]
    real = {name: values if name == "label" else values.astype(np.float64) for name, values in columns.items()}
    assert_same(read(tmp_path, parquet(real), ".parquet", **names), whole)
    assert_same(read(tmp_path, csv(columns), ".csv", **names), whole)
