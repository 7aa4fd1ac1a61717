"""One loaded ONNX model: its signature, and a way to run it.

A model is made from bytes whose digest was checked (aks_serving.artifacts), runs on the CPU with one thread, and uses
no custom operators and no file but the external data that it is given. It never changes; running it is safe from
several threads.

The runtime knows bfloat16, and numpy does not: tensors of a model that has BF16 go in and come out by their memory, as
values of the runtime's own.
"""

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from aks_serving.errors import LoadCode, LoadError, ModelRunError
from aks_serving.tensors import DATATYPES, DTYPES, Array, Feeds
from shared.core.errors import InvalidInputError

_DATATYPE_OF_ONNX = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_QUANTISING = b"DynamicQuantize"
"""How the names begin of the operators that do, ONNX's own and ONNX Runtime's."""
_CHUNK_BYTES = 64 * 1024
"""What is looked through at once: the interpreter's lock is kept meanwhile, half a millisecond and more of a MB."""
_MAX_REASON = 300
_ONNX_BFLOAT16 = 16
"""TensorProto.BFLOAT16: the package onnx is not among those that serve."""
_NO_FOLDER = "/nonexistent"
"""Where ONNX Runtime is told to look for tensors outside the file when there is no such place: it finds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input or output. A size of -1 varies. An empty shape is a scalar, or of a rank that the model leaves open."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    def check(self, array: Array) -> None:
        """Raises InvalidInputError where an array of the right dtype has a shape that this input does not take."""
        shape, wanted = array.shape, self.shape
        if not wanted or (shape and wanted[0] == -1 and shape[1:] == wanted[1:]):
            return
        if len(shape) != len(wanted) or any(size not in (-1, found) for size, found in zip(wanted, shape, strict=True)):
            hint = ""
            if shape == (0,):
                hint = ": there is no row in it"
            elif len(shape) == len(wanted) - 1:
                hint = ": a single row stands in a list of its own, as in [[1, 2]]"
            raise InvalidInputError(
                f"input {self.name!r} has the shape {list(shape)}, wanted {list(wanted)} (-1 varies){hint}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model takes and gives, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def first_dimension_varies(self) -> bool:
        """Whether every input and output may have any number of rows."""
        return all(spec.shape and spec.shape[0] == -1 for spec in (*self.inputs, *self.outputs)) and bool(self.inputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalData:
    """Files that hold tensors of a model, under the names that it knows them by: in a folder, or in memory.

    The runtime may map files of the folder for as long as the model lives: they must never change, and may be removed
    once it is made. Contents in memory are copied, and are held twice meanwhile.
    """

    folder: Path | None = None
    contents: Mapping[str, bytes] = field(default_factory=dict)


NO_EXTERNAL = ExternalData()


class Model:
    """A version of a model, loaded."""

    __slots__ = (
        "_by_memory",
        "_output_names",
        "_run",
        "_session",
        "digest",
        "quantises_by_range",
        "signature",
        "version",
    )

    def __init__(self, *, version: int, digest: str, data: bytes | Path, external: ExternalData = NO_EXTERNAL) -> None:
        """Load from an ONNX file, or its bytes, and its external data. Raises LoadError.

        The file is not needed afterwards.
        """
        self.version = version
        self.digest = digest
        self._session = _session(data, external)
        # The session's own, without what the wrapper around it looks at first, which takes a fifth of a short run.
        self._run = self._session._sess.run  # noqa: SLF001 - there is no other way
        self.signature = Signature(
            inputs=tuple(_spec(node, "input") for node in self._session.get_inputs()),
            outputs=tuple(_spec(node, "output") for node in self._session.get_outputs()),
        )
        self._output_names = [spec.name for spec in self.signature.outputs]
        self._by_memory = _has_bfloat16(self.signature)
        self.quantises_by_range = _names(data, _QUANTISING)
        """Whether it may have an operator that quantises all rows of a run by the range that they have together."""

    def run(self, feeds: Feeds) -> Sequence[Array]:
        """The model's outputs, in its order. Raises ModelRunError."""
        try:
            if self._by_memory:
                return _run_by_memory(self._session, self._output_names, feeds)
            outputs: list[Array] = self._run(self._output_names, feeds, None)
        except Exception as error:
            raise ModelRunError(self.version, first_line(error)) from error
        return outputs


