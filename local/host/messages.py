"""Queue messages on the wire and in a function: their encoding, and the trigger metadata that they give."""

import base64 as codec
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from local.host.protos import TypedData


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as a function gets it: its decoded body, and what the queue tells of it."""

    id: str
    body: bytes
    dequeue_count: int
    pop_receipt: str
    inserted_at: datetime
    expires_at: datetime
    next_visible_at: datetime

    def data(self) -> TypedData:
        """The body as the trigger's input: text where it is UTF-8, else bytes."""
        try:
            return TypedData(string=self.body.decode())
        except UnicodeDecodeError:
            return TypedData(bytes=self.body)

    def metadata(self) -> dict[str, TypedData]:
        """The trigger metadata.

        The top-level fields of a JSON object stand beside, and, whatever their case, in place of the queue's own: a
        body with a field "id" gives `QueueMessage.id` that value, in Azure too (azure-functions-python-worker #1373).
        """
        own: dict[str, Any] = {
            "Id": self.id,
            "DequeueCount": self.dequeue_count,
            "PopReceipt": self.pop_receipt,
            "InsertionTime": self.inserted_at.isoformat(),
            "ExpirationTime": self.expires_at.isoformat(),
            "NextVisibleTime": self.next_visible_at.isoformat(),
        }
        names = {name.casefold(): name for name in own}
        for name, value in self._json_fields():
            own[names.get(name.casefold(), name)] = value
        return {"QueueTrigger": self.data()} | {name: typed(value) for name, value in own.items()}

    def _json_fields(self) -> Iterable[tuple[str, Any]]:
        if not self.body.lstrip().startswith(b"{"):
            return ()
        try:
            found = json.loads(self.body)
        except ValueError:
            return ()
        return found.items() if isinstance(found, dict) else ()


def typed(value: Any) -> TypedData:  # noqa: ANN401 - any JSON value
    """A value of trigger metadata: text as it is, all else as JSON."""
    return TypedData(string=value) if isinstance(value, str) else TypedData(json=json.dumps(value))


def encode(body: bytes, *, base64: bool) -> str:
    """A body as it stands on the queue. Raises ValueError where text is wanted and the body is not UTF-8."""
    return codec.b64encode(body).decode() if base64 else body.decode()


def decode(text: str, *, base64: bool) -> bytes:
    """The body of what stands on the queue. Raises ValueError where it is not base64 but should be."""
    # Line breaks within base64 are allowed, as .NET allows them.
    return codec.b64decode("".join(text.split()), validate=True) if base64 else text.encode()
