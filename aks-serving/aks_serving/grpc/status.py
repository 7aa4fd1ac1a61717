"""Errors of the domain as gRPC statuses, by one table, and nowhere else."""

from dataclasses import dataclass

import grpc

from aks_serving.errors import BodyTooLargeError, ExpiredError, ModelRunError, OverloadedError
from shared.core.errors import InvalidInputError, NotFoundError, SlipwayError, UnavailableError
from shared.signing.override import OverrideRefusedError

_MAX_DETAILS = 1000
"""Details travel in a header, and peers refuse headers beyond some 8 KiB; each byte may take three there."""


class UnauthenticatedError(SlipwayError):
    """The caller did not show a token that this server knows."""

    def __init__(self) -> None:
        super().__init__("the call has no valid token: send the metadata `authorization: Bearer <token>`")


class SilentError(SlipwayError):
    """A call was opened, and what it is about did not come."""

    def __init__(self, waited_s: float) -> None:
        super().__init__(f"no message came within {waited_s:g} s: send it, whole, or open the call once you have it")


class UnsupportedError(SlipwayError):
    """The protocol has this method, and this server does not."""

    def __init__(self, method: str, reason: str) -> None:
        super().__init__(f"{method} is not done here: {reason}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How a call ended that was not answered. `metadata` goes with it."""

    code: grpc.StatusCode
    details: str
    metadata: tuple[tuple[str, str], ...] = ()


_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (InvalidInputError, grpc.StatusCode.INVALID_ARGUMENT),
    (OverrideRefusedError, grpc.StatusCode.PERMISSION_DENIED),
    (NotFoundError, grpc.StatusCode.NOT_FOUND),
    (ExpiredError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (SilentError, grpc.StatusCode.DEADLINE_EXCEEDED),
    (OverloadedError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (BodyTooLargeError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (UnavailableError, grpc.StatusCode.UNAVAILABLE),
    (UnauthenticatedError, grpc.StatusCode.UNAUTHENTICATED),
    (UnsupportedError, grpc.StatusCode.UNIMPLEMENTED),
    (ModelRunError, grpc.StatusCode.INTERNAL),
)
_PASSING = (UnavailableError, ExpiredError)
_RETRY = (("grpc-retry-pushback-ms", "1000"),)
"""By this a client's own retry policy learns to wait; it is gRPC's Retry-After."""


def status_of(error: SlipwayError) -> Status:
    """The status that tells of an error."""
    code = next((code for kind, code in _CODES if isinstance(error, kind)), grpc.StatusCode.INTERNAL)
    metadata = _RETRY if isinstance(error, _PASSING) else ()
    return Status(code=code, details=str(error)[:_MAX_DETAILS], metadata=metadata)
