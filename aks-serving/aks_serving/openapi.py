"""The HTTP API as an OpenAPI 3.1 document: every path, what it takes, and every status that it answers.

`document()` is what GET /openapi.json answers and docs/serving-openapi.json holds. Bodies that are read or written by
types come from those types; a test asks for everything that is documented, and holds each answer to its schema.

Not documented are Triton's paths that are always refused (see aks_serving.v2_extensions), and what the transport
answers before a request reaches the API, which is said in the description.
"""

import sys
from functools import cache

import msgspec

from aks_serving.openapi_schemas import Json, list_of, schemas
from aks_serving.v2 import SERVER_VERSION

_DESCRIPTION = """\
The model server. An endpoint has the name of its model; what it serves is said by its route plan, and which version
answers a request by the plan and the request's subject.

Every path answers HEAD as GET without a body, and 405 to other methods. Errors are `{"error": "..."}`, one sentence.
Before a request reaches a path, the transport may answer 400, 408, 413, 414, 417, 431, 501 or 505 for what is not
proper HTTP or beyond its limits, 401 where the server wants a bearer token, and 503 where it has no room for the
connection or the body. A defect of the server's own is answered with 500.
What is answered with 429, 503 or 504 may be tried again after `Retry-After` seconds.
Bodies may be packed with gzip or deflate (Content-Encoding)."""

_MEANINGS = {
    "400": "The request is not one; `error` says where.",
    "403": "A signed override is wanted, or the one that was sent does not hold.",
    "404": "No such model, or no version of it that the plan names.",
    "405": "Another method is wanted; `Allow` says which.",
    "413": "The body is too large.",
    "415": "The body's Content-Encoding or Content-Type is not one of those that are taken.",
    "429": "Too many requests wait; try again after `Retry-After` seconds.",
    "500": "The model failed on this request, and nothing could answer in its place.",
    "503": "Nothing can answer now, or the version is not loaded yet; try again after `Retry-After` seconds.",
    "504": "The request's time was over before a model ran it. It never runs.",
}
_OF_PREDICTIONS = ("400", "403", "404", "405", "413", "415", "429", "500", "503", "504")
_OF_MODELS = ("400", "404", "405")
_VERSION_NUMBER: Json = {"type": "integer", "minimum": 1, "maximum": 999_999_999}
_QUERY: Json = {
    "model": {"type": "string"},
    "model_version": _VERSION_NUMBER,
    "user_id": {"type": "string"},
    "timeout_ms": {"type": "number", "exclusiveMinimum": 0},
}
_ASKED = "For every body; where a JSON body says it too, both say the same."
_MODEL: Json = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
_VERSION: Json = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": _VERSION_NUMBER,
}
_OVERRIDE: Json = {
    "name": "x-slipway-override",
    "in": "header",
    "schema": {"type": "string"},
    "description": "A signed override, which names the version that answers; `slipway override` signs one.",
}
_NAMED: Json = {
    "name": "x-slipway-version",
    "in": "header",
    "schema": _VERSION_NUMBER,
    "description": "Names the version that answers, as body and path may.",
}


@cache
def document() -> bytes:
    """The document, as JSON."""
    return msgspec.json.format(msgspec.json.encode(as_json()), indent=2) + b"\n"


