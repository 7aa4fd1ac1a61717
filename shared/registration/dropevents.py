"""What storage tells of blobs, as Event Grid puts it on a queue: CloudEvents 1.0.

A new blob of `incoming` is a drop; everything else is somebody else's business.

An event is a reason to look at a blob, and no more: it may come twice, late, out of order or never, and what it says of
the blob beside its place is not read.
"""

from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.core.errors import InvalidInputError
from shared.store.ports import BlobContainer

_CREATED = "Microsoft.Storage.BlobCreated"
_FORM = "Event Grid's form for this subscription is CloudEventSchemaV1_0 (infra/bicep/eventgrid.bicep)"


class _Event(BaseModel):
    # CloudEvents lets producers add attributes, so what is not known is let through.
    model_config = ConfigDict(extra="ignore", frozen=True)

    specversion: Literal["1.0"]
    id: str = Field(min_length=1)
    source: str = Field(min_length=1)
    type: str = Field(min_length=1)
    data: dict[str, Any] | None = None


def drop_of_event(body: bytes) -> str | None:
    """The blob of `incoming` that an event says was written, or None where it tells of something else.

    Raises InvalidInputError where it is no CloudEvent, or tells of a blob without saying which.
    """
    try:
        event = _Event.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidInputError(f"it is no event of storage: {where}: {first['msg']}; {_FORM}") from None
    if event.type != _CREATED:
        return None
    url = (event.data or {}).get("url")
    if not isinstance(url, str):
        raise InvalidInputError(f"it is an event of a blob that does not say which: data.url is absent; {_FORM}")
    container, blob = _place_of(url)
    return blob if container == BlobContainer.INCOMING else None


def _place_of(url: str) -> tuple[str, str]:
    """The container and the name in a blob's address."""
    try:
        container, _, blob = urlsplit(url).path.lstrip("/").partition("/")
        found = unquote(container, errors="strict"), unquote(blob, errors="strict")
    except ValueError as error:
        raise InvalidInputError(f"it is an event of a blob at {url[:200]!r}, which is no address: {error}") from error
    if not all(found):
        raise InvalidInputError(f"it is an event of a blob at {url[:200]!r}, which names no container with a blob")
    return found
