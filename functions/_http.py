"""The HTTP edge: errors become status codes here, and nowhere else."""

import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeIs

import azure.functions as func
from pydantic import BaseModel, ValidationError

from functions._services import MisconfiguredError
from functions._tracing import invocation
from shared.core.errors import (
    ConflictError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    SlipwayError,
    UnavailableError,
)
from shared.core.tracing import TRACEPARENT, SpanKind, TraceContext
from shared.store.unreadable import Unreadable

MAX_BODY_BYTES = 1_000_000
_SAID = 3
_FAILED = 500
"""From which status on a span has failed, as OpenTelemetry has it for servers."""
_FAULT = "this is a fault in Slipway: the functions app's log has the details"
_UNTRACED = {"metrics", "health"}
"""What is asked all the time."""
_TOLD = ("model", "endpoint", "version", "rollout_id", "alias")
"""The parts of routes that spans and log lines tell."""

_STATUS: tuple[tuple[type[SlipwayError], int, str], ...] = (
    (InvalidInputError, 400, "invalid_input"),
    (NotFoundError, 404, "not_found"),
    (ConflictError, 409, "conflict"),
    (UnavailableError, 503, "unavailable"),
    (IntegrityError, 500, "integrity"),
    (MisconfiguredError, 500, "misconfigured"),
)

_log = logging.getLogger(__name__)

type Handler = Callable[[func.HttpRequest], func.HttpResponse]
type Answer = Callable[[func.HttpRequest], Mapping[str, Any] | func.HttpResponse]


class FailedError(Exception):
    """That the app failed to answer a request: what the request's span tells of it."""

    def __init__(self, response: func.HttpResponse) -> None:
        super().__init__(f"answered with {response.status_code}")
        self.response = response


def answering(answer: Answer) -> Handler:
    """Make a function's JSON value a response, and its errors too."""
    name = answer.__name__

    @functools.wraps(answer)
    def handle(req: func.HttpRequest) -> func.HttpResponse:
        if name in _UNTRACED:
            return answered(req)
        parent = TraceContext.parse(req.headers.get(TRACEPARENT))
        told = {"method": req.method} | {key: req.route_params[key] for key in _TOLD if key in req.route_params}
        try:
            with invocation(f"http {name}", told, kind=SpanKind.SERVER, parent=parent) as span:
                response = answered(req)
                span.note(status=response.status_code)
                if response.status_code >= _FAILED:
                    raise FailedError(response)  # noqa: TRY301 - the span must end in it
                return response
        except FailedError as failed:
            return failed.response

    def answered(req: func.HttpRequest) -> func.HttpResponse:
        try:
            value = answer(req)
        except SlipwayError as error:
            status, code = status_of(type(error))
            return _error(status, code, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer without its details
            # Without the query, which may hold the app's key.
            _log.exception("%s %s failed", req.method, req.url.partition("?")[0])
            return _unreadable(error) or _error(500, "internal", _FAULT)
        return value if isinstance(value, func.HttpResponse) else json_response(value)

    # The worker resolves a wrapped function's own annotations, which differ.
    handle.__annotations__ = {"req": func.HttpRequest, "return": func.HttpResponse}
    return handle


def status_of(kind: type[SlipwayError]) -> tuple[int, str]:
    """The status and the code of an error of a kind. One that no row names is a fault."""
    return next(((status, code) for known, status, code in _STATUS if issubclass(kind, known)), (500, "failed"))


def json_response(value: Mapping[str, Any], status: int = 200) -> func.HttpResponse:
    """A JSON response."""
    return func.HttpResponse(json.dumps(value), status_code=status, mimetype="application/json")


def listing(
    items: Iterable[Mapping[str, Any]], continuation: str | None = None, unreadable: Sequence[Unreadable] = ()
) -> dict[str, Any]:
    """A list as the API gives it: a page, and what `?continuation=` gives the next; null on the last.

    Where documents of the page cannot be read, it names them.
    """
    return {"items": list(items), "continuation": continuation} | left_out(unreadable)


def left_out(unreadable: Sequence[Unreadable]) -> dict[str, Any]:
    """The documents that an answer lacks, for they cannot be read; nothing where it lacks none."""
    return {"unreadable": [one._asdict() for one in unreadable]} if unreadable else {}


def body_of[M: BaseModel](req: func.HttpRequest, model: type[M]) -> M:
    """The request's body, an empty one as `{}`. Raises InvalidInputError saying which fields are wrong."""
    data = req.get_body()
    if len(data) > MAX_BODY_BYTES:
        raise InvalidInputError(f"the body has {len(data)} bytes: at most {MAX_BODY_BYTES} are taken")
    try:
        return model.model_validate_json(data or b"{}")
    except ValidationError as error:
        raise InvalidInputError(_said(error, model)) from None


def _said(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong with a body: the first few things, each with its place."""
    found = error.errors(include_url=False)
    said = [_said_of(detail["loc"], detail["type"], detail["msg"], model) for detail in found[:_SAID]]
    more = f" (and {len(found) - _SAID} more)" if len(found) > _SAID else ""
    return "; ".join(said) + more


def _said_of(place: tuple[int | str, ...], kind: str, message: str, model: type[BaseModel]) -> str:
    where = ".".join(str(part)[:100] for part in place) or "the body"
    if kind != "extra_forbidden":
        return f"{where}: {message.removeprefix('Value error, ')}"
    part: object = model
    for name in place[:-1]:
        field = part.model_fields.get(str(name)) if _is_model(part) else None
        part = field.annotation if field else None
    keys = part.model_fields if _is_model(part) else ()
    return f"{where}: there is no such key" + (f"; the keys are {', '.join(keys)}" if keys else "")


def _is_model(part: object) -> TypeIs[type[BaseModel]]:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _unreadable(error: Exception) -> func.HttpResponse | None:
    """The answer where a document that is needed cannot be read; None where that is not what went wrong."""
    notes = getattr(error, "__notes__", ())
    if not isinstance(error, ValidationError) or not notes:
        return None
    found = Unreadable.of(notes[0], error)
    message = (
        f"the stored document {found.document} cannot be read ({found.problem}): another release of Slipway wrote it, "
        "or it was changed by hand; run that release, or restore the document"
    )
    return _error(500, "unreadable", message)


def _error(status: int, code: str, message: str) -> func.HttpResponse:
    return json_response({"error": {"code": code, "message": message}}, status)
