"""The schemas of the HTTP API's bodies by name: from the types that read and write them, the others by hand."""

from typing import Any

import msgspec

from aks_serving.feedback_items import Accepted, FeedbackBatch
from aks_serving.plain import PredictRequest
from aks_serving.v2_bodies import Body, InferResponse, InputTensor

type Json = dict[str, Any]

_TEXT: Json = {"type": "string"}
_BOOLEAN: Json = {"type": "boolean"}
_NUMBER: Json = {"type": "number"}
_NUMBER_OR_NULL: Json = {"type": ["number", "null"]}
_INTEGER: Json = {"type": "integer", "minimum": 0}


def schemas() -> Json:
    """All schemas."""
    tensor = _copied(InputTensor, data=list[Any])
    request = _copied(Body, name="InferRequest", inputs=list[tensor])  # type: ignore[valid-type]
    _, found = msgspec.json.schema_components(
        (PredictRequest, FeedbackBatch, Accepted, request, InferResponse), ref_template="#/components/schemas/{name}"
    )
    found["PredictRequest"]["properties"]["features"] = {
        "description": "The data of the only input, or an object of data by input name. Nesting gives the shape.",
        "examples": [[[1.0, 2.0]], {"age": [31, 52], "income": [1500.0, 2200.0]}],
    }
    return dict(sorted((found | _plain_schemas() | _v2_schemas()).items()))


def _copied(kind: type[msgspec.Struct], *, name: str = "", **types: Any) -> type[msgspec.Struct]:  # noqa: ANN401
    """A type like another, some of its fields of another type, and optional where they were."""
    fields: list[Any] = []
    for of in msgspec.structs.fields(kind):
        wanted = types.get(of.name)
        if of.required:
            fields.append((of.name, wanted or of.type))
        else:
            fields.append((of.name, wanted or of.type, msgspec.UNSET if wanted else of.default))
    copied = msgspec.defstruct(name or kind.__name__, fields)
    copied.__doc__ = kind.__doc__
    return copied


def _plain_schemas() -> Json:
    role: Json = {"enum": ["stable", "candidate", "shadow"]}
    elsewhere = list_of(_object({"version": _INTEGER, "role": role, "slot": {"enum": ["blue", "green", None]}}))
    served: Json = {
        "generation": _INTEGER,
        "loaded": list_of(_INTEGER),
        "failed": _map(_TEXT),
        "tripped": _map(_TEXT),
        "routes": list_of(
            _object(
                {"version": _INTEGER, "role": role, "weight_bp": _INTEGER},
                optional={"mirror_bp": _INTEGER},
            )
        ),
    }
    estimate = {
        "anyOf": [
            _object({"value": _NUMBER, "low": _NUMBER, "high": _NUMBER, "n": _INTEGER}),
            {"type": "null"},
        ],
        "description": "An estimate with its 95 % interval, from `n` requests.",
    }
    counts = dict.fromkeys(("requests", "errors", "fallbacks", "pinned"), _INTEGER)
    times = dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), _NUMBER_OR_NULL)
    shadow = _object(
        dict.fromkeys(("mirrored", "shed", "errors", "compared", "disagreements"), _INTEGER)
        | {"disagreement_rate": estimate, "mean_difference": estimate, "root_mean_square_difference": _NUMBER_OR_NULL}
    )
    return {
        "Error": _object({"error": _TEXT}),
        "Health": _object({"status": {"const": "ok"}}),
        "Ready": _object({"ready": _BOOLEAN}, optional={"reason": _TEXT}),
        "Reloaded": _object({"endpoints": _map(_object(served, optional={"elsewhere": elsewhere}))}),
        "Stats": _object(
            {
                "endpoints": _map(
                    _object(
                        served | {"versions": _map(_object(counts | times, optional={"shadow": shadow}))},
                        optional={"elsewhere": elsewhere},
                    )
                )
            }
        ),
        "OpenApi": {"type": "object", "required": ["openapi", "info", "paths", "components"]},
        "Prediction": _object(
            {
                "predictions": {"description": "The first output: a row for each row of the features."},
                "model": _TEXT,
                "model_version": _INTEGER,
                "role": role,
                "generation": _INTEGER,
                "fallback": _BOOLEAN,
                "prediction_id": _TEXT,
                "latency_ms": _NUMBER,
            },
            optional={"outputs": {"type": "object", "description": "All outputs by name, where there are several."}},
        ),
    }


def _v2_schemas() -> Json:
    tensors = list_of(_object({"name": _TEXT, "datatype": _TEXT, "shape": list_of({"type": "integer"})}))
    configured = list_of(_object({"name": _TEXT, "data_type": _TEXT, "dims": list_of({"type": "integer"})}))
    counted = _object({"count": _INTEGER, "ns": _INTEGER})
    return {
        "ServerMetadata": _object({"name": _TEXT, "version": _TEXT, "extensions": list_of(_TEXT)}),
        "Live": _object({"live": _BOOLEAN}),
        "ModelReady": _object({"name": _TEXT, "ready": _BOOLEAN}),
        "ModelMetadata": _object(
            {"name": _TEXT, "versions": list_of(_TEXT), "platform": _TEXT, "inputs": tensors, "outputs": tensors}
        ),
        "ModelConfig": _object(
            {
                "name": _TEXT,
                "platform": _TEXT,
                "backend": _TEXT,
                "max_batch_size": _INTEGER,
                "input": configured,
                "output": configured,
            }
        ),
        "ModelStatistics": _object(
            {
                "model_stats": list_of(
                    _object(
                        {
                            "name": _TEXT,
                            "version": _TEXT,
                            "inference_count": _INTEGER,
                            "inference_stats": _object({"success": counted, "fail": counted}),
                            "batch_stats": {"type": "array"},
                        }
                    )
                )
            }
        ),
        "IndexRequest": {"type": "object", "properties": {"ready": _BOOLEAN}},
        "RepositoryIndex": list_of(
            _object(
                {
                    "name": _TEXT,
                    "version": _TEXT,
                    "state": {"enum": ["READY", "LOADING", "UNAVAILABLE"]},
                    "reason": _TEXT,
                }
            )
        ),
    }


def _object(required: Json, *, optional: Json | None = None) -> Json:
    return {
        "type": "object",
        "properties": required | (optional or {}),
        "required": list(required),
        "additionalProperties": False,
    }


def list_of(items: Json) -> Json:
    """A list of items of a schema."""
    return {"type": "array", "items": items}


def _map(values: Json) -> Json:
    return {"type": "object", "additionalProperties": values}
