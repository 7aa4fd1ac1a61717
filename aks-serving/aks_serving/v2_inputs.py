"""Inputs of an inference request as arrays: from JSON, from binary data after it, or a body that is data alone."""

import math

from aks_serving.model import Signature, TensorSpec
from aks_serving.tensors import DTYPES, Array, Feeds, from_bytes, read, shaped
from aks_serving.v2_bodies import NO_DATA, InputTensor
from shared.core.errors import InvalidInputError

HEADER = "Inference-Header-Content-Length"
_MAX_SHOWN = 80


def parts_of(inputs: list[InputTensor], rest: memoryview) -> list[memoryview | None]:
    """The binary data of each input, cut from what follows the JSON."""
    parts: list[memoryview | None] = []
    start = 0
    for tensor in inputs:
        size = None if tensor.parameters is None else tensor.parameters.binary_data_size
        if size is None:
            parts.append(None)
            continue
        if start + size > len(rest):
            raise InvalidInputError(
                f"input {tensor.name[:_MAX_SHOWN]!r} says that it has {size} bytes of binary data, "
                f"and {len(rest) - start} are left"
            )
        parts.append(rest[start : start + size])
        start += size
    if start != len(rest):
        raise InvalidInputError(f"the body has {len(rest) - start} bytes more than its inputs' binary_data_size say")
    return parts


def array_of(tensor: InputTensor, binary: memoryview | None, spec: TensorSpec) -> Array:
    """One input, as its place in the signature wants it. Raises InvalidInputError."""
    if tensor.datatype != spec.datatype:
        found = tensor.datatype[:_MAX_SHOWN]
        raise InvalidInputError(f"input {spec.name!r} is sent as {found}, and the model takes {spec.datatype}")
    what = f"input {spec.name!r}"
    has_data = tensor.data is not NO_DATA
    if binary is not None and not has_data:
        array = from_bytes(binary, spec.datatype, tensor.shape, what)
    elif has_data and (tensor.parameters is None or tensor.parameters.binary_data_size is None):
        array = shaped(read(tensor.data, spec.datatype, what), tensor.shape, what)
    else:
        raise _misplaced(tensor, what, has_data=has_data)
    spec.check(array)
    return array


def raw_feeds(data: memoryview, signature: Signature) -> Feeds:
    """The only input's, from a body that is its data alone: its shape must follow from the data's length."""
    if len(signature.inputs) != 1:
        raise InvalidInputError(
            f"a body that is data alone is for a model with one input, and this has {len(signature.inputs)}"
        )
    spec = signature.inputs[0]
    what = f"input {spec.name!r}"
    if spec.datatype == "BYTES":
        # The whole body is the only element.
        array = from_bytes(memoryview(len(data).to_bytes(4, "little") + data), "BYTES", [1] * len(spec.shape), what)
    else:
        array = from_bytes(data, spec.datatype, _shape_by_length(data.nbytes, spec, what), what)
    spec.check(array)
    return {spec.name: array}


def _misplaced(tensor: InputTensor, what: str, *, has_data: bool) -> InvalidInputError:
    said = tensor.parameters
    if said is not None and said.shared_memory_region is not None:
        return InvalidInputError(f"{what} is in shared memory, and this server shares none: send it in the body")
    if said is None or said.binary_data_size is None:
        return InvalidInputError(f"{what} has no `data`")
    if has_data:
        return InvalidInputError(f"{what} has both `data` and binary data: send one of them")
    return InvalidInputError(f"{what} is said to be binary data, and the request has no header {HEADER}")


def _shape_by_length(size_bytes: int, spec: TensorSpec, what: str) -> list[int]:
    if spec.shape.count(-1) > 1:
        raise InvalidInputError(
            f"{what} has the shape {list(spec.shape)} (-1 varies), which does not follow from the data's length: "
            "send its shape in JSON"
        )
    fixed = math.prod(size for size in spec.shape if size != -1) * DTYPES[spec.datatype].itemsize
    return [size_bytes // fixed if size == -1 and fixed else size for size in spec.shape]
