"""Blobs in Azure Storage, or in Azurite on one machine.

A blob appears whole or not at all, and memory use does not grow with its size. A conditional write is told from its
own earlier try: the SDK sends a request again when its answer was lost, and the second try would then be refused by
what the first one wrote. Each write therefore marks the blob with an id of its own, in a metadata field that is not
handed out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient, BlobProperties, BlobServiceClient, StorageErrorCode

from shared.core.errors import ChangedMeanwhileError, ConflictError, InvalidInputError, NotFoundError, UnavailableError
from shared.store.azure_errors import azure_errors, translated
from shared.store.blob_rules import MARK, check_name, check_size, checked_metadata, named
from shared.store.blob_streams import (
    BLOCK_BYTES,
    SERVICE,
    copy_through,
    download,
    new_file,
    unchanged,
    unquoted,
    upload,
)
from shared.store.ports import Blob, BlobContainer, BlobInfo

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CLIENT_OPTIONS: Mapping[str, Any] = {
    "connection_timeout": 5,
    "read_timeout": 30,
    "initial_backoff": 1,
    "increment_base": 2,
    "random_jitter_range": 1,
    "retry_total": 3,
    "max_single_get_size": BLOCK_BYTES,
    "max_chunk_get_size": BLOCK_BYTES,
    "max_single_put_size": BLOCK_BYTES,
}

_READ_TRIES = 3
_COPY_POLL_S = 1.0
_COPY_POLLS = 600
_IMMUTABLE = "BlobImmutable"
"""How the codes begin that refuse a change of a blob under a policy or a legal hold."""
_PROTECTED = frozenset({StorageErrorCode.SNAPSHOTS_PRESENT, StorageErrorCode.LEASE_ID_MISSING})
"""What else refuses a deletion for as long as somebody wants it so."""


class AzureBlobs:
    """The blob port on a storage account."""

    def __init__(self, service: BlobServiceClient, *, pause: Callable[[float], None] = time.sleep) -> None:
        """Use a client made with CLIENT_OPTIONS. `pause` waits some seconds for a copy that storage is still at."""
        self._service = service
        self._pause = pause

    @classmethod
    def from_connection_string(cls, connection_string: str) -> Self:
        """Reach storage by key. Raises InvalidInputError for a malformed connection string."""
        try:
            return cls(BlobServiceClient.from_connection_string(connection_string, **CLIENT_OPTIONS))
        except ValueError as error:
            raise InvalidInputError(f"the storage connection string is malformed: {error}") from error

    @classmethod
    def from_credential(cls, url: str, credential: TokenCredential) -> Self:
        """Reach the blob endpoint `url` with a token credential."""
        return cls(BlobServiceClient(url, credential=credential, **CLIENT_OPTIONS))

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def ensure_containers(self) -> None:
        """Create the containers that are absent: on one machine alone, for in Azure they are deployed."""
        with azure_errors(SERVICE):
            for container in BlobContainer:
                try:
                    self._service.create_container(container.value)
                except ResourceExistsError:
                    continue

    def info(self, container: BlobContainer, name: str) -> BlobInfo | None:
        """See BlobStore.info."""
        found = self._properties(self._client(container, name))
        return None if found is None else _info(name, found)

    def read(self, container: BlobContainer, name: str, *, max_bytes: int) -> Blob | None:
        """See BlobStore.read."""
        client = self._client(container, name)
        for _ in range(_READ_TRIES):
            try:
                stream = client.download_blob(decompress=False)
                check_size(named(container, name), stream.size, max_bytes)
                return Blob(info=_info(name, stream.properties), data=stream.readall())
            except ResourceNotFoundError as error:
                _require_container(error)
                return None
            except ResourceModifiedError:
                continue  # replaced between two of the download's requests
            except AzureError as error:
                raise translated(SERVICE, error) from error
        raise UnavailableError(SERVICE, f"{named(container, name)} kept changing while it was read")

    def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
        """See BlobStore.download. Raises FileExistsError, and leaves the file alone, where `path` exists."""
        client = self._client(container, name)
        what = named(container, name)
        try:
            with new_file(path) as file:
                return download(client, file, what, etag=etag, max_bytes=max_bytes)
        except ResourceModifiedError as error:
            # On an absent blob the condition is not met either.
            if self._properties(client) is None:
                raise NotFoundError(what) from error
            raise ChangedMeanwhileError(what) from error
        except ResourceNotFoundError as error:
            _require_container(error)
            raise NotFoundError(what) from error
        except AzureError as error:
            raise translated(SERVICE, error) from error

    def create(
        self, container: BlobContainer, name: str, source: bytes | Path, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """See BlobStore.create."""
        client = self._client(container, name)
        marked = _marked(metadata)
        if isinstance(source, Path) and self._settled(client) is not None:
            return False  # spares the upload of a large file
        try:
            upload(client, source, marked, match_condition=MatchConditions.IfMissing)
        except AzureError as error:
            if not _met_another_state(error):
                raise translated(SERVICE, error) from error
            standing = self._settled(client)
            if standing is None:
                raise UnavailableError(SERVICE, f"{named(container, name)} was removed meanwhile") from error
            return _is_marked(standing, marked)
        return True

    def replace(
        self,
        container: BlobContainer,
        name: str,
        data: bytes,
        *,
        etag: str,
        metadata: Mapping[str, str] | None = None,
    ) -> BlobInfo:
        """See BlobStore.replace."""
        client = self._client(container, name)
        marked = _marked(metadata)
        try:
            written = upload(client, data, marked, **unchanged(etag))
        except AzureError as error:
            if isinstance(error, ResourceNotFoundError):
                _require_container(error)
            elif not _met_another_state(error):
                raise translated(SERVICE, error) from error
            standing = self._properties(client)
            if standing is None or not _is_marked(standing, marked):
                raise ChangedMeanwhileError(named(container, name)) from error
            return _info(name, standing)
        return BlobInfo(
            name=name,
            etag=unquoted(written["etag"]),
            size_bytes=len(data),
            last_modified=written["last_modified"],
            metadata=dict(metadata or {}),
        )

    def copy(self, source: BlobContainer, source_name: str, target: BlobContainer, name: str, *, etag: str) -> bool:
        """See BlobStore.copy. Storage copies within an account at once, or tells that it is still at it."""
        origin = self._client(source, source_name)
        client = self._client(target, name)
        if self._settled(client) is not None:
            return False
        marked = _marked(None)
        try:
            try:
                client.start_copy_from_url(
                    origin.url,
                    metadata=marked,
                    source_etag=f'"{unquoted(etag)}"',
                    source_match_condition=MatchConditions.IfNotModified,
                    match_condition=MatchConditions.IfMissing,
                )
            except ResourceExistsError:
                # Azurite takes the blocks that a dead upload left for a blob; a commit of others discards them.
                if self._settled(client) is not None:
                    raise
                copy_through(origin, client, marked, etag=etag)
        except AzureError as error:
            standing = self._settled(client)
            if standing is not None:
                return _is_marked(standing, marked)
            found = self._properties(origin)
            if found is None:
                raise NotFoundError(named(source, source_name)) from error
            if unquoted(found.etag) != unquoted(etag):
                raise ChangedMeanwhileError(named(source, source_name)) from error
            raise translated(SERVICE, error) from error
        standing = self._settled(client, ours=marked)
        if standing is None:
            raise UnavailableError(SERVICE, f"the copy to {named(target, name)} failed, or was removed meanwhile")
        return _is_marked(standing, marked)

    def touch(self, container: BlobContainer, name: str) -> bool:
        """See BlobStore.touch."""
        client = self._client(container, name)
        for _ in range(_READ_TRIES):
            found = self._properties(client)
            if found is None:
                return False
            try:
                client.set_blob_metadata({**(found.metadata or {}), MARK: uuid4().hex}, **unchanged(found.etag))
            except ResourceNotFoundError as error:
                _require_container(error)
                return False
            except ResourceModifiedError:
                continue  # another writer's metadata is not to be undone
            except AzureError as error:
                if isinstance(error, HttpResponseError) and (_code(error) or "").startswith(_IMMUTABLE):
                    return True
                raise translated(SERVICE, error) from error
            return True
        raise UnavailableError(SERVICE, f"{named(container, name)} kept changing while it was touched")

    def delete(self, container: BlobContainer, name: str, *, etag: str) -> bool:
        """See BlobStore.delete."""
        client = self._client(container, name)
        try:
            client.delete_blob(**unchanged(etag))
        except ResourceNotFoundError as error:
            _require_container(error)
            return False
        except ResourceModifiedError as error:
            if self._properties(client) is None:
                return False
            raise ChangedMeanwhileError(named(container, name)) from error
        except AzureError as error:
            code = _code(error) if isinstance(error, HttpResponseError) else None
            if code is not None and (code in _PROTECTED or code.startswith(_IMMUTABLE)):
                raise ConflictError(
                    f"{named(container, name)} is protected from being deleted ({code}): lift what protects it first"
                ) from error
            raise translated(SERVICE, error) from error
        return True

    def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
        """See BlobStore.list."""
        client = self._service.get_container_client(container.value)
        with azure_errors(SERVICE):
            for found in client.list_blobs(name_starts_with=prefix or None, include=["metadata"]):
                yield _info(found.name, found)

    def _client(self, container: BlobContainer, name: str) -> BlobClient:
        check_name(name)
        return self._service.get_blob_client(container.value, name)

    def _properties(self, client: BlobClient) -> BlobProperties | None:
        try:
            return client.get_blob_properties()
        except ResourceNotFoundError as error:
            _require_container(error)
            return None
        except AzureError as error:
            raise translated(SERVICE, error) from error

    def _settled(self, client: BlobClient, ours: Mapping[str, str] | None = None) -> BlobProperties | None:
        """What stands under a name once a copy that is under way there has ended; None where nothing does.

        A copy that failed leaves an empty blob, which is removed. One that is `ours` and does not end is broken off.
        """
        for _ in range(_COPY_POLLS):
            found = self._properties(client)
            status = found.copy.status if found else None
            if found is None or status in {None, "success"}:
                return found
            if status == "pending":
                self._pause(_COPY_POLL_S)
            else:
                with azure_errors(SERVICE), suppress(ResourceNotFoundError, ResourceModifiedError):
                    client.delete_blob(**unchanged(found.etag))
        if found is not None and ours is not None and _is_marked(found, ours):
            with suppress(AzureError):
                client.abort_copy(found)
        raise UnavailableError(SERVICE, f"a copy to {client.container_name}/{client.blob_name} does not end")


def _info(name: str, found: BlobProperties) -> BlobInfo:
    metadata = {key.lower(): value for key, value in (found.metadata or {}).items()}
    metadata.pop(MARK, None)
    return BlobInfo(
        name=name,
        etag=unquoted(found.etag),
        size_bytes=found.size,
        last_modified=found.last_modified,
        metadata=metadata,
    )


def _marked(metadata: Mapping[str, str] | None) -> dict[str, str]:
    return checked_metadata(metadata) | {MARK: uuid4().hex}


def _is_marked(found: BlobProperties, marked: Mapping[str, str]) -> bool:
    metadata = {key.lower(): value for key, value in (found.metadata or {}).items()}
    return metadata.get(MARK) == marked[MARK]


def _met_another_state(error: AzureError) -> bool:
    """Whether a conditional write was refused for what stands under the name."""
    if isinstance(error, ResourceExistsError | ResourceModifiedError):
        return True
    # Another writer's commit discards the blocks that we have staged.
    return isinstance(error, HttpResponseError) and _code(error) == StorageErrorCode.INVALID_BLOCK_LIST


def _require_container(error: ResourceNotFoundError) -> None:
    """Raises UnavailableError where it is the container that is absent, not the blob."""
    if _code(error) == StorageErrorCode.CONTAINER_NOT_FOUND:
        raise translated(SERVICE, error) from error


def _code(error: HttpResponseError) -> str | None:
    code: str | None = getattr(error, "error_code", None)
    return None if code is None else str(getattr(code, "value", code))
