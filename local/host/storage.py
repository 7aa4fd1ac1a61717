"""Clients of Azure Storage for the host's own work, and the few calls on which its parts agree.

The SDK's clients block; the host calls them in threads (`in_thread`), never on its event loop.
"""

import asyncio
from collections.abc import Callable

from azure.core.exceptions import ResourceExistsError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.blob import LinearRetry as BlobRetry
from azure.storage.queue import LinearRetry as QueueRetry
from azure.storage.queue import QueueClient, QueueServiceClient

HOSTS_CONTAINER = "azure-webjobs-hosts"

_CONNECT_TIMEOUT_S = 5
_READ_TIMEOUT_S = 30
_RETRIES = 2
_RETRY_DELAY_S = 1


class Storage:
    """The clients of one storage account. Messages are read and written as they stand on the wire."""

    def __init__(self, connection: str) -> None:
        self.blobs = BlobServiceClient.from_connection_string(
            connection,
            retry_policy=BlobRetry(backoff=_RETRY_DELAY_S, retry_total=_RETRIES, random_jitter_range=0),
            connection_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
        )
        self._queues = QueueServiceClient.from_connection_string(
            connection,
            retry_policy=QueueRetry(backoff=_RETRY_DELAY_S, retry_total=_RETRIES, random_jitter_range=0),
            connection_timeout=_CONNECT_TIMEOUT_S,
            read_timeout=_READ_TIMEOUT_S,
        )

    def queue(self, name: str) -> QueueClient:
        """The client of one queue. Nothing is created."""
        return self._queues.get_queue_client(name)


class Storages:
    """One `Storage` for each connection string, made at first use."""

    def __init__(self) -> None:
        self._known: dict[str, Storage] = {}

    def of(self, connection: str) -> Storage:
        """The clients for a connection string."""
        if connection not in self._known:
            self._known[connection] = Storage(connection)
        return self._known[connection]


def ensure_queue(queue: QueueClient) -> None:
    """Create a queue unless it exists."""
    try:
        queue.create_queue()
    except ResourceExistsError:
        return


def send_creating(queue: QueueClient, text: str) -> None:
    """Send a message, on a queue created where it does not exist yet."""
    try:
        queue.send_message(text)
    except ResourceNotFoundError:
        ensure_queue(queue)
        queue.send_message(text)


def ensure_container(blobs: BlobServiceClient, name: str) -> None:
    """Create a container unless it exists."""
    try:
        blobs.create_container(name)
    except ResourceExistsError:
        return


async def in_thread[**P, T](call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in the host's pool of threads for storage."""
    return await asyncio.to_thread(call, *args, **kwargs)


async def pause(stopping: asyncio.Event, seconds: float) -> bool:
    """Wait for a time, or until the host stops; True where it stops."""
    try:
        await asyncio.wait_for(stopping.wait(), max(seconds, 0.0))
    except TimeoutError:
        return stopping.is_set()
    return True
