"""What the functions app is told by its environment: where documents, blobs and queues are.

Read once, by `Settings.from_env`, and never changed afterwards. An absent or malformed setting is an error that names
the setting. Nothing here connects to anything; shared.store.open does that from these settings.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from shared.core.alert_settings import AlertSettings
from shared.core.errors import InvalidInputError
from shared.core.metrics_settings import MetricsSettings

DOCUMENTS = "SLIPWAY_DOCUMENTS"
COSMOS_DATABASE = "SLIPWAY_COSMOS_DATABASE"
STORAGE = "SlipwayStorage"
BLOB_URL = "SlipwayStorage__blobServiceUri"
QUEUE_URL = "SlipwayStorage__queueServiceUri"
CLIENT_ID = "SlipwayStorage__clientId"
SWEEP_GRACE_S = "SLIPWAY_SWEEP_GRACE_S"
APPROVAL_KEY = "SLIPWAY_APPROVAL_KEY"
EVENT_SINKS = "SLIPWAY_EVENT_SINKS"
EVENT_SOURCE = "SLIPWAY_EVENT_SOURCE"

_KEY = re.compile(r"(?:[0-9a-fA-F]{2}){32,128}")
_SINK_KEYS = frozenset({"name", "url", "token", "identity", "format", "streams"})
_SINK_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_SOURCE = re.compile(r"[A-Za-z0-9/:][A-Za-z0-9/:._~-]{0,198}[A-Za-z0-9_~]")
EVENT_STREAMS = ("model", "version", "drop", "endpoint", "alias")
"""What lifecycle events are about. Alerts and dead letters are not told: a sink that fails makes some of both."""


class EventFormat(StrEnum):
    """As what an event is posted."""

    CLOUDEVENTS = "cloudevents"
    SLACK = "slack"
    """A message for an incoming webhook of Slack's."""
    TEAMS = "teams"
    """A card for a workflow of Teams's."""


_SINKS_FORM = (
    'use [{"name": "ops", "url": "https://...", "token": "..."}], where token is optional, or "identity": true; '
    f'"format" is {", ".join(EventFormat)}, and "streams" a list of {", ".join(EVENT_STREAMS)}'
)
_DOCUMENTS_FORM = "use sqlite:/absolute/path.db or https://<account>.documents.azure.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSettings:
    """Documents in one SQLite file."""

    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CosmosSettings:
    """Documents in Cosmos DB, reached with a managed identity (`client_id` where it is a user-assigned one)."""

    url: str
    database: str
    client_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageByKey:
    """Azure Storage, or Azurite, reached by a connection string. It holds a key and never shows in `repr`."""

    connection_string: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageByIdentity:
    """Azure Storage reached with a managed identity (`client_id` where it is a user-assigned one)."""

    blob_url: str
    queue_url: str
    client_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """Where lifecycle events are posted to. The address and the token may hold secrets, and never show in `repr`."""

    name: str
    url: str = field(repr=False)
    token: str | None = field(default=None, repr=False)
    """A bearer token."""
    identity: bool = False
    """Whether the app's managed identity authenticates, as Event Grid takes it."""
    format: EventFormat = EventFormat.CLOUDEVENTS
    streams: tuple[str, ...] = ()
    """Those whose events are posted, of EVENT_STREAMS; without any, all are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the functions app."""

    documents: SqliteSettings | CosmosSettings
    storage: StorageByKey | StorageByIdentity
    sweep_grace_s: float = 600.0
    """How long the sweep leaves what is under way alone before it has it done again."""

    approval_keys: tuple[bytes, ...] = field(default=(), repr=False)
    """The keys of approval links: the first signs, all verify. Without one there are no links."""
    event_sinks: tuple[SinkSettings, ...] = ()
    """Who is told of lifecycle events; without one nobody is."""
    event_source: str = "/slipway"
    """How the `source` of every lifecycle event begins."""
    metrics: MetricsSettings = field(default_factory=MetricsSettings)
    """Who answers the queries of gates."""
    alerts: AlertSettings = field(default_factory=AlertSettings)
    """Who is told of alerts."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings; an empty value counts as absent. Raises InvalidInputError naming the setting."""
        return cls(
            documents=_documents(env),
            storage=_storage(env),
            sweep_grace_s=_sweep_grace_s(env),
            approval_keys=_approval_keys(env),
            event_sinks=_event_sinks(env),
            event_source=_event_source(env),
            metrics=MetricsSettings.from_env(env),
            alerts=AlertSettings.from_env(env),
        )


def _documents(env: Mapping[str, str]) -> SqliteSettings | CosmosSettings:
    text = env.get(DOCUMENTS, "").strip()
    if not text:
        raise InvalidInputError(f"the setting {DOCUMENTS} is absent: {_DOCUMENTS_FORM}")
    scheme, _, rest = text.partition(":")
    if scheme == "sqlite":
        path = Path(rest)
        if not path.is_absolute() or rest.endswith("/") or "\0" in rest:
            raise InvalidInputError(
                f"the setting {DOCUMENTS} is {text!r}, not the absolute path of a file: {_DOCUMENTS_FORM}"
            )
        return SqliteSettings(path=path)
    if scheme == "https":
        return CosmosSettings(
            url=_https_url(DOCUMENTS, text),
            database=env.get(COSMOS_DATABASE, "").strip() or "slipway",
            client_id=env.get(CLIENT_ID, "").strip() or None,
        )
    raise InvalidInputError(f"the setting {DOCUMENTS} is {text!r}: {_DOCUMENTS_FORM}")


