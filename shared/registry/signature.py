"""A model's signature: what it takes and gives. And what a change of it means to those who call it."""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

FREE = -1
"""A dimension of any size."""


class TensorSpec(BaseModel):
    """An input or output of a model: its name, its datatype in Open Inference Protocol V2's words, and its shape.

    A dimension of -1 is free.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    datatype: str
    shape: tuple[int, ...] = Field(strict=False)


class Signature(BaseModel):
    """What a model takes and gives."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Not strict about lists: a stored document has no tuples.
    inputs: tuple[TensorSpec, ...] = Field(strict=False)
    outputs: tuple[TensorSpec, ...] = Field(strict=False)


class SignatureChange(StrEnum):
    """What a new signature means to callers of the old one."""

    SAME = "same"
    WIDENING = "widening"
    """Every request that the old one took is taken, and every output that it gave is given in its form."""
    BREAKING = "breaking"


class SignatureDiff(BaseModel):
    """How a signature differs from another, and what each difference is, in sentences."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    change: SignatureChange
    differences: tuple[str, ...] = ()


def signature_diff(old: Signature, new: Signature) -> SignatureDiff:
    """Compare two signatures. Order does not matter: callers name tensors."""
    breaking: list[str] = []
    widening: list[str] = []
    old_inputs, new_inputs = ({spec.name: spec for spec in side.inputs} for side in (old, new))
    old_outputs, new_outputs = ({spec.name: spec for spec in side.outputs} for side in (old, new))
    breaking += [f"the input {name!r} is gone" for name in old_inputs if name not in new_inputs]
    breaking += [
        f"the input {name!r} is new, and callers do not send it" for name in new_inputs if name not in old_inputs
    ]
    breaking += [f"the output {name!r} is gone" for name in old_outputs if name not in new_outputs]
    widening += [f"the output {name!r} is new" for name in new_outputs if name not in old_outputs]
    for name in old_inputs.keys() & new_inputs.keys():
        _compare("input", old_inputs[name], new_inputs[name], breaking, widening)
    for name in old_outputs.keys() & new_outputs.keys():
        # What an output may be now, callers must have been ready for: the other way round.
        _compare("output", old_outputs[name], new_outputs[name], breaking, widening)
    if breaking:
        return SignatureDiff(change=SignatureChange.BREAKING, differences=tuple(sorted(breaking) + sorted(widening)))
    change = SignatureChange.WIDENING if widening else SignatureChange.SAME
    return SignatureDiff(change=change, differences=tuple(sorted(widening)))


def _compare(what: str, old: TensorSpec, new: TensorSpec, breaking: list[str], widening: list[str]) -> None:
    if old.datatype != new.datatype:
        breaking.append(f"the {what} {old.name!r} was {old.datatype} and is {new.datatype}")
    if old.shape == new.shape:
        return
    wide, narrow = (new.shape, old.shape) if what == "input" else (old.shape, new.shape)
    said = f"the {what} {old.name!r} had the shape {list(old.shape)} and has {list(new.shape)}"
    (widening if _covers(wide, narrow) else breaking).append(said)


def _covers(wide: tuple[int, ...], narrow: tuple[int, ...]) -> bool:
    return len(wide) == len(narrow) and all(a in (FREE, b) for a, b in zip(wide, narrow, strict=True))