def first_line(error: Exception) -> str:
    """What the runtime said first, cut to a sentence's length."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:_MAX_REASON]


def _names(data: bytes | Path, name: bytes) -> bool:
    """Whether a file's bytes hold a name: operators stand in it by theirs."""
    if isinstance(data, bytes):
        return name in data
    end = b""
    with data.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if name in end + chunk:
                return True
            end = chunk[1 - len(name) :]
    return False


def _session(data: bytes | Path, external: ExternalData) -> Any:  # noqa: ANN401 - onnxruntime has no types
    import onnxruntime  # noqa: PLC0415 - heavy: only where a model is loaded

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    folder = _NO_FOLDER if external.folder is None else str(external.folder)
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
    try:
        if external.contents:
            names, contents = list(external.contents), list(external.contents.values())
            options.add_external_initializers_from_files_in_memory(names, contents, [len(part) for part in contents])
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:
        reason = first_line(error).replace(str(data), "the file") if isinstance(data, Path) else first_line(error)
        raise LoadError(LoadCode.MODEL, f"ONNX Runtime cannot load the model: {reason}") from error
    # It keeps them to make itself anew with other providers, which is turned off.
    session._model_bytes = None  # noqa: SLF001 - there is no other way
    return session


def _has_bfloat16(signature: Signature) -> bool:
    """Whether the model must be run by memory. Raises LoadError for what cannot: the runtime takes no text there."""
    if all(spec.datatype != "BF16" for spec in (*signature.inputs, *signature.outputs)):
        return False
    texts = [spec.name for spec in signature.inputs if spec.datatype == "BYTES"]
    if texts:
        raise LoadError(
            LoadCode.MODEL,
            f"input {texts[0]!r} is text in a model that takes or gives BF16, which the runtime cannot run together: "
            "cast the BF16 tensors to FP32 in the model",
        )
    return True


def _run_by_memory(session: Any, names: list[str], feeds: Feeds) -> list[Array]:  # noqa: ANN401 - no types
    values = {name: _value(array) for name, array in feeds.items()}
    return [_taken(value) for value in session.run_with_ort_values(names, values)]


def _value(array: Array) -> Any:  # noqa: ANN401 - onnxruntime has no types
    from onnxruntime import OrtValue  # noqa: PLC0415 - heavy: only where a model is loaded

    array = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype != DTYPES["BF16"]:
        return OrtValue.ortvalue_from_numpy(array)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(array.view(np.uint16), _ONNX_BFLOAT16)


def _taken(value: Any) -> Array:  # noqa: ANN401 - onnxruntime has no types
    """The tensor of a value, in memory of its own."""
    if value.data_type() != "tensor(bfloat16)":
        array: Array = value.numpy()
        return array
    shape = value.shape()
    dtype = DTYPES["BF16"]
    size = math.prod(shape) * dtype.itemsize
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(data, dtype).reshape(shape)


def _spec(node: Any, what: str) -> TensorSpec:  # noqa: ANN401 - onnxruntime has no types
    datatype = _DATATYPE_OF_ONNX.get(node.type)
    if datatype is None:
        known = ", ".join(DATATYPES)
        raise LoadError(
            LoadCode.MODEL,
            f"{what} {node.name!r} is a {node.type}: this server takes tensors of {known}"
            + (" (export classifiers with zipmap off)" if node.type.startswith("seq(map") else ""),
        )
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(name=node.name, datatype=datatype, shape=shape)
