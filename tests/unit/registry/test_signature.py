"""Differences of signatures, and what each means to those who call the old one."""

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.registry.signature import FREE, Signature, SignatureChange, TensorSpec, signature_diff

SAME, WIDENING, BREAKING = SignatureChange.SAME, SignatureChange.WIDENING, SignatureChange.BREAKING

DIMENSIONS = st.sampled_from([FREE, 1, 4, 8])
SPECS = st.builds(
    TensorSpec,
    name=st.sampled_from(["a", "b", "c"]),
    datatype=st.sampled_from(["FP32", "INT64", "BYTES"]),
    shape=st.lists(DIMENSIONS, max_size=3).map(tuple),
)
SIDES = st.lists(SPECS, max_size=3, unique_by=lambda spec: spec.name).map(tuple)
SIGNATURES = st.builds(Signature, inputs=SIDES, outputs=SIDES)


@st.composite
def reshaped(draw: st.DrawFn, side: tuple[TensorSpec, ...], size: st.SearchStrategy[int]) -> tuple[TensorSpec, ...]:
    """The same tensors in another order, with some dimensions drawn anew."""
    shapes = [tuple(draw(size) if draw(st.booleans()) else old for old in found.shape) for found in side]
    changed = [found.model_copy(update={"shape": shape}) for found, shape in zip(side, shapes, strict=True)]
    return tuple(draw(st.permutations(changed)))


@st.composite
def near(draw: st.DrawFn, old: Signature) -> Signature:
    """A signature that differs little or not at all."""
    return Signature(inputs=draw(reshaped(old.inputs, DIMENSIONS)), outputs=draw(reshaped(old.outputs, DIMENSIONS)))


@st.composite
def widened(draw: st.DrawFn, old: Signature) -> Signature:
    """A signature whose inputs take more, and whose outputs are no wider, perhaps with another output."""
    outputs = tuple(
        found.model_copy(update={"shape": tuple(draw(DIMENSIONS) if size == FREE else size for size in found.shape)})
        for found in old.outputs
    )
    more = [draw(SPECS)] if draw(st.booleans()) else []
    added = tuple(found for found in more if found.name not in {output.name for output in outputs})
    return Signature(inputs=draw(reshaped(old.inputs, st.just(FREE))), outputs=outputs + added)


def spec(name: str = "x", shape: tuple[int, ...] = (FREE, 4), datatype: str = "FP32") -> TensorSpec:
    return TensorSpec(name=name, datatype=datatype, shape=shape)


def signature(inputs: tuple[TensorSpec, ...] = (spec(),), outputs: tuple[TensorSpec, ...] = (spec("y"),)) -> Signature:
    return Signature(inputs=inputs, outputs=outputs)


def as_sets(found: Signature) -> tuple[frozenset[TensorSpec], frozenset[TensorSpec]]:
    return frozenset(found.inputs), frozenset(found.outputs)


@given(SIGNATURES)
def test_a_signature_reads_back_from_a_stored_document(stored: Signature) -> None:
    assert Signature.model_validate(stored.model_dump(mode="json")) == stored


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 1, "datatype": "FP32", "shape": []},
        {"name": "x", "datatype": "FP32", "shape": [1.5]},
        {"name": "x", "datatype": "FP32", "shape": ["1"]},
        {"name": "x", "datatype": "FP32", "shape": [], "more": 1},
    ],
)
def test_what_is_no_signature_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Signature.model_validate({"inputs": [wrong], "outputs": []})


@pytest.mark.parametrize(
    ("old", "new", "change", "said"),
    [
        (signature(), signature(), SAME, []),
        (signature((spec("a"), spec("b"))), signature((spec("b"), spec("a"))), SAME, []),
        (signature(), signature((spec("z"),)), BREAKING, ["the input 'x' is gone", "the input 'z' is new"]),
        (signature(), signature((spec(), spec("z"))), BREAKING, ["the input 'z' is new, and callers do not send it"]),
        (signature(), signature((spec(datatype="FP64"),)), BREAKING, ["the input 'x' was FP32 and is FP64"]),
        (signature((spec(shape=(1, 4)),)), signature(), WIDENING, ["had the shape [1, 4] and has [-1, 4]"]),
        (signature(), signature((spec(shape=(1, 4)),)), BREAKING, ["had the shape [-1, 4] and has [1, 4]"]),
        (signature(), signature((spec(shape=(FREE, 5)),)), BREAKING, ["had the shape [-1, 4] and has [-1, 5]"]),
        (signature(), signature((spec(shape=(FREE, 4, 1)),)), BREAKING, ["has [-1, 4, 1]"]),
        (signature(), signature(outputs=()), BREAKING, ["the output 'y' is gone"]),
        (signature(), signature(outputs=(spec("y"), spec("z"))), WIDENING, ["the output 'z' is new"]),
        (signature(), signature(outputs=(spec("y", (1, 4)),)), WIDENING, ["the output 'y' had the shape"]),
        (signature(outputs=(spec("y", (1, 4)),)), signature(), BREAKING, ["the output 'y' had the shape"]),
        (signature(), signature(outputs=(spec("y", datatype="INT64"),)), BREAKING, ["the output 'y' was FP32"]),
    ],
)
def test_each_difference_has_its_meaning_and_a_sentence(
    old: Signature, new: Signature, change: SignatureChange, said: list[str]
) -> None:
    found = signature_diff(old, new)
    assert found.change is change
    assert len(found.differences) == len(said)
    assert all(words in difference for words, difference in zip(said, sorted(found.differences), strict=True))


@settings(max_examples=60)
@given(SIGNATURES, st.data())
def test_it_is_the_same_exactly_where_order_alone_differs(old: Signature, data: st.DataObject) -> None:
    new = data.draw(st.one_of(near(old), SIGNATURES))
    found = signature_diff(old, new)
    assert (found.change is SAME) == (as_sets(old) == as_sets(new))
    assert bool(found.differences) == (found.change is not SAME)


@settings(max_examples=60)
@given(SIGNATURES, st.data())
def test_what_widens_breaks_nobody_and_taking_it_back_breaks_somebody(old: Signature, data: st.DataObject) -> None:
    new = data.draw(widened(old))
    there, back = signature_diff(old, new), signature_diff(new, old)
    assert there.change is (SAME if as_sets(old) == as_sets(new) else WIDENING)
    assert back.change is (SAME if there.change is SAME else BREAKING)


@settings(max_examples=60)
@given(SIGNATURES, st.data())
def test_steps_that_break_nobody_break_nobody_together(a: Signature, data: st.DataObject) -> None:
    b = data.draw(widened(a))
    c = data.draw(widened(b))
    assert signature_diff(a, c).change is not BREAKING


@settings(max_examples=60)
@given(SIGNATURES, st.sampled_from(["inputs", "outputs"]), st.integers(0, 8))
def test_a_dimension_that_is_freed_and_bound_again_is_judged_by_what_callers_see(
    old: Signature, side: str, place: int
) -> None:
    bound = [
        (number, axis)
        for number, found in enumerate(getattr(old, side))
        for axis, size in enumerate(found.shape)
        if size != FREE
    ]
    assume(bound)
    number, axis = bound[place % len(bound)]
    specs = list(getattr(old, side))
    shape = list(specs[number].shape)
    shape[axis] = FREE
    specs[number] = specs[number].model_copy(update={"shape": tuple(shape)})
    freed = old.model_copy(update={side: tuple(specs)})
    assert signature_diff(old, freed).change is (WIDENING if side == "inputs" else BREAKING)
    assert signature_diff(freed, old).change is (BREAKING if side == "inputs" else WIDENING)
