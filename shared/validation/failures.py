"""What counts as a failed attempt, and how many are made before a drop or a version is given up.

An outage does not count, nor does an attempt whose process was killed: neither says anything about the drop.
"""

from shared.core.errors import ChangedMeanwhileError, UnavailableError
from shared.validation.refusal import excerpt

MAX_FAILURES = 5


class SandboxUnavailableError(UnavailableError):
    """No sandbox could be had, or something outside of it ended it."""

    def __init__(self, reason: str) -> None:
        super().__init__("the sandbox", reason)


def is_failure(error: Exception) -> bool:
    """Whether an attempt that ended in this error counts."""
    if isinstance(error, SandboxUnavailableError):
        return True
    return not isinstance(error, UnavailableError | ChangedMeanwhileError)


def last_error(error: Exception) -> str:
    """The error in a sentence that a document may keep."""
    return excerpt(str(error) or type(error).__name__, 500)
