"""Columns to inputs: what holds for any table, and each input's own way to name its columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shared.registry.manifest import Manifest
from shared.registry.signature import Signature, TensorSpec
from shared.validation.columns import Column, Mapped, mapped, wanted_datatypes
from shared.validation.datafile import Array
from shared.validation.model import NUMPY_TYPE
from shared.validation.refusal import DropRefusedError

NUMBERS = [datatype for datatype in NUMPY_TYPE if datatype != "BYTES"]
OUTPUTS = (TensorSpec(name="y", datatype="INT64", shape=(-1,)), TensorSpec(name="t", datatype="BYTES", shape=(-1,)))


def spec(name: str, datatype: str = "FP32", shape: tuple[int, ...] = (-1,)) -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def give(
    columns: Mapping[str, Array], specs: Sequence[TensorSpec], /, declared: Sequence[str] = (), **said: Any
) -> Mapped:
    return mapped(
        {name: Column(values=values) for name, values in columns.items()},
        signature=Signature(inputs=tuple(specs), outputs=OUTPUTS),
        manifest=Manifest.model_validate({"task": "classification", **said}),
        what="the data",
        declared=declared,
    )


@st.composite
def number_columns(draw: st.DrawFn) -> Array:
    dtype = draw(
        st.one_of(
            arrays.boolean_dtypes(),
            arrays.integer_dtypes(),
            arrays.unsigned_integer_dtypes(),
            arrays.floating_dtypes(endianness="=", sizes=(16, 32, 64)),
        )
    )
    return draw(arrays.arrays(dtype.newbyteorder("="), st.integers(1, 5)))


@settings(max_examples=50)
@given(number_columns(), st.sampled_from(NUMBERS))
def test_a_column_comes_back_value_for_value_or_is_refused(values: Array, datatype: str) -> None:
    """Compared as Python's numbers, which convert nothing; rounded to an input of real numbers."""
    target = np.dtype(NUMPY_TYPE[datatype])
    try:
        found = give({"x": values}, [spec("x", datatype)]).inputs["x"]
    except DropRefusedError:
        assert values.dtype != target
        return
    assert found.dtype == target
    exact = values.astype(target) if target.kind == "f" else values
    for one, other in zip(found.tolist(), exact.tolist(), strict=True):
        assert one == other or (one != one and other != other)  # noqa: PLR0124 - NaN


@given(number_columns(), st.sampled_from(NUMBERS))
def test_what_the_type_holds_is_never_refused(values: Array, datatype: str) -> None:
    target = np.dtype(NUMPY_TYPE[datatype])
    with np.errstate(all="ignore"):
        there = values.astype(target)
    give({"x": there}, [spec("x", datatype)])
    if target.kind in "iu" and values.dtype.kind == "f":
        whole = np.array([3.0, -0.0, 120.0], values.dtype)
        assert give({"x": whole}, [spec("x", datatype)]).inputs["x"].tolist() == [3, 0, 120]


def test_the_label_is_no_feature() -> None:
    columns = {name: np.zeros(2, np.float32) for name in ("a", "label", "t")}
    matrix = [spec("X", shape=(-1, 2))]
    label_taken = r"input 'X' takes the column 'label' of the data, which is the label"
    with pytest.raises(DropRefusedError, match=label_taken):
        give(columns, matrix, feature_names=["a", "label"])
    with pytest.raises(DropRefusedError, match=label_taken):
        give(columns, matrix, inputs={"X": ["label", "a"]})
    with pytest.raises(DropRefusedError, match="input 'label' takes the column 'label'"):
        give(columns, [spec("label")])
    assert give(columns, matrix, feature_names=["a", "label"], label="t").inputs["X"].shape == (2, 2)


@pytest.mark.parametrize("number", [2**24 + 1, -(2**24) - 1, 2**53 + 1, 2**63 - 1])
def test_a_whole_number_is_rounded_as_a_real_one_is(number: int) -> None:
    whole, real = np.array([number], np.int64), np.array([number], np.float64)
    for datatype in ("FP32", "FP64"):
        found = [give({"x": values}, [spec("x", datatype)]).inputs["x"] for values in (whole, real)]
        assert found[0].tolist() == found[1].tolist()
        assert abs(int(found[0][0]) - number) <= abs(number) / 2**24
    for values in (np.array([65_520], np.int64), np.array([65_520.0]), np.array([-(10**9)], np.int64)):
        with pytest.raises(DropRefusedError, match="with values that float16 does not hold"):
            give({"x": values}, [spec("x", "FP16")])


def test_a_column_that_two_inputs_take_is_one_feature() -> None:
    columns = {name: np.arange(2, dtype=np.float32) for name in ("a", "b", "sex")}
    found = give(
        columns, [spec("X", shape=(-1, 2)), spec("Z")], inputs={"X": ["a", "b"], "Z": ["b"]}, protected=["sex"]
    )
    assert found.features == ("a", "b")
    assert list(found.columns) == ["a", "b", "sex"]


