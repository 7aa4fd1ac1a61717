"""The blob trigger, by polling, whatever `source` the app declares: Event Grid exists in Azure alone.

A scan lists the blobs that a function's path covers. For each new state (ETag) of a blob it takes a receipt
(local.host.receipts) and sends the host a message on `azure-webjobs-blobtrigger-<host id>`. The handler of those
messages calls the function, unless the blob is gone or has changed since: a change has its own ETag and message. After
`poisonBlobThreshold` failed calls the message goes to `webjobs-blobtrigger-poison` of the blob's account.

A parameter of an SDK type (`blob.BlobClient`) gets a client; the blob's bytes never pass through the host. An
`func.InputStream` gets the bytes, read whole, of the state that the message names.
"""

import asyncio
import json
import logging
import re
from dataclasses import dataclass
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobProperties

from local.host.bindings import Function, connection_name
from local.host.errors import HostStartError
from local.host.invocations import Invoker
from local.host.messages import Message, encode, typed
from local.host.protos import ModelBindingData, TypedData
from local.host.receipts import Receipt, Taken
from local.host.settings import AppSettings
from local.host.storage import Storage, Storages, in_thread, pause, send_creating

_log = logging.getLogger("host.blobs")

_CONTAINER = re.compile(r"\$root|\$logs|(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
POISON_QUEUE = "webjobs-blobtrigger-poison"


def trigger_queue(host_id: str) -> str:
    """The queue between the scans and the handler."""
    return f"azure-webjobs-blobtrigger-{host_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PathPattern:
    """The path of a blob trigger: `container/{name}`. A parameter matches any text, slashes too."""

    container: str
    prefix: str
    expression: re.Pattern[str]

    @classmethod
    def parse(cls, path: str, function: str) -> "PathPattern":
        """Read a path. Raises HostStartError naming the function."""
        container, _, blob = path.partition("/")
        if not _CONTAINER.fullmatch(container):
            raise HostStartError.in_function(
                function, f"its path {path!r} must begin with a container's name, without parameters"
            )
        if not blob:
            return cls(container=container, prefix="", expression=re.compile(r".*", re.DOTALL))
        parts = _PARAMETER.split(blob)
        names = parts[1::2]
        if len(set(names)) != len(names) or any("{" in text or "}" in text for text in parts[0::2]):
            raise HostStartError.in_function(
                function, f"its path {path!r} must name each parameter in braces once, like container/{{name}}"
            )
        texts = [f"(?P<{part}>.+)" if place % 2 else re.escape(part) for place, part in enumerate(parts)]
        return cls(container=container, prefix=parts[0], expression=re.compile("".join(texts), re.DOTALL))

    def match(self, blob: str) -> dict[str, str] | None:
        """The parameters of a blob's name; None where the path does not cover it."""
        found = self.expression.fullmatch(blob)
        return found.groupdict() if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobTrigger:
    """A function with a blob trigger, its path, and the account that it watches."""

    function: Function
    pattern: PathPattern
    connection: str
    storage: Storage

    @classmethod
    def of(cls, function: Function, settings: AppSettings, storages: Storages) -> "BlobTrigger":
        """Read a blob trigger's declaration. Raises HostStartError."""
        path = settings.resolve(str(function.trigger.fields.get("path", "")), function=function.name)
        connection = connection_name(function.trigger)
        return cls(
            function=function,
            pattern=PathPattern.parse(path, function.name),
            connection=connection,
            storage=storages.of(settings.connection(connection, function=function.name)),
        )

    @property
    def wants_client(self) -> bool:
        """Whether the parameter is of an SDK type."""
        properties = self.function.trigger.fields.get("properties") or {}
        return any(name.casefold() == "supportsdeferredbinding" and value is True for name, value in properties.items())


class BlobScanner:
    """Finds new blobs for one function and tells the host of them."""

    def __init__(
        self,
        trigger: BlobTrigger,
        *,
        host_storage: Storage,
        host_id: str,
        interval_s: float,
        patience_s: float,
    ) -> None:
        self._trigger = trigger
        self._host_storage = host_storage
        self._queue = host_storage.queue(trigger_queue(host_id))
        self._host_id = host_id
        self._interval_s = interval_s
        self._patience_s = patience_s
        self._done: dict[str, str] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Scan until the host stops. What a scan cannot do, the next one does."""
        while not stopping.is_set():
            try:
                await in_thread(self._scan, stopping)
            except ResourceNotFoundError:
                self._done.clear()
            except AzureError as error:
                _log.warning("container %s cannot be scanned, trying on: %s", self._trigger.pattern.container, error)
            await pause(stopping, self._interval_s)

    def _scan(self, stopping: asyncio.Event) -> None:
        pattern = self._trigger.pattern
        container = self._trigger.storage.blobs.get_container_client(pattern.container)
        seen: dict[str, str] = {}
        for found in container.list_blobs(name_starts_with=pattern.prefix or None):
            if stopping.is_set():
                return
            etag = str(found.etag).strip('"')
            if self._done.get(found.name) == etag or self._tell(found.name, etag):
                seen[found.name] = etag
        # Only what the container still holds is remembered, so that memory is bounded by it.
        self._done = seen

    def _tell(self, blob: str, etag: str) -> bool:
        """Send the message for a blob's state unless it was sent; whether it needs no further look."""
        function, pattern = self._trigger.function, self._trigger.pattern
        if pattern.match(blob) is None:
            return True
        receipt = Receipt(
            self._host_storage.blobs,
            host_id=self._host_id,
            function=function.host_name,
            etag=etag,
            container=pattern.container,
            blob=blob,
        )
        try:
            taken = receipt.take(self._patience_s)
            if taken is Taken.OURS:
                self._send(function, blob, etag)
                receipt.complete()
        except HttpResponseError as error:
            # The storage answered, and refused this blob: the others must not wait for it.
            _log.error("function=%s blob %s/%s: %s", function.name, pattern.container, blob, error)
            return False
        if taken is Taken.OURS:
            _log.info("function=%s new blob %s/%s etag=%s", function.name, pattern.container, blob, etag)
        return taken is not Taken.IN_WORK

    def _send(self, function: Function, blob: str, etag: str) -> None:
        message = {
            "Type": "BlobTrigger",
            "FunctionId": function.host_name,
            "BlobType": "BlockBlob",
            "ContainerName": self._trigger.pattern.container,
            "BlobName": blob,
            "ETag": f'"{etag}"',
        }
        send_creating(self._queue, encode(json.dumps(message).encode(), base64=True))


class BlobMessageHandler:
    """Calls functions for the messages that scans sent. Messages of all functions share one queue."""

    def __init__(self, triggers: list[BlobTrigger], invoker: Invoker, *, poison_after: int) -> None:
        self._triggers = {trigger.function.host_name: trigger for trigger in triggers}
        self._invoker = invoker
        self._poison_after = poison_after

    async def handle(self, message: Message) -> bool:
        """Call the function that a message is for; whether the message is done with."""
        try:
            body = json.loads(message.body)
            trigger = self._triggers.get(body["FunctionId"])
            blob, etag = str(body["BlobName"]), str(body["ETag"]).strip('"')
        except (ValueError, KeyError, TypeError) as error:
            _log.error("message %s is not a blob trigger's: %r", message.id, error)
            return False
        if trigger is None:
            _log.warning("message %s is for %s, which the app no longer has", message.id, body["FunctionId"])
            return True
        try:
            if await self._call(trigger, blob, etag):
                return True
            if message.dequeue_count < self._poison_after:
                return False
            poison = trigger.storage.queue(POISON_QUEUE)
            await in_thread(send_creating, poison, encode(message.body, base64=True))
        except AzureError as error:
            _log.warning("function=%s blob=%s: storage failed, trying again: %s", trigger.function.name, blob, error)
            return False
        _log.error("function=%s blob=%s failed too often: moved to %s", trigger.function.name, blob, POISON_QUEUE)
        return True

    async def _call(self, trigger: BlobTrigger, blob: str, etag: str) -> bool:
        parameters = trigger.pattern.match(blob)
        client = trigger.storage.blobs.get_blob_client(trigger.pattern.container, blob)
        try:
            properties = await in_thread(client.get_blob_properties)
            if parameters is None or str(properties.etag).strip('"') != etag:
                return True
            data = await self._data(trigger, client, blob, etag)
        except (ResourceNotFoundError, ResourceModifiedError):
            return True
        metadata = _metadata(trigger.pattern.container, client, properties) | {
            name: TypedData(string=value) for name, value in parameters.items()
        }
        return (await self._invoker.call(trigger.function, data, metadata)).succeeded

    async def _data(self, trigger: BlobTrigger, client: BlobClient, blob: str, etag: str) -> TypedData:
        if trigger.wants_client:
            content = {
                "Connection": trigger.connection,
                "ContainerName": trigger.pattern.container,
                "BlobName": blob,
            }
            return TypedData(
                model_binding_data=ModelBindingData(source="AzureStorageBlobs", content=json.dumps(content))
            )
        return TypedData(bytes=await in_thread(_read, client, etag))


def _metadata(container: str, client: BlobClient, properties: BlobProperties) -> dict[str, TypedData]:
    described: dict[str, Any] = {
        "ContentLength": properties.size,
        "ETag": properties.etag,
        "ContentType": properties.content_settings.content_type,
        "LastModified": properties.last_modified.isoformat(),
        "CreatedOn": properties.creation_time.isoformat() if properties.creation_time else None,
        "BlobType": "Block",
    }
    return {
        "BlobTrigger": typed(f"{container}/{client.blob_name}"),
        # Azure sends the address as JSON text; without the query, which could hold a token.
        "Uri": typed(client.url.partition("?")[0]),
        "Properties": typed(described),
        "Metadata": typed(dict(properties.metadata or {})),
    }


def _read(client: BlobClient, etag: str) -> bytes:
    return client.download_blob(etag=f'"{etag}"', match_condition=MatchConditions.IfNotModified).readall()
