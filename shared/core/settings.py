"""What the functions app is told by its environment: where documents, blobs and queues are.

Read once, by `Settings.from_env`, and never changed afterwards. An absent or malformed setting is an error that names
the setting. Nothing here connects to anything; shared.store.open does that from these settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from shared.core.errors import InvalidInputError

DOCUMENTS = "SLIPWAY_DOCUMENTS"
COSMOS_DATABASE = "SLIPWAY_COSMOS_DATABASE"
STORAGE = "SlipwayStorage"
BLOB_URL = "SlipwayStorage__blobServiceUri"
QUEUE_URL = "SlipwayStorage__queueServiceUri"
CLIENT_ID = "SlipwayStorage__clientId"
SWEEP_GRACE_S = "SLIPWAY_SWEEP_GRACE_S"

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
class Settings:
    """The settings of the functions app."""

    documents: SqliteSettings | CosmosSettings
    storage: StorageByKey | StorageByIdentity
    sweep_grace_s: float = 600.0
    """How long the sweep leaves what is under way alone before it has it done again."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings; an empty value counts as absent. Raises InvalidInputError naming the setting."""
        return cls(documents=_documents(env), storage=_storage(env), sweep_grace_s=_sweep_grace_s(env))


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
