"""A glance at a queue: whether it is empty, for a fifth of the processor time that asking for its messages takes.

A host looks at some twenty queues all day, and nearly always at empty ones. A glance is a peek for one message by an
address that was signed once, over a connection that stays open. It only ever spares a look: where it cannot tell, for
whatever reason, the queue counts as not empty, and the look that follows meets the reason and says it.
"""

import http.client
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from azure.storage.queue import QueueClient, QueueSasPermissions, generate_queue_sas

_TIMEOUT_S: Final = 5.0
_SIGNED_FOR: Final = timedelta(days=365)
_MESSAGE: Final = b"<QueueMessage>"


class Glance:
    """Glances at one queue, one at a time. Only a queue on plain HTTP, as emulators have, is ever found empty."""

    def __init__(self, queue: QueueClient) -> None:
        parts = urlsplit(queue.url)
        key = getattr(queue.credential, "account_key", None)
        self._path = ""
        if parts.scheme == "http" and key is not None and queue.account_name is not None:
            signature = generate_queue_sas(
                queue.account_name,
                queue.queue_name,
                key,
                permission=QueueSasPermissions(read=True),
                expiry=datetime.now(UTC) + _SIGNED_FOR,
            )
            self._path = f"{parts.path}/messages?peekonly=true&numofmessages=1&{signature}"
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_TIMEOUT_S)

    def is_empty(self) -> bool:
        """Whether the queue has no message that could be taken now. False where that cannot be told. Never raises."""
        if not self._path:
            return False
        try:
            self._connection.request("GET", self._path)
            with self._connection.getresponse() as answer:
                body = answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        return answer.status == http.client.OK and _MESSAGE not in body

    def close(self) -> None:
        """Close the connection; a further glance opens another."""
        self._connection.close()
