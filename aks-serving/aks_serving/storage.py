"""Azure Blob Storage behind the port: the only module that knows the SDK.

The vendor's errors are translated by one table (`_translated`): what does not exist is the caller's to handle,
everything else is UnavailableError. Retries are the callers': each call makes one attempt with short time-outs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobServiceClient

from aks_serving.ports import StoredPlan
from aks_serving.settings import Settings
from shared.core.errors import InvalidInputError, NotFoundError, UnavailableError
from shared.core.ids import EndpointName, endpoint_name
from shared.routing.plan import artifact_blob_name, plan_blob_name

_ROUTES, _ARTIFACTS, _TELEMETRY = "routes", "artifacts", "telemetry"
_MAX_PLAN_BYTES = 1024 * 1024
_CONNECT_S, _READ_S = 3, 20
_NOT_MODIFIED = 304
_CHUNK_BYTES = 4 * 1024 * 1024


def open_storage(settings: Settings) -> "AzureStorage":
    """Connect as the settings say. Raises InvalidInputError for a connection string or URL that is none."""
    options: dict[str, Any] = {
        "retry_total": 0,
        "connection_timeout": _CONNECT_S,
        "read_timeout": _READ_S,
        "max_single_get_size": _CHUNK_BYTES,
        "max_chunk_get_size": _CHUNK_BYTES,
    }
    if settings.storage_connection is not None:
        try:
            client = BlobServiceClient.from_connection_string(settings.storage_connection, **options)
        except ValueError as error:
            raise InvalidInputError(f"SLIPWAY_STORAGE_CONNECTION is not a connection string: {error}") from error
        return AzureStorage(client)
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - heavy: only where identities are used

    try:
        return AzureStorage(BlobServiceClient(settings.blob_url or "", credential=DefaultAzureCredential(), **options))
    except ValueError as error:
        raise InvalidInputError(f"SLIPWAY_BLOB_URL is not a storage account's URL: {error}") from error


class AzureStorage:
    """See aks_serving.ports.Storage."""

    def __init__(self, client: BlobServiceClient) -> None:
        self._client = client

    def plan_etags(self) -> dict[EndpointName, str]:
        with _translated():
            blobs = [(blob.name, blob.etag) for blob in self._client.get_container_client(_ROUTES).list_blobs()]
        etags = {}
        for name, etag in blobs:
            try:
                etags[endpoint_name(name.removesuffix(".json"))] = str(etag).strip('"')
            except InvalidInputError:
                continue  # no endpoint can have this name, so it is no plan of ours
        return etags

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        blob = self._client.get_blob_client(_ROUTES, plan_blob_name(endpoint))
        condition: dict[str, Any] = {}
        if unless_etag is not None:
            condition = {"etag": f'"{unless_etag}"', "match_condition": MatchConditions.IfModified}
        try:
            with _translated(not_modified_ok=True):
                download = blob.download_blob(**condition)
                # Cut where it is far too long for a plan: what is left does not parse, and is refused as torn.
                return StoredPlan(data=download.read(_MAX_PLAN_BYTES), etag=str(download.properties.etag).strip('"'))
        except (_NotModifiedError, NotFoundError):
            return None

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        blob = self._client.get_blob_client(_ARTIFACTS, artifact_blob_name(digest))
        size_bytes = 0
        with _translated():
            for chunk in blob.download_blob().chunks():
                size_bytes += len(chunk)
                if size_bytes > max_bytes:
                    raise InvalidInputError(f"artifact {digest} is larger than the {max_bytes} bytes it may have")
                yield chunk

    def keep_window(self, name: str, data: bytes) -> None:
        blob = self._client.get_blob_client(_TELEMETRY, name)
        try:
            with _translated():
                blob.upload_blob(data, overwrite=False)
        except _ExistsError:
            return


class _NotModifiedError(Exception):
    """The blob still has the ETag that the request named."""


class _ExistsError(Exception):
    """A blob of that name is there already."""


@contextmanager
def _translated(*, not_modified_ok: bool = False) -> Iterator[None]:
    try:
        yield
    except ResourceExistsError as error:
        raise _ExistsError from error
    except ResourceNotFoundError as error:
        if getattr(error, "error_code", None) == "ContainerNotFound":
            raise UnavailableError("blob storage", "the container does not exist") from error
        raise NotFoundError("the blob", hint="") from error
    except HttpResponseError as error:
        if not_modified_ok and (error.status_code == _NOT_MODIFIED or isinstance(error, ResourceModifiedError)):
            raise _NotModifiedError from error
        raise UnavailableError("blob storage", _first_line(error)) from error
    except AzureError as error:
        raise UnavailableError("blob storage", _first_line(error)) from error


def _first_line(error: AzureError) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
