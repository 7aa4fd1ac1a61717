"""The errors of the domain. Each says what was found, what was wanted and what to do.

Status codes belong to the HTTP edge; a vendor's errors are translated in the adapter that meets them.
"""


class SlipwayError(Exception):
    """Base of every error that Slipway raises on purpose. `str(error)` is one sentence for its reader."""


class InvalidInputError(SlipwayError):
    """What came from outside does not have the form it must have. Trying again will not help."""


class NotFoundError(SlipwayError):
    """What was asked for does not exist."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(f"{what} does not exist" + (f": {hint}" if hint else ""))


class ConflictError(SlipwayError):
    """The request is well formed, but the present state does not allow it. Nothing was changed."""


class AlreadyExistsError(ConflictError):
    """Something was to be created under an id that is taken."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} exists already")


class ChangedMeanwhileError(ConflictError):
    """A conditional write found another ETag than the one it named: reload, decide again."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} was changed by another writer: load it again and decide anew")


class UnavailableError(SlipwayError):
    """A service that Slipway stands on did not answer, or refused for now. Trying again may help."""

    def __init__(self, service: str, reason: str) -> None:
        super().__init__(f"{service} is unavailable: {reason}")


class IntegrityError(SlipwayError):
    """Stored bytes are not those that were stored: a digest or an audit chain does not match."""