def as_json() -> Json:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Slipway model server", "version": SERVER_VERSION, "description": _DESCRIPTION},
        "security": [{}, {"token": []}],
        "paths": _plain_paths() | _v2_paths(),
        "components": {
            "schemas": schemas(),
            "headers": _headers(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _plain_paths() -> Json:
    return {
        "/predict": {
            "post": _operation(
                "predict",
                "Predict: features in, predictions out. An unknown parameter of the query is answered with 400.",
                {"200": _answered("Prediction")},
                errors=_OF_PREDICTIONS,
                body=_tables(),
                parameters=[
                    *(
                        {"name": name, "in": "query", "schema": schema, "description": _ASKED}
                        for name, schema in _QUERY.items()
                    ),
                    _NAMED,
                    _OVERRIDE,
                ],
            )
        },
        "/feedback": {
            "post": _operation(
                "feedback",
                "Tell what came of predictions. A body is counted whole or not at all. An error names the piece of a "
                "batch that it is about, as in $.feedback[0], the first.",
                {"200": _answer("Accepted", "It is counted, but for what was known already.")},
                errors=("400", "404", "405", "413", "415", "503"),
                body=_feedback(),
            )
        },
        "/health": _get("health", "Whether the process lives.", {"200": _answer("Health")}),
        "/ready": _get("ready", "Whether all that is to be served is.", _ready_answers()),
        "/models/reload": {
            "post": _operation(
                "reload",
                "Look for new plans now, try failed loads again, and wait for them.",
                {"200": _answer("Reloaded")},
                errors=("405", "503"),
            )
        },
        "/ab-test/stats": _get("stats", "What each version did since the start.", {"200": _answer("Stats")}),
        "/metrics": _get("metrics", "Prometheus metrics.", {"200": _metrics()}),
        "/openapi.json": _get("openapi", "This document.", {"200": _answer("OpenApi")}),
    }


def _v2_paths() -> Json:
    paths: Json = {
        "/v2": _get("v2Server", "The server's metadata.", {"200": _answer("ServerMetadata")}),
        "/v2/health/live": _get("v2Live", "Whether the process lives.", {"200": _answer("Live")}),
        "/v2/health/ready": _get("v2Ready", "Whether all that is to be served is.", _ready_answers()),
        "/v2/models/stats": _get("v2Statistics", "Statistics of all models.", {"200": _answer("ModelStatistics")}),
        "/v2/repository/index": {
            "post": _operation(
                "v2Index",
                "Every version of every plan.",
                {"200": _answer("RepositoryIndex")},
                errors=("400", "405", "413", "415"),
                body=_json_of("IndexRequest", required=False),
            )
        },
    }
    root = "/v2/models/{model}"
    of_version = _model_paths(f"{root}/versions/{{version}}", "Version", [_MODEL, _VERSION], ("503",))
    return paths | _model_paths(root, "", [_MODEL], ()) | of_version


def _model_paths(root: str, suffix: str, parameters: list[Json], stats_errors: tuple[str, ...]) -> Json:
    """The paths of a model, or of one version of it."""

    def of_model(
        name: str, what: str, schema: str, *, more: Json | None = None, errors: tuple[str, ...] = ("503",)
    ) -> Json:
        answers = {"200": _answer(schema)} | (more or {})
        return _get(f"{name}{suffix}", what, answers, errors=(*_OF_MODELS, *errors), parameters=parameters)

    not_ready = {"503": _answer("ModelReady", "It does not.")}
    return {
        root: of_model("v2Model", "The model's metadata.", "ModelMetadata"),
        f"{root}/ready": of_model("v2ModelReady", "Whether it answers.", "ModelReady", more=not_ready),
        f"{root}/config": of_model("v2ModelConfig", "The model's configuration.", "ModelConfig"),
        f"{root}/stats": of_model(
            "v2ModelStatistics", "The model's statistics.", "ModelStatistics", errors=stats_errors
        ),
        f"{root}/infer": {
            "parameters": parameters,
            "post": _operation(
                f"v2Infer{suffix}",
                "Infer. With the header Inference-Header-Content-Length, binary tensors follow the JSON.",
                {"200": _answered("InferResponse", binary=True)},
                errors=_OF_PREDICTIONS,
                body=_json_of("InferRequest", binary=True),
                parameters=[_NAMED, _OVERRIDE],
            ),
        },
    }


def _get(
    name: str, what: str, answers: Json, *, errors: tuple[str, ...] = ("405",), parameters: list[Json] | None = None
) -> Json:
    path: Json = {"get": _operation(name, what, answers, errors=errors)}
    return path if parameters is None else {"parameters": parameters} | path


def _operation(
    name: str,
    what: str,
    answers: Json,
    *,
    errors: tuple[str, ...],
    body: Json | None = None,
    parameters: list[Json] | None = None,
) -> Json:
    responses = answers | {status: _answer("Error", _MEANINGS[status]) for status in errors if status not in answers}
    operation: Json = {"operationId": name, "summary": what, "responses": dict(sorted(responses.items()))}
    if parameters is not None:
        operation["parameters"] = parameters
    return operation if body is None else operation | {"requestBody": body}


def _answer(schema: str, what: str = "The answer.") -> Json:
    return {"description": what, "content": {"application/json": {"schema": _ref(schema)}}}


def _answered(schema: str, *, binary: bool = False) -> Json:
    headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _headers()}
    answer = _answer(schema, "The answer, and in its headers who gave it.") | {"headers": headers}
    if binary:
        answer["content"]["application/octet-stream"] = {"schema": {"description": "JSON, then the tensors' data."}}
    else:
        del headers["inference-header-content-length"]
    return answer


def _ready_answers() -> Json:
    return {"200": _answer("Ready"), "503": _answer("Ready", "Not yet, or not any more.")}


def _metrics() -> Json:
    text: Json = {"schema": {"type": "string"}}
    return {"description": "The metrics.", "content": {"text/plain": text, "application/openmetrics-text": text}}


def _json_of(schema: str, *, binary: bool = False, required: bool = True) -> Json:
    content: Json = {"application/json": {"schema": _ref(schema)}}
    if binary:
        content["application/octet-stream"] = {"schema": {"description": "JSON, then the tensors' data."}}
    return {"required": required, "content": content}


def _tables() -> Json:
    rows = list_of({"type": "object", "description": "The values of a row by input name."})
    csv = "The inputs' columns by name, or without a header in their order."
    return {
        "required": True,
        "content": {
            "application/json": {"schema": {"anyOf": [_ref("PredictRequest"), rows]}},
            "text/csv": {"schema": {"type": "string", "description": csv}},
            "application/vnd.apache.arrow.stream": {"schema": {"description": "An Arrow IPC stream of columns."}},
        },
    }


def _feedback() -> Json:
    schema: Json = {"anyOf": [_ref("FeedbackItem"), _ref("FeedbackBatch")]}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _ref(schema: str) -> Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _headers() -> Json:
    integer: Json = {"type": "integer", "minimum": 1}
    described = {
        "x-slipway-version": ("The version that answered.", integer),
        "x-slipway-role": ("What it is to its endpoint.", {"enum": ["stable", "candidate", "shadow"]}),
        "x-slipway-generation": ("The generation of the route plan.", integer),
        "x-slipway-fallback": ("There where stable answered in place of a candidate that failed.", {"const": "true"}),
        "set-cookie": ("Where the plan has callers named by a cookie, and the request had none.", {"type": "string"}),
        "x-slipway-prediction-id": ("Names what answered; the admin API resolves it.", {"type": "string"}),
        "inference-header-content-length": ("The length of the JSON, where data follows.", integer),
    }
    optional = ("set-cookie", "x-slipway-fallback", "inference-header-content-length")
    return {
        name: {"description": what, "required": name not in optional, "schema": schema}
        for name, (what, schema) in described.items()
    }


if __name__ == "__main__":
    # python -m aks_serving.openapi > docs/serving-openapi.json
    sys.stdout.buffer.write(document())
