"""Synthetic models of every datatype and of many shapes, each at an endpoint of its own."""

import itertools
from collections.abc import Sequence

import numpy as np
from aks_serving.tensors import DATATYPES
from onnx import TensorProto, helper

from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.models import Size

ONNX_TYPE = {**models.ONNX_TYPE, "BF16": TensorProto.BFLOAT16}

RANKS: dict[str, tuple[Size, ...]] = {
    "rank-0": (),
    "rank-1": ("n",),
    "rank-3": ("n", 2, 3),
    "rank-4": ("n", "m", 1, 2),
    "fixed": (2, 2),
}
"""Models that give back what they take, FP32, by endpoint."""


def identity_of(datatype: str) -> str:
    """The endpoint of the model that gives back a table of a datatype."""
    return f"identity-{datatype.lower()}"


def publish(storage: MemoryStorage) -> None:
    """Put every model and its plan into storage."""
    for datatype in DATATYPES:
        _publish(storage, identity_of(datatype), _identity(datatype, ("n", "m")))
    for name, shape in RANKS.items():
        _publish(storage, name, _identity("FP32", shape))
    _publish(storage, "several", _several())
    _publish(storage, "halves", _halves())
    _publish(storage, "picky", models.picky(4))
    stable, candidate = models.scaler(2.0), models.scaler(3.0)
    storage.put(stable, candidate)
    storage.publish(models.plan(4, *models.canary((1, stable), (2, candidate), 0), endpoint="churn"))
    broken = b"this is no model"
    storage.put(broken)
    routes = models.canary((1, stable), (7, broken), 0)
    storage.publish(models.plan(1, *routes, endpoint="half-loaded"))


def _publish(storage: MemoryStorage, endpoint: str, data: bytes) -> None:
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data), endpoint=endpoint))


def _identity(datatype: str, shape: Sequence[Size]) -> bytes:
    kind = ONNX_TYPE[datatype]
    return models.graph([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, shape)], [("y", kind, shape)])


def _several() -> bytes:
    """Sum = age + income; label = plan; adult = age > 17; totals over both inputs, row by row."""
    return models.graph(
        [
            helper.make_node("Cast", ["age"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["wide", "income"], ["sum"]),
            helper.make_node("Identity", ["plan"], ["label"]),
            helper.make_node("Greater", ["age", "limit"], ["adult"]),
        ],
        [
            ("age", TensorProto.INT64, ["n", 1]),
            ("income", TensorProto.FLOAT, ["n", 1]),
            ("plan", TensorProto.STRING, ["n", 1]),
        ],
        [
            ("label", TensorProto.STRING, ["n", 1]),
            ("sum", TensorProto.FLOAT, ["n", 1]),
            ("adult", TensorProto.BOOL, ["n", 1]),
        ],
        {"limit": np.int64(17)},
    )


def _halves() -> bytes:
    """Computes in FP32 between tensors of 16 bits: twice = 2 x as BF16, and x as text beside it."""
    bfloat16, half = TensorProto.BFLOAT16, TensorProto.FLOAT16
    return models.graph(
        [
            helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
            helper.make_node("Cast", ["h"], ["wide_h"], to=TensorProto.FLOAT),
            helper.make_node("Add", ["wide", "wide_h"], ["total"]),
            helper.make_node("Cast", ["total"], ["sum"], to=bfloat16),
            helper.make_node("Cast", ["total"], ["sum_h"], to=half),
            helper.make_node("Cast", ["total"], ["text"], to=TensorProto.STRING),
        ],
        [("x", bfloat16, ["n", 2]), ("h", half, ["n", 2])],
        [("sum", bfloat16, ["n", 2]), ("sum_h", half, ["n", 2]), ("text", TensorProto.STRING, ["n", 2])],
    )


NAMES = tuple(
    itertools.chain(
        (identity_of(datatype) for datatype in DATATYPES), RANKS, ("several", "halves", "picky", "churn", "half-loaded")
    )
)
