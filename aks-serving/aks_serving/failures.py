"""Errors as responses: the one table of statuses, and nowhere else."""

import msgspec

from aks_serving.encodings import UnsupportedCodingError
from aks_serving.errors import (
    BodyTooLargeError,
    ExpiredError,
    ModelRunError,
    OverloadedError,
)
from aks_serving.exchange import Head, Response
from aks_serving.tables import UnsupportedTypeError
from shared.core.errors import InvalidInputError, NotFoundError, SlipwayError, UnavailableError
from shared.signing.override import OverrideRefusedError

_encode = msgspec.json.Encoder().encode

_STATUS: tuple[tuple[type[SlipwayError], int], ...] = (
    (BodyTooLargeError, 413),
    (UnsupportedCodingError, 415),
    (UnsupportedTypeError, 415),
    (OverrideRefusedError, 403),
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (OverloadedError, 429),
    (UnavailableError, 503),
    (ExpiredError, 504),
    (ModelRunError, 500),
)
AGAIN = ((b"retry-after", b"1"),)
"""The header of what may well be answered a second later."""

_PASSING = (UnavailableError, ExpiredError)


class MethodNotAllowedError(SlipwayError):
    """A path that is there, asked by another method than it answers."""

    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method[:20]} is not answered here: use {allowed}")
        self.allowed = allowed


def check_method(method: str, allowed: str) -> None:
    """Raises MethodNotAllowedError. What answers GET answers HEAD."""
    if method != allowed and not (method == "HEAD" and allowed == "GET"):
        raise MethodNotAllowedError(method, allowed)


def failure(error: SlipwayError) -> Response:
    """The response that tells of an error."""
    body = _encode({"error": str(error)})
    if isinstance(error, MethodNotAllowedError):
        return Response(Head(405, ((b"allow", error.allowed.encode()),)), body)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    return Response(Head(status, AGAIN if isinstance(error, _PASSING) else ()), body)