def _sweep_grace_s(env: Mapping[str, str]) -> float:
    text = env.get(SWEEP_GRACE_S, "").strip() or "600"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise InvalidInputError(f"the setting {SWEEP_GRACE_S} is {text!r}: use a number of seconds above 0")
    return seconds


def _approval_keys(env: Mapping[str, str]) -> tuple[bytes, ...]:
    found = env.get(APPROVAL_KEY, "").replace(",", " ").split()
    if not all(_KEY.fullmatch(key) for key in found):
        # The value is a secret: the error must not repeat it.
        raise InvalidInputError(
            f"the setting {APPROVAL_KEY} is no key: use 64 to 256 hexadecimal digits, as `openssl rand -hex 32` gives; "
            "several are separated by commas, the first of which signs"
        )
    return tuple(bytes.fromhex(key) for key in found)


def _event_sinks(env: Mapping[str, str]) -> tuple[SinkSettings, ...]:
    text = env.get(EVENT_SINKS, "").strip()
    if not text:
        return ()
    # The value may hold secrets: no error repeats it.
    try:
        found = json.loads(text)
    except ValueError:
        raise InvalidInputError(f"the setting {EVENT_SINKS} is no JSON: {_SINKS_FORM}") from None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InvalidInputError(f"the setting {EVENT_SINKS} is no list of objects: {_SINKS_FORM}")
    sinks = tuple(_event_sink(one, number) for number, one in enumerate(found, start=1))
    if len({sink.name for sink in sinks}) != len(sinks):
        raise InvalidInputError(f"the setting {EVENT_SINKS} names two sinks alike: name each differently")
    return sinks


def _event_sink(found: dict[str, object], number: int) -> SinkSettings:
    named = f"sink {number} of the setting {EVENT_SINKS}"
    name, url, token = (found.get(key, "") for key in ("name", "url", "token"))
    identity = found.get("identity", False)
    if found.keys() - _SINK_KEYS:
        raise InvalidInputError(f"{named} has a key that is none of {', '.join(sorted(_SINK_KEYS))}: {_SINKS_FORM}")
    if not isinstance(name, str) or not _SINK_NAME.fullmatch(name):
        raise InvalidInputError(f"{named} has no good name: use lower-case letters, digits and -, at most 32")
    if not isinstance(url, str) or not _is_sink_url(url):
        raise InvalidInputError(f"{named} has no good url: use https://, or http:// on this machine, without a user")
    if not isinstance(token, str) or not isinstance(identity, bool) or (token and identity):
        raise InvalidInputError(f"{named} authenticates by a token or by the identity: {_SINKS_FORM}")
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise InvalidInputError(f"{named} has a token that no header can hold: use printable ASCII without spaces")
    form, streams = found.get("format", EventFormat.CLOUDEVENTS.value), found.get("streams", [])
    if form not in set(EventFormat):
        raise InvalidInputError(f"{named} has no good format: {_SINKS_FORM}")
    if not isinstance(streams, list) or any(one not in EVENT_STREAMS for one in streams):
        raise InvalidInputError(f"{named} has no good streams: {_SINKS_FORM}")
    return SinkSettings(
        name=name,
        url=url,
        token=token or None,
        identity=identity,
        format=EventFormat(str(form)),
        streams=tuple(streams),
    )


def _is_sink_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    is_local = parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return bool((parts.scheme == "https" or is_local) and parts.hostname and not parts.username and is_plain)


def _event_source(env: Mapping[str, str]) -> str:
    text = env.get(EVENT_SOURCE, "").strip() or "/slipway"
    if not _SOURCE.fullmatch(text):
        raise InvalidInputError(
            f"the setting {EVENT_SOURCE} is {text[:80]!r}: use a URI or a path, as in /slipway/production, of at most "
            "200 characters and without a / at its end"
        )
    return text


def _storage(env: Mapping[str, str]) -> StorageByKey | StorageByIdentity:
    connection_string = env.get(STORAGE, "").strip()
    if connection_string:
        _check_connection_string(connection_string)
        return StorageByKey(connection_string=connection_string)
    urls = {name: env.get(name, "").strip() for name in (BLOB_URL, QUEUE_URL)}
    if not any(urls.values()):
        raise InvalidInputError(
            f"the setting {STORAGE} is absent: give it a connection string, or set {BLOB_URL} and {QUEUE_URL} "
            "to reach storage with a managed identity"
        )
    for name, url in urls.items():
        if not url:
            raise InvalidInputError(f"the setting {name} is absent: {BLOB_URL} and {QUEUE_URL} go together")
    return StorageByIdentity(
        blob_url=_https_url(BLOB_URL, urls[BLOB_URL]),
        queue_url=_https_url(QUEUE_URL, urls[QUEUE_URL]),
        client_id=env.get(CLIENT_ID, "").strip() or None,
    )


def _check_connection_string(text: str) -> None:
    # The value is a secret: the error must not repeat it.
    parts = [part.partition("=") for part in text.split(";") if part.strip()]
    names = {name.strip().lower() for name, _, value in parts if value.strip()}
    well_formed = all(equals and name.strip() for name, equals, _ in parts)
    reaches_both = names & {"usedevelopmentstorage", "accountname"} or {"blobendpoint", "queueendpoint"} <= names
    if not (well_formed and reaches_both):
        raise InvalidInputError(
            f"the setting {STORAGE} is not a storage connection string: use name=value pairs joined by semicolons, "
            "with AccountName, or with BlobEndpoint and QueueEndpoint"
        )


def _https_url(name: str, text: str) -> str:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError as error:
        raise InvalidInputError(f"the setting {name} is {text!r}, not a URL ({error}): use https://<host>/") from error
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise InvalidInputError(f"the setting {name} is {text!r}: use https://<host>/ without user, query or fragment")
    return text
