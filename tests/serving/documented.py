"""Holds answers of the model server to its OpenAPI document: their statuses, headers and bodies."""

import json
import re
from typing import Any

import httpx
import jsonschema
from aks_serving import openapi

DOCUMENT: dict[str, Any] = json.loads(openapi.document())

_PATHS = [
    (path, re.compile(re.sub(r"\{\w+\}", "[^/]+", path)))
    for path in sorted(DOCUMENT["paths"], key=lambda path: "{" in path)
]


def operation_of(answer: httpx.Response) -> tuple[str, str] | None:
    """The documented method and path that were asked; for a method that is not answered, the path's only one.

    None for a path that is not documented.
    """
    request = answer.request
    path = next((path for path, pattern in _PATHS if pattern.fullmatch(request.url.path)), None)
    if path is None:
        return None
    names = [name for name in ("get", "post") if name in DOCUMENT["paths"][path]]
    method = request.method.lower()
    return (method if method in names else names[0]), path


def check_status(answer: httpx.Response) -> None:
    """Fails the test where the document does not have the status for what was asked: a path that it names.

    A defect of the server's own is 500 everywhere, as the document's description says.
    """
    found = operation_of(answer)
    if found is not None and answer.status_code != 500:
        responses = DOCUMENT["paths"][found[1]][found[0]]["responses"]
        what = f"{answer.request.method} {answer.request.url}"
        assert str(answer.status_code) in responses, f"{what} answers {answer.status_code}, which is not documented"


def check(answer: httpx.Response) -> None:
    """Fails the test where an answer is not as the document has it. What it does not name may be anything."""
    found = operation_of(answer)
    if found is None:
        return
    method, path = found
    what = f"{answer.request.method} {answer.request.url}"
    responses = DOCUMENT["paths"][path][method]["responses"]
    status = str(answer.status_code)
    check_status(answer)
    if status in {"429", "503", "504"}:
        assert answer.headers["retry-after"] == "1", what
    response = responses[status]
    _check_headers(response.get("headers", {}), answer.headers, what)
    if answer.request.method != "HEAD":
        kind = answer.headers["content-type"].split(";")[0]
        assert kind in response["content"], f"{what} answers {kind}, which is not documented"
        if kind == "application/json":
            _validator(response["content"][kind]["schema"]).validate(answer.json())


def _check_headers(references: dict[str, Any], headers: httpx.Headers, what: str) -> None:
    ours = {name for name in headers if name.startswith("x-slipway-") or name == "set-cookie"}
    assert ours <= references.keys(), f"{what} answers with headers that are not documented"
    for name, reference in references.items():
        header = DOCUMENT["components"]["headers"][reference["$ref"].rsplit("/", 1)[1]]
        if name in headers:
            value = headers[name]
            _validator(header["schema"]).validate(int(value) if header["schema"].get("type") == "integer" else value)
        else:
            assert not header["required"], f"{what} answers without the header {name}"


def _validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]})
