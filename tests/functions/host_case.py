"""What the tests of the local host share: the sample app, its storage seen from outside, and hosts over both."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueClient, QueueServiceClient

from local.host.storage import ensure_queue
from tests.support.host import HostProcess
from tests.support.waiting import eventually

SAMPLE_APP = Path(__file__).parent / "sample_app"
HOST_ID = "sample"
NEVER = "0 0 0 1 1 *"

_SETTINGS = {
    "AzureFunctionsWebHost__hostid": HOST_ID,
    "WORK_QUEUE": "work",
    "TICK_SCHEDULE": NEVER,
    "SLIPWAY_HOST_BLOB_SCAN_S": "0.2",
}


class SampleCase:
    """The sample app over one storage account. `close` ends every host that it started."""

    def __init__(self, storage: str, directory: Path) -> None:
        self.storage = storage
        self.directory = directory
        self.blobs = BlobServiceClient.from_connection_string(storage)
        self._queues = QueueServiceClient.from_connection_string(storage)
        self._hosts: list[HostProcess] = []

    def start_host(self, name: str = "host", **settings: str) -> HostProcess:
        """Start a host; settings over those of the case."""
        host = HostProcess.start(
            app_dir=SAMPLE_APP,
            directory=self.directory,
            storage=self.storage,
            settings=_SETTINGS | {"SAMPLE_STORAGE": self.storage} | settings,
            name=name,
        )
        self._hosts.append(host)
        return host

    def close(self) -> None:
        """End the hosts and the clients."""
        for host in self._hosts:
            host.child.stop(5.0)
        self.blobs.close()
        self._queues.close()

    def queue(self, name: str) -> QueueClient:
        """A queue, created where it does not exist."""
        queue = self._queues.get_queue_client(name)
        ensure_queue(queue)
        return queue

    def send(self, *bodies: str, queue: str = "work") -> None:
        """Send messages, base64 as host.json says."""
        client = self.queue(queue)
        for body in bodies:
            client.send_message(base64.b64encode(body.encode()).decode())

    def raw_messages(self, queue: str) -> list[str]:
        """The visible messages of a queue as they stand there; they stay."""
        return [str(message.content) for message in self.queue(queue).peek_messages(max_messages=32)]

    def messages(self, queue: str) -> list[str]:
        """The visible messages of a queue, decoded; they stay."""
        return [base64.b64decode(content).decode() for content in self.raw_messages(queue)]

    def is_empty(self, queue: str) -> bool:
        """Whether a queue holds no message at all, visible or not."""
        return self.queue(queue).get_queue_properties().approximate_message_count == 0

    def seen(self, kind: str) -> list[dict[str, Any]]:
        """What a function of the sample app noted, oldest first."""
        container = self.blobs.get_container_client("seen")
        try:
            notes = [
                json.loads(container.download_blob(blob.name).readall())
                for blob in container.list_blobs(name_starts_with=f"{kind}/")
            ]
        except ResourceNotFoundError:
            return []
        return sorted(notes, key=lambda note: float(note["at"]))

    def wait_for(self, kind: str, count: int = 1, *, deadline_s: float = 120.0) -> list[dict[str, Any]]:
        """Wait until a function has noted something that many times."""
        return eventually(
            lambda: notes if len(notes := self.seen(kind)) >= count else [],
            what=f"{count} notes of {kind}",
            deadline_s=deadline_s,
        )

    def upload(self, container: str, name: str, data: str, metadata: dict[str, str] | None = None) -> str:
        """Upload a blob over what stood there; its ETag."""
        client = self.blobs.get_container_client(container)
        if not client.exists():
            client.create_container()
        return str(client.upload_blob(name, data, overwrite=True, metadata=metadata).get_blob_properties().etag)


def sample_case(storage: str, directory: Path) -> Iterator[SampleCase]:
    """The body of a fixture: a case, closed at the end."""
    case = SampleCase(storage, directory)
    try:
        yield case
    finally:
        case.close()
