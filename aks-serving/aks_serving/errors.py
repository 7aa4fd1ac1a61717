"""What goes wrong in serving, beside the errors of the domain (shared.core.errors). HTTP statuses are in `api`."""

from shared.core.errors import SlipwayError, UnavailableError


class OverloadedError(UnavailableError):
    """The bounded queue is full."""

    def __init__(self, waiting: int) -> None:
        super().__init__("the model server", f"{waiting} requests are waiting already; try again in a second")


class NotServingError(UnavailableError):
    """No version can answer now."""


class LoadError(SlipwayError):
    """A version cannot be loaded, and trying again with the same bytes will not help."""


class ModelRunError(SlipwayError):
    """The model failed on a request. The message holds the first line of what the runtime said, no more."""

    def __init__(self, version: int, reason: str) -> None:
        super().__init__(f"version {version} failed on this request: {reason}")


class BodyTooLargeError(SlipwayError):
    """A request's body is larger than the server takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"the body is larger than {limit} bytes: send fewer rows at a time")
