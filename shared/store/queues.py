"""Queue messages to Azure Storage, or to Azurite on one machine.

Messages are base64, as host.json tells the functions host (messageEncoding), and never expire: a command that waits
out an outage must still be there afterwards. A send whose answer was lost is repeated, so a message may arrive twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ResourceExistsError
from azure.storage.queue import QueueServiceClient, TextBase64EncodePolicy

from shared.core.errors import InvalidInputError
from shared.core.messages import Queue
from shared.store.azure_errors import azure_errors

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

MAX_BODY_BYTES = 48 * 1024
"""Base64 makes 64 KB of these, the most that a queue takes."""
MAX_DELAY_S = 7 * 24 * 3600

_SERVICE = "queue storage"
_NEVER_EXPIRES = -1
_CLIENT_OPTIONS: Mapping[str, Any] = {
    "connection_timeout": 5,
    "read_timeout": 30,
    "initial_backoff": 1,
    "increment_base": 2,
    "random_jitter_range": 1,
    "retry_total": 3,
}


class AzureQueues:
    """The queue port on a storage account."""

    def __init__(self, service: QueueServiceClient) -> None:
        """Use a client of the queue endpoint."""
        self._service = service

    @classmethod
    def from_connection_string(cls, connection_string: str) -> AzureQueues:
        """Reach storage by key. Raises InvalidInputError for a malformed connection string."""
        try:
            return cls(QueueServiceClient.from_connection_string(connection_string, **_CLIENT_OPTIONS))
        except ValueError as error:
            raise InvalidInputError(f"the storage connection string is malformed: {error}") from error

    @classmethod
    def from_credential(cls, url: str, credential: TokenCredential) -> AzureQueues:
        """Reach the queue endpoint `url` with a token credential."""
        return cls(QueueServiceClient(url, credential=credential, **_CLIENT_OPTIONS))

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def ensure_queues(self) -> None:
        """Create the queues that are absent: on one machine alone, for in Azure they are deployed."""
        with azure_errors(_SERVICE):
            for queue in Queue:
                try:
                    self._service.create_queue(queue.value)
                except ResourceExistsError:
                    continue

    def send(self, queue: str, body: str, *, delay_s: float = 0.0) -> None:
        """See QueueSender.send. Raises InvalidInputError for an empty or too large body, or such a delay."""
        if not 0 <= delay_s <= MAX_DELAY_S:  # NaN fails too
            raise InvalidInputError(f"the delay of a message is {delay_s} s: use 0 to {MAX_DELAY_S}")
        try:
            size_bytes = len(body.encode())
        except UnicodeEncodeError as error:
            raise InvalidInputError(f"a message to {queue} is not valid Unicode: {error}") from error
        if not 0 < size_bytes <= MAX_BODY_BYTES:
            raise InvalidInputError(
                f"a message to {queue} has {size_bytes} bytes: use 1 to {MAX_BODY_BYTES}, and a blob for what is larger"
            )
        client = self._service.get_queue_client(queue, message_encode_policy=TextBase64EncodePolicy())
        with azure_errors(f"{_SERVICE} ({queue})"):
            client.send_message(body, visibility_timeout=math.ceil(delay_s), time_to_live=_NEVER_EXPIRES)
