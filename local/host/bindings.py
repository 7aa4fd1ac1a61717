"""What an app declares: functions with one trigger and their outputs, read from the worker library's index.

Everything that this host does not do is refused here, at the start, naming the function and the binding.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.host.errors import HostStartError
from local.host.protos import RpcFunctionMetadata
from local.host.settings import HOST_STORAGE, AppSettings

HTTP_TRIGGER = "httpTrigger"
QUEUE_TRIGGER = "queueTrigger"
BLOB_TRIGGER = "blobTrigger"
TIMER_TRIGGER = "timerTrigger"
RETURN = "$return"

TRIGGERS = (HTTP_TRIGGER, QUEUE_TRIGGER, BLOB_TRIGGER, TIMER_TRIGGER)
_OUTPUTS = ("queue", "http")
_QUEUE_NAME = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """One binding as declared: `fields` are those of a function.json, with `%Setting%` still in them."""

    name: str
    type: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueTarget:
    """A queue output: which queue, on which account."""

    queue: str
    connection: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """One function. `queues` are its queue outputs and `http_output` its HTTP output, by the binding's name."""

    name: str
    id: str
    trigger: Binding
    queues: Mapping[str, QueueTarget]
    http_output: str | None

    @property
    def host_name(self) -> str:
        """The name under which the host's own messages know it."""
        return f"Host.Functions.{self.name}"


def read_function(metadata: RpcFunctionMetadata, settings: AppSettings) -> Function:
    """Read one function of the index. Raises HostStartError."""
    name = metadata.name
    if metadata.retry_options is not None:
        raise HostStartError.in_function(name, "it declares a retry policy, which the local host does not carry out")
    bindings = [json.loads(raw) for raw in metadata.raw_bindings]
    triggers = [_binding(raw) for raw in bindings if str(raw["type"]).endswith("Trigger")]
    if len(triggers) != 1 or triggers[0].type not in TRIGGERS:
        found = ", ".join(trigger.type for trigger in triggers) or "no trigger"
        raise HostStartError.in_function(name, f"it has {found}; the local host runs one of {', '.join(TRIGGERS)}")
    outputs = [_output(name, raw) for raw in bindings if raw["name"] != triggers[0].name]
    http_outputs = [output.name for output in outputs if output.type == "http"]
    if http_outputs and triggers[0].type != HTTP_TRIGGER:
        raise HostStartError.in_function(
            name, f"binding {http_outputs[0]!r} answers HTTP, but no HTTP request calls it"
        )
    return Function(
        name=name,
        id=metadata.function_id,
        trigger=triggers[0],
        queues={output.name: queue_target(name, output, settings) for output in outputs if output.type == "queue"},
        http_output=http_outputs[0] if http_outputs else None,
    )


def queue_target(function: str, binding: Binding, settings: AppSettings) -> QueueTarget:
    """The queue that a queue trigger or output names. Raises HostStartError."""
    queue = settings.resolve(str(binding.fields.get("queueName", "")), function=function)
    if not _QUEUE_NAME.fullmatch(queue):
        raise HostStartError.in_function(
            function,
            f"binding {binding.name!r} names the queue {queue!r}: use 3 to 63 lower-case letters, digits and single "
            "hyphens (binding expressions in braces are not filled in here)",
        )
    return QueueTarget(queue=queue, connection=settings.connection(connection_name(binding), function=function))


def connection_name(binding: Binding) -> str:
    """The name of the setting that holds a binding's connection string."""
    return str(binding.fields.get("connection") or HOST_STORAGE)


def _output(function: str, raw: Mapping[str, Any]) -> Binding:
    binding = _binding(raw)
    if raw.get("direction") != "OUT" or binding.type not in _OUTPUTS:
        way = "output" if raw.get("direction") == "OUT" else "input"
        raise HostStartError.in_function(
            function,
            f"{way} binding {binding.name!r} of type {binding.type} is not one that the local host carries out",
        )
    return binding


def _binding(raw: Mapping[str, Any]) -> Binding:
    return Binding(name=str(raw["name"]), type=str(raw["type"]), fields=raw)
