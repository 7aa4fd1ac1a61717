"""host.json: how the app wants its host. What this host knows is checked; sections it does not know are left alone.

As in Azure, an app setting `AzureFunctionsJobHost__extensions__queues__batchSize` overrides the value at that path.
"""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local.host.errors import HostStartError

_OVERRIDE_PREFIX = "AzureFunctionsJobHost__"
_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2}(?:\.\d{1,7})?)")
_DEFAULT_TIMEOUT = "00:30:00"
_MAX_BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """How queue messages are taken. A function runs up to `batch_size + new_batch_threshold` messages at once.

    `poll_cap_s` is the longest wait between two looks at an empty queue.
    """

    batch_size: int
    new_batch_threshold: int
    max_dequeue_count: int
    retry_delay_s: int
    poll_cap_s: float
    base64: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobOptions:
    """How blobs are taken: how many at once, and how many failed tries make one a poison blob."""

    max_degree_of_parallelism: int
    poison_blob_threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostJson:
    """The settings of host.json, defaults filled in. `function_timeout_s` is None where there is no limit."""

    route_prefix: str
    queues: QueueOptions
    blobs: BlobOptions
    function_timeout_s: float | None


def read_host_json(app_dir: Path, environment: Mapping[str, str]) -> HostJson:
    """Read `host.json` of an app. Raises HostStartError."""
    path = app_dir / "host.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise HostStartError(f'{path} does not exist: a functions app has one, at least {{"version": "2.0"}}') from None
    except ValueError as error:
        raise HostStartError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict) or document.get("version") != "2.0":
        raise HostStartError(f'{path} must be a JSON object with "version": "2.0"')
    _apply_overrides(document, environment)
    return _Reader(document, path).host_json()


class _Reader:
    """Reads checked values by their path in the document."""

    def __init__(self, document: dict[str, Any], path: Path) -> None:
        self._document = document
        self._path = path

    def host_json(self) -> HostJson:
        cores = os.process_cpu_count() or 1
        batch_size = self._integer("extensions.queues.batchSize", 16, 1, _MAX_BATCH)
        return HostJson(
            route_prefix=self._text("extensions.http.routePrefix", "api").strip("/"),
            function_timeout_s=self._timeout(),
            queues=QueueOptions(
                batch_size=batch_size,
                new_batch_threshold=self._integer(
                    "extensions.queues.newBatchThreshold", max(1, batch_size // 2 * cores), 0, 1000
                ),
                max_dequeue_count=self._integer("extensions.queues.maxDequeueCount", 5, 1, 10_000),
                retry_delay_s=int(self._seconds("extensions.queues.visibilityTimeout", "00:00:00")),
                poll_cap_s=self._seconds("extensions.queues.maxPollingInterval", "00:01:00"),
                base64=self._choice("extensions.queues.messageEncoding", "base64", ("base64", "none")) == "base64",
            ),
            blobs=BlobOptions(
                max_degree_of_parallelism=self._integer("extensions.blobs.maxDegreeOfParallelism", 8 * cores, 1, 1000),
                poison_blob_threshold=self._integer("extensions.blobs.poisonBlobThreshold", 5, 1, 10_000),
            ),
        )

    def _timeout(self) -> float | None:
        if self._find("functionTimeout") in {"-1", -1}:
            return None
        seconds = self._seconds("functionTimeout", _DEFAULT_TIMEOUT)
        if seconds <= 0:
            raise self._error("functionTimeout", self._find("functionTimeout"), "a time above zero, or -1 for no limit")
        return seconds

    def _find(self, dotted: str) -> Any:  # noqa: ANN401 - any JSON value
        value: Any = self._document
        for key in dotted.split("."):
            if not isinstance(value, dict):
                raise HostStartError(
                    f"{self._path}: {dotted!r} cannot be read, for what holds {key!r} is not an object"
                )
            # Azure reads the keys whatever their case.
            value = next((held for name, held in value.items() if name.casefold() == key.casefold()), None)
            if value is None:
                return None
        return value

    def _integer(self, dotted: str, default: int, low: int, high: int) -> int:
        value = self._find(dotted)
        if value is None:
            return default
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self._error(dotted, value, f"a whole number from {low} to {high}")
        return value

    def _text(self, dotted: str, default: str) -> str:
        value = self._find(dotted)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self._error(dotted, value, "text")
        return value

    def _choice(self, dotted: str, default: str, choices: tuple[str, ...]) -> str:
        value = self._text(dotted, default).lower()
        if value not in choices:
            raise self._error(dotted, value, " or ".join(choices))
        return value

    def _seconds(self, dotted: str, default: str) -> float:
        text = self._text(dotted, default)
        match = _TIME_SPAN.fullmatch(text)
        if match is None:
            raise self._error(dotted, text, 'a time span like "00:00:30"')
        days, hours, minutes, seconds = match.groups(default="0")
        return int(days) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)

    def _error(self, dotted: str, found: object, wanted: str) -> HostStartError:
        return HostStartError(f"{self._path}: {dotted} is {found!r}, but must be {wanted}")


def _apply_overrides(document: dict[str, Any], environment: Mapping[str, str]) -> None:
    for name, value in environment.items():
        if not name.startswith(_OVERRIDE_PREFIX):
            continue
        *parents, last = name.removeprefix(_OVERRIDE_PREFIX).split("__")
        section = document
        for parent in parents:
            section = section.setdefault(_same_key(section, parent), {})
            if not isinstance(section, dict):
                raise HostStartError(f"setting {name} does not fit host.json: {parent!r} is not an object there")
        section[_same_key(section, last)] = value


def _same_key(section: dict[str, Any], key: str) -> str:
    return next((name for name in section if name.casefold() == key.casefold()), key)
