"""A loaded model: its signature in Open Inference Protocol V2's words, and running it over rows.

One thread, CPU only, its own messages silenced. Loads onnxruntime: for the sandboxed process.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from shared.core.errors import InvalidInputError
from shared.registry.signature import Signature, TensorSpec
from shared.validation.datafile import Array
from shared.validation.refusal import excerpt

DATATYPES: Mapping[str, tuple[str, str]] = {
    "tensor(bool)": ("BOOL", "bool"),
    "tensor(uint8)": ("UINT8", "uint8"),
    "tensor(uint16)": ("UINT16", "uint16"),
    "tensor(uint32)": ("UINT32", "uint32"),
    "tensor(uint64)": ("UINT64", "uint64"),
    "tensor(int8)": ("INT8", "int8"),
    "tensor(int16)": ("INT16", "int16"),
    "tensor(int32)": ("INT32", "int32"),
    "tensor(int64)": ("INT64", "int64"),
    "tensor(float16)": ("FP16", "float16"),
    "tensor(float)": ("FP32", "float32"),
    "tensor(double)": ("FP64", "float64"),
    "tensor(string)": ("BYTES", "object"),
}
"""ONNX Runtime's types: the protocol's datatype, and numpy's, of each that Slipway serves."""

NUMPY_TYPE: Mapping[str, str] = dict(DATATYPES.values())
"""The numpy type of each datatype."""

BATCH_ROWS = 64
_FREE = -1
_RAISED_AT = re.compile(r"/onnxruntime_src/\S+ [^)]*\)(?: const)?(?: \[with [^\]]*\])? ")
"""A file and line of the runtime, the function there, and what its templates stand for."""
_OUT_OF_MEMORY = ("Failed to allocate memory", "bad_alloc", "bad allocation", "Cannot allocate memory")

type Rows = Mapping[str, Array]
"""Arrays by input or output name, all with the same number of rows."""


class ModelError(InvalidInputError):
    """The model does not load, does not run, or does not have a form that can be served."""


class LoadedModel:
    """A model ready to run."""

    def __init__(self, session: ort.InferenceSession, signature: Signature) -> None:
        self._session = session
        self.signature = signature
        self._outputs = [output.name for output in signature.outputs]

    @property
    def rows_at_once(self) -> int | None:
        """How many rows every call must have, where the graph fixes it; else None.

        Raises ModelError where an input has no row dimension, or two inputs disagree.
        """
        fixed = set()
        for spec in self.signature.inputs:
            if not spec.shape:
                raise ModelError(f"the input {spec.name!r} is a single value and has no rows")
            if spec.shape[0] != _FREE:
                fixed.add(spec.shape[0])
        if len(fixed) > 1:
            raise ModelError(f"the inputs fix different numbers of rows, {sorted(fixed)}: export with a free first one")
        return next(iter(fixed), None)

    @property
    def without_rows(self) -> str:
        """Why calls cannot be cut into rows, in words; empty where they can.

        Such a model keeps a state between calls, or takes a setting: it is served call by call, and no data fits it.
        """
        try:
            _ = self.rows_at_once
        except ModelError as error:
            return str(error)
        return ""

    def prepared(self, arrays: Rows) -> dict[str, Array]:
        """Arrays that fit the signature, in the form that the runtime takes: text as objects, whole batches.

        Raises ModelError where text does not decode, or the rows do not fill the batches that the graph fixes.
        """
        ready = {}
        for spec in self.signature.inputs:
            array = arrays[spec.name]
            if self.rows_at_once and len(array) % self.rows_at_once:
                raise ModelError(
                    f"the model takes exactly {self.rows_at_once} rows at once, and {len(array)} is no multiple: "
                    "export it with a free first dimension"
                )
            try:
                ready[spec.name] = _text(array) if array.dtype.kind in "SU" else array
            except ValueError as error:
                raise ModelError(f"the array {spec.name!r} holds text that is no Unicode: {error}") from error
        return ready

    def run(self, inputs: Rows) -> dict[str, Array]:
        """One call. Raises ModelError where the runtime does, MemoryError where its memory does not suffice."""
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise _translated(error, "the model does not run") from error
        for name, value in zip(self._outputs, values, strict=True):
            if not isinstance(value, np.ndarray):
                raise ModelError(f"the output {name!r} came as {type(value).__name__}, not as a tensor")
        return dict(zip(self._outputs, values, strict=True))

    def run_rows(self, inputs: Rows, rows: int, at_once: int) -> dict[str, Array]:
        """Run over `rows` rows, `at_once` to a call. Raises ModelError, also where an output lacks its rows."""
        if not rows:
            raise ModelError("there are no rows to run the model on")
        parts = list(self._batches(inputs, rows, at_once))
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _batches(self, inputs: Rows, rows: int, at_once: int) -> Iterator[dict[str, Array]]:
        widths: dict[str, tuple[int, ...]] = {}
        for start in range(0, rows, at_once):
            wanted = min(at_once, rows - start)
            outputs = self.run({name: array[start : start + wanted] for name, array in inputs.items()})
            for name, array in outputs.items():
                if array.ndim == 0 or len(array) != wanted:
                    raise ModelError(
                        f"the output {name!r} has the shape {list(array.shape)} for {wanted} rows, "
                        "and each row wants an answer"
                    )
                if widths.setdefault(name, array.shape[1:]) != array.shape[1:]:
                    raise ModelError(f"the rows of the output {name!r} differ in shape from one call to the next")
            yield outputs


def load(path: Path) -> LoadedModel:
    """Build a session. Raises ModelError, or MemoryError where its memory does not suffice."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _translated(error, "the runtime does not load the model", path) from error
    return LoadedModel(
        session,
        Signature(
            inputs=tuple(_spec(node, "input") for node in session.get_inputs()),
            outputs=tuple(_spec(node, "output") for node in session.get_outputs()),
        ),
    )


def _text(array: Array) -> Array:
    texts = [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]
    for text in texts:
        text.encode()  # a lone surrogate is no Unicode
    result = np.empty(len(texts), dtype=object)
    result[:] = texts
    return result.reshape(array.shape)


def _spec(node: Any, what: str) -> TensorSpec:  # noqa: ANN401 - the runtime is not typed
    if not str(node.type).startswith("tensor("):
        advice = "a scikit-learn classifier is to be exported with zipmap=False"
        if "seq(map(" not in node.type:
            advice = "export the model with plain tensors"
        raise ModelError(f"the {what} {node.name!r} is a {node.type} and no tensor: {advice}")
    if node.type not in DATATYPES:
        raise ModelError(f"the {what} {node.name!r} is a {node.type}, which cannot be served")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else _FREE for dim in node.shape)
    return TensorSpec(name=node.name, datatype=DATATYPES[node.type][0], shape=shape)


def _translated(error: Exception, what: str, path: Path | None = None) -> Exception:
    """The runtime's errors have many classes, the text alone tells that memory ran out.

    Left out is where the file lies, and where in the runtime's own code the error was raised.
    """
    text = str(error)
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return MemoryError(text[:200])
    said = _RAISED_AT.sub("", text.rsplit("Status Message:", maxsplit=1)[-1])
    if path is not None:
        said = said.replace(f"Load model from {path} failed:", "").replace(f"{path.parent}/", "")
    return ModelError(f"{what}: {excerpt(said)}")
