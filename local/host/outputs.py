"""Queue outputs: what a function set on `func.Out` or returned becomes messages, in the encoding of host.json.

Text and bytes are one message; a list is one message an item. A `func.QueueMessage` is sent as its body. The messages
are sent after the function returned and before its trigger is settled, so a crash in between sends them twice.
"""

import json
from collections.abc import Mapping

from local.host.bindings import Function
from local.host.messages import encode
from local.host.protos import TypedData
from local.host.storage import Storages, in_thread, send_creating


class QueueOutputs:
    """Writes the queue outputs of all functions."""

    def __init__(self, storages: Storages, *, base64: bool) -> None:
        self._storages = storages
        self._base64 = base64

    async def write(self, function: Function, values: Mapping[str, TypedData | None]) -> None:
        """Send what the outputs hold. Raises AzureError, or ValueError for a value that is no message."""
        for name, target in function.queues.items():
            value = values.get(name)
            if value is None or value.kind is None:
                continue
            queue = self._storages.of(target.connection).queue(target.queue)
            for body in _bodies(value):
                await in_thread(send_creating, queue, encode(body, base64=self._base64))


def _bodies(value: TypedData) -> list[bytes]:
    if value.kind == "bytes":
        return [bytes(value.value)]
    if value.kind == "string":
        return [value.value.encode()]
    if value.kind == "json":
        found = json.loads(value.value)
        return [_body(item) for item in found] if isinstance(found, list) else [_body(found)]
    raise ValueError(f"a queue output holds a value of kind {value.kind}: set text, bytes, a QueueMessage or a list")


def _body(item: object) -> bytes:
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, dict) and set(item) == {"id", "body"}:
        return str(item["body"]).encode()
    return json.dumps(item).encode()