@given(st.permutations(["a", "b", "c", "d", "label"]), st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_columns_in_the_file_says_nothing(order: list[str], names: list[str]) -> None:
    columns = {name: np.array([ord(name[0])] * 2, np.float32) for name in order}
    found = give(columns, [spec("X", shape=(-1, 4))], feature_names=names)
    assert found.inputs["X"].tolist() == [[ord(name) for name in names]] * 2
    assert list(found.columns) == names
    assert {name: column[0] for name, column in found.columns.items()} == {name: ord(name) for name in names}
    assert found.label is not None


@given(st.sets(st.sampled_from(["a", "b", "c", "d", "e", "label", "s", "p"])))
def test_a_table_with_too_little_or_too_much_is_always_refused(names: set[str]) -> None:
    columns = {name: np.zeros(3, np.float32) for name in names}
    said: dict[str, Any] = {"feature_names": ["a", "b"], "slices": ["s"], "protected": ["p"]}
    try:
        found = give(columns, [spec("X", shape=(-1, 2))], declared=["s", "p"], **said)
    except DropRefusedError:
        assert not {"a", "b", "s", "p"} <= names <= {"a", "b", "s", "p", "label"}
        return
    assert {"a", "b", "s", "p"} <= names <= {"a", "b", "s", "p", "label"}
    assert list(found.columns) == ["a", "b", *(name for name in columns if name in {"s", "p"})]


def test_each_way_to_name_an_inputs_columns_and_which_goes_first() -> None:
    one, two, both = np.ones(2, np.float32), np.full(2, 2, np.float32), np.full((2, 2), 3, np.float32)
    matrix = [spec("X", shape=(-1, 2))]
    said: dict[str, Any] = {"inputs": {"X": ["k", "m"]}, "feature_names": ["a", "b"]}
    assert give({"k": one, "m": two}, matrix, **said).inputs["X"].tolist() == [[1, 2]] * 2
    assert give({"a": two, "b": one}, matrix, feature_names=["a", "b"]).inputs["X"].tolist() == [[2, 1]] * 2
    assert give({"X": both}, matrix, feature_names=["a", "b"]).inputs["X"].tolist() == [[3, 3]] * 2
    assert give({"X[1]": one, "X[0]": two}, matrix).inputs["X"].tolist() == [[2, 1]] * 2


def test_shapes_fit_or_are_refused() -> None:
    image = np.zeros((2, 4, 4), np.float32)
    assert give({"x": image}, [spec("x", shape=(-1, 4, -1))]).columns == {}
    assert give({"x": image[:, 0, 0]}, [spec("x", shape=(-1, 1))]).inputs["x"].shape == (2, 1)
    assert give({"x": image[:, 0, 0]}, [spec("x", shape=(-1, -1))]).inputs["x"].shape == (2, 1)
    for shape in ((-1, 5, 4), (-1, 16), (-1,), (-1, 4, 4, 1)):
        with pytest.raises(DropRefusedError, match="takes rows of the shape"):
            give({"x": image}, [spec("x", shape=shape)])
    with pytest.raises(
        DropRefusedError, match=r"'x' of the data holds more than one value a row, and is to be one of 2"
    ):
        give({"x": image[0], "y": image[0, 0]}, [spec("X", shape=(-1, 2))], feature_names=["x", "y"])


def test_a_width_that_no_file_could_have_is_not_built() -> None:
    with pytest.raises(DropRefusedError, match="lacks 'X' for the input 'X'"):
        give({"X[0]": np.zeros(2, np.float32)}, [spec("X", shape=(-1, 2**62))])


def test_a_further_column_has_one_value_a_row_and_a_name_of_its_own() -> None:
    x, wide = np.zeros((2, 2), np.float32), np.zeros((2, 3), np.float32)
    with pytest.raises(DropRefusedError, match="'s' of the data holds more than one value a row"):
        give({"x": x, "s": wide}, [spec("x", shape=(-1, 2))], slices=["s"])
    with pytest.raises(DropRefusedError, match=r"'x\[0\]' of the data has the name of a feature"):
        give({"x": x, "x[0]": x[:, 0]}, [spec("x", shape=(-1, 2))], slices=["x[0]"])
    assert give({"x": x, "s": wide[:, :1]}, [spec("x", shape=(-1, 2))], slices=["s"]).columns["s"].shape == (2,)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ({"feature_names": ["a", "b"]}, {"a": "FP32", "b": "FP32", "label": "BYTES"}),
        ({"inputs": {"X": ["k"]}, "prediction": "y"}, {"k": "FP32"}),
        ({"task": "regression"}, {"X": "FP32"}),
        ({"prediction": "t", "label": "truth"}, {"X": "FP32", "truth": "BYTES"}),
    ],
)
def test_what_a_table_of_text_is_read_as(said: Mapping[str, object], wanted: Mapping[str, str]) -> None:
    manifest = Manifest.model_validate({"task": "classification", **said})
    assert wanted_datatypes(Signature(inputs=(spec("X", shape=(-1, 2)),), outputs=OUTPUTS), manifest) == {
        **wanted,
        "X[0]": "FP32",
        "X[1]": "FP32",
    }
