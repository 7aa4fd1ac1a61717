"""What the Azure SDK raises, as the errors of the domain: one table for blobs, queues and Cosmos DB.

The answers that belong to an operation's own contract (absent, taken, changed meanwhile) are met in the adapter; the
rest comes here.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.exceptions import AzureError, HttpResponseError

from shared.core.errors import InvalidInputError, SlipwayError, UnavailableError

_REFUSED = {
    401: "it refused the credential",
    403: "it refused the credential: grant the identity its data role, which can take minutes to take effect",
    404: "the container, queue or database does not exist: deploy it, or create it on one machine",
}
_OUR_FAULT = frozenset({400, 411, 413, 414})


def translated(service: str, error: AzureError) -> SlipwayError:
    """The domain's error for an error of the SDK's. `service` names what was asked, for the reader."""
    reason = next(iter(str(error).splitlines()), "").strip()[:300] or type(error).__name__
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if status in _OUR_FAULT:
        return InvalidInputError(f"{service} refused the request as malformed: {reason}")
    if status in _REFUSED:
        reason = f"{_REFUSED[status]} ({reason})"
    return UnavailableError(service, reason)


@contextmanager
def azure_errors(service: str) -> Iterator[None]:
    """Translate what the SDK raises inside."""
    try:
        yield
    except AzureError as error:
        raise translated(service, error) from error
