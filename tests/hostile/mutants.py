"""Mutants of models and bundles that are well formed: the same seed gives the same mutant."""

import random
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import onnx
from onnx import TensorProto as Type
from onnx import helper

from tests.hostile import models
from tests.unit.validation.drops import bundle, forest, good_bundle, onnx_model, scorer

_NUMBERS = (0, 1, 2, 7, 8, 16, 99, -1, 127, 2**31 - 1, -(2**31), 2**32, 2**40, 2**62, 2**63 - 1, -(2**63))
_TEXTS = (
    b"",
    b"x",
    b"y",
    b"w",
    b"\xff\xfe",
    b"a" * 300,
    b"com.microsoft",
    b"ai.onnx.ml",
    b"Loop",
    b"/etc/passwd",
    b"%s%n",
)


@cache
def seeds() -> Mapping[str, bytes]:
    """Well-formed drops by the name that they are dropped under, the kinds of ONNX that there are among them."""
    control = onnx_model(
        [helper.make_node("If", ["go"], ["b"], then_branch=_branch(1.0), else_branch=_branch(2.0)), _added("b")],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 3])],
        constants=[helper.make_tensor("go", Type.BOOL, [], [True])],
        metadata={"slipway.task": "regression"},
    )
    model, rows, _ = forest()
    return {
        "forest.onnx": model,
        "scorer.onnx": scorer().SerializeToString(),
        "control.onnx": control.SerializeToString(),
        "function.onnx": models.function_chain(3),
        "random.zip": good_bundle(),
        "forest.zip": bundle(
            {"slipway.yaml": b"task: classification\nvalidation: rows.npz", "model.onnx": model, "rows.npz": rows}
        ),
    }


def mutant(number: int) -> tuple[str, bytes]:
    """The name and the bytes of a mutant."""
    chance = random.Random(number)
    name = chance.choice(list(seeds()))
    content = seeds()[name]
    if name.endswith(".onnx") and chance.random() < 0.6:
        return name, _with_fields_changed(content, chance)
    for _ in range(chance.choice((1, 1, 2, 5))):
        content = chance.choice(_ON_BYTES)(content, chance)
    return name, content


def _branch(value: float) -> onnx.GraphProto:
    constant = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("v", Type.FLOAT, [3], [value] * 3))
    return helper.make_graph([constant], "branch", [], [helper.make_tensor_value_info("c", Type.FLOAT, [3])])


def _added(name: str) -> onnx.NodeProto:
    return helper.make_node("Add", ["x", name], ["y"])


def _flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice((1, 2, 8)) if changed else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randint(0, len(content))]


def _splice(content: bytes, chance: random.Random) -> bytes:
    """A piece of it, put over or into another place."""
    start, length = chance.randint(0, len(content)), chance.choice((1, 4, 16, 256))
    at = chance.randint(0, len(content))
    return content[:at] + content[start : start + length] + content[at + chance.choice((0, length)) :]


def _remove(content: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(content))
    return content[:at] + content[at + chance.choice((1, 4, 64)) :]


_ON_BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (_flip, _flip, _truncate, _splice, _remove)


def _with_fields_changed(content: bytes, chance: random.Random) -> bytes:
    """A model whose fields read, and say something else."""
    model = onnx.ModelProto.FromString(content)
    for _ in range(chance.choice((1, 1, 2, 4))):
        message = chance.choice(list(_messages(model)))
        fields = message.ListFields()
        if fields:
            field, value = chance.choice(fields)
            _change(message, field, value, chance)
    return bytes(model.SerializeToString())


def _messages(root: Any) -> Iterator[Any]:
    waiting = [root]
    while waiting:
        message = waiting.pop()
        yield message
        for field, value in message.ListFields():
            if field.message_type is not None:
                waiting += list(value) if field.is_repeated else [value]


def _change(message: Any, field: Any, value: Any, chance: random.Random) -> None:
    if chance.random() < 0.15:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_list(field, value, chance)
    elif field.message_type is None:
        setattr(message, field.name, _other(field, chance))


def _change_list(field: Any, values: Any, chance: random.Random) -> None:
    at = chance.randrange(len(values))
    match chance.randrange(4):
        case 0:
            del values[at]
        case 1 if field.message_type is not None:
            values.add().CopyFrom(values[at])
        case 2 if field.message_type is not None:
            values[at].CopyFrom(values[chance.randrange(len(values))])
        case _ if field.message_type is None:
            values[at] = _other(field, chance)


def _other(field: Any, chance: random.Random) -> Any:
    match field.cpp_type:
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return chance.choice((0.0, float("nan"), float("inf"), -1e30))
        case field.CPPTYPE_ENUM:
            return chance.choice(field.enum_type.values).number
        case field.CPPTYPE_STRING:
            text = chance.choice(_TEXTS)
            return text if field.type == field.TYPE_BYTES else text.decode(errors="replace")
        case field.CPPTYPE_INT32:
            return chance.choice([number for number in _NUMBERS if -(2**31) <= number < 2**31])
        case _:
            unsigned = field.cpp_type in {field.CPPTYPE_UINT32, field.CPPTYPE_UINT64}
            return chance.choice([number for number in _NUMBERS if number >= 0 or not unsigned])
