"""Reads an MLflow model: the file `MLmodel` and its ONNX flavour, as MLflow 1 to 3 write them. MLflow is not imported.

What MLmodel says is a claim like any other: names and figures are taken over into the manifest, and checked as its own
values would be. The environment files beside it are of no interest here, and are never read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from shared.core.errors import InvalidInputError
from shared.registry.manifest import Task, parse_mapping
from shared.validation.metadata import manifest_values, merged
from shared.validation.refusal import excerpt

if TYPE_CHECKING:
    import onnx

MLMODEL_NAME = "MLmodel"
MAX_MLMODEL_BYTES = 1024 * 1024
_FLAVOR = "onnx"
_FILES = frozenset(
    {
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "constraints.txt",
        "environment_variables.txt",
        "input_example.json",
        "serving_input_example.json",
        "serving_input_payload.json",
        "registered_model_meta",
    }
)
_FOLDERS = ("metadata/", "code/", "extra_files/")
_TAGS = {
    "mlflow_version": "mlflow.version",
    "model_id": "mlflow.model_id",
    "model_uuid": "mlflow.model_uuid",
    "utc_time_created": "mlflow.utc_time_created",
    "artifact_path": "mlflow.artifact_path",
}
_MAX_TAG = 200
_MAX_METADATA_KEY = 80
_CLASSES = frozenset({"integer", "long", "string", "boolean"})
_CLASS_DTYPES = ("int", "uint", "bool", "str", "object")
_CLASS_TENSORS = ("UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "STRING", "BOOL", "UINT32", "UINT64")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mlmodel:
    """What an MLmodel file says: manifest values, and the signature in MLflow's words."""

    values: Mapping[str, Any]
    columns: tuple[str, ...] = ()
    """The names of the input columns, where the signature has columns and names them all."""
    answers_in_classes: bool | None = None
    """Whether the signature has an output of whole numbers, truth values or text. None where it has no outputs."""
    inputs: tuple[str, ...] = field(default=())
    """The names of the input tensors, where the signature has tensors."""


def is_mlflow_file(name: str) -> bool:
    """Whether a file of an MLflow model is one that MLflow wrote beside the model, and that nothing here reads."""
    return name in _FILES or name.startswith(_FOLDERS)


def read_mlmodel(text: bytes) -> Mlmodel:
    """Read an MLmodel file. Raises InvalidInputError saying what is wrong with it."""
    said = parse_mapping(text, name=MLMODEL_NAME, max_bytes=MAX_MLMODEL_BYTES)
    inputs, outputs = (_signature(said.get("signature"), side) for side in ("inputs", "outputs"))
    named = [spec.get("name") for spec in inputs if "tensor-spec" not in spec]
    tensors = [spec.get("name") for spec in inputs if "tensor-spec" in spec]
    return Mlmodel(
        values=merged(_own_values(said), _metadata_values(said.get("metadata"))),
        columns=tuple(name for name in named if isinstance(name, str)) if all(named) else (),
        inputs=tuple(name for name in tensors if isinstance(name, str)),
        answers_in_classes=any(_is_class(spec) for spec in outputs) if outputs else None,
    )


def values_from_graph(mlmodel: Mlmodel, model: "onnx.ModelProto") -> dict[str, Any]:
    """The manifest values that only the signature and the graph together tell: the task, and the matrix's columns.

    Whole numbers or text among the graph's outputs are classes. Raises InvalidInputError where the signature is of
    another model: it names tensors that the graph does not take, or other columns than the matrix has.
    """
    from onnx import TensorProto  # noqa: PLC0415 - not before a model is read

    constants = {tensor.name for tensor in model.graph.initializer}
    taken = [value for value in model.graph.input if value.name not in constants]
    foreign = [name for name in mlmodel.inputs if name not in {value.name for value in taken}]
    if foreign:
        raise InvalidInputError(
            f"{MLMODEL_NAME}'s signature names the input {excerpt(foreign[0], 60)!r}, which the model does not take"
        )
    kinds = [value.type.tensor_type.elem_type for value in model.graph.output if value.type.HasField("tensor_type")]
    classes = {TensorProto.DataType.Value(name) for name in _CLASS_TENSORS}
    in_classes = any(kind in classes for kind in kinds) or bool(mlmodel.answers_in_classes)
    values: dict[str, Any] = {"task": Task.CLASSIFICATION.value if in_classes else Task.REGRESSION.value}
    if len(taken) == 1 and mlmodel.columns and mlmodel.columns != (taken[0].name,):
        values["feature_names"] = list(mlmodel.columns)
        dims = taken[0].type.tensor_type.shape.dim
        width = dims[1].dim_value if len(dims) == 2 else 0
        if width and width != len(mlmodel.columns):
            raise InvalidInputError(
                f"{MLMODEL_NAME}'s signature has {len(mlmodel.columns)} columns, and the input "
                f"{excerpt(taken[0].name, 60)!r} of the model has {width}"
            )
    return values


def _own_values(said: Mapping[Any, Any]) -> dict[str, Any]:
    flavors = said.get("flavors")
    flavor = flavors.get(_FLAVOR) if isinstance(flavors, Mapping) else None
    if not isinstance(flavor, Mapping) or not isinstance(flavor.get("data"), str):
        names = ", ".join(excerpt(name, 40) for name in list(flavors)[:5]) if isinstance(flavors, Mapping) else ""
        raise InvalidInputError(
            f"{MLMODEL_NAME} has the flavours {names or 'none'}, and no `onnx` one that names its `data`: log the "
            "model with mlflow.onnx"
        )
    values: dict[str, Any] = {"model": flavor["data"]}
    if isinstance(said.get("run_id"), str):
        values["run_id"] = said["run_id"]
    values["tags"] = {
        tag: str(said[key]) for key, tag in _TAGS.items() if said.get(key) and len(str(said[key])) <= _MAX_TAG
    }
    return merged(values, _metrics(said))


def _metadata_values(metadata: object) -> dict[str, Any]:
    """What the author added: `slipway_<key>` for the manifest, `metrics` as claims, other plain entries as tags."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidInputError(f"{MLMODEL_NAME} has a `metadata` that is no mapping")
    ours: dict[str, str] = {}
    tags: dict[str, str] = {}
    for key, value in metadata.items():
        if key.lower().startswith("slipway"):
            ours[key] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        elif isinstance(value, str | int | float) and len(str(value)) <= _MAX_TAG and len(key) <= _MAX_METADATA_KEY:
            tags[f"mlflow.metadata.{key}"] = str(value)
    return merged({"tags": tags}, _metrics(metadata), manifest_values(ours))


def _metrics(said: Mapping[Any, Any]) -> dict[str, Any]:
    metrics = said.get("metrics")
    return {"metrics": metrics} if isinstance(metrics, Mapping) else {}


def _signature(signature: object, side: str) -> Sequence[Mapping[str, Any]]:
    """The specs of a side of the signature, which is JSON in the YAML; () where there is none."""
    text = signature.get(side) if isinstance(signature, Mapping) else None
    if text is None:
        return ()
    try:
        specs = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        specs = None
    if not isinstance(specs, list) or not all(isinstance(spec, dict) for spec in specs):
        raise InvalidInputError(f"{MLMODEL_NAME}'s signature has {side} that are no JSON list of specs")
    return specs


def _is_class(spec: Mapping[str, Any]) -> bool:
    tensor = spec.get("tensor-spec")
    if isinstance(tensor, Mapping):
        return str(tensor.get("dtype", "")).startswith(_CLASS_DTYPES)
    return str(spec.get("type")) in _CLASSES
