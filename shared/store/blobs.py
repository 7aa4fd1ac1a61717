"""Blobs in Azure Storage, or in Azurite on one machine.

A blob appears whole or not at all, and memory use does not grow with its size. A conditional write is told from its
own earlier try: the SDK sends a request again when its answer was lost, and the second try would then be refused by
what the first one wrote. Each write therefore marks the blob with an id of its own, in a metadata field that is not
handed out.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self
from uuid import uuid4

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobBlock, BlobClient, BlobProperties, BlobServiceClient, StorageErrorCode

from shared.core.errors import ChangedMeanwhileError, InvalidInputError, NotFoundError, UnavailableError
from shared.store.azure_errors import azure_errors, translated
from shared.store.blob_rules import MARK, check_name, check_size, checked_metadata, named
from shared.store.ports import Blob, BlobContainer, BlobInfo

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

BLOCK_BYTES = 4 * 1024 * 1024
"""What is smaller crosses in one request; what is larger in parts of this size."""

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

_SERVICE = "blob storage"
_READ_TRIES = 3
_COPY_POLL_S = 1.0
_COPY_POLLS = 600
_IMMUTABLE = "BlobImmutable"
"""How the codes begin that refuse a change of a blob under a policy or a legal hold."""


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
        with azure_errors(_SERVICE):
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
                raise translated(_SERVICE, error) from error
        raise UnavailableError(_SERVICE, f"{named(container, name)} kept changing while it was read")

    def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
        """See BlobStore.download. Raises FileExistsError, and leaves the file alone, where `path` exists."""
        client = self._client(container, name)
        what = named(container, name)
        try:
            with _new_file(path) as file:
                return _copied(client, file, what, etag=etag, max_bytes=max_bytes)
        except ResourceModifiedError as error:
            # On an absent blob the condition is not met either.
            if self._properties(client) is None:
                raise NotFoundError(what) from error
            raise ChangedMeanwhileError(what) from error
        except ResourceNotFoundError as error:
            _require_container(error)
            raise NotFoundError(what) from error
        except AzureError as error:
            raise translated(_SERVICE, error) from error

    def create(
        self, container: BlobContainer, name: str, source: bytes | Path, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """See BlobStore.create."""
        client = self._client(container, name)
        marked = _marked(metadata)
        if isinstance(source, Path) and self._settled(client) is not None:
            return False  # spares the upload of a large file
        try:
            _upload(client, source, marked, match_condition=MatchConditions.IfMissing)
        except AzureError as error:
            if not _met_another_state(error):
                raise translated(_SERVICE, error) from error
            standing = self._settled(client)
            if standing is None:
                raise UnavailableError(_SERVICE, f"{named(container, name)} was removed meanwhile") from error
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
            written = _upload(
                client, data, marked, etag=f'"{_etag(etag)}"', match_condition=MatchConditions.IfNotModified
            )
        except AzureError as error:
            if isinstance(error, ResourceNotFoundError):
                _require_container(error)
            elif not _met_another_state(error):
                raise translated(_SERVICE, error) from error
            standing = self._properties(client)
            if standing is None or not _is_marked(standing, marked):
                raise ChangedMeanwhileError(named(container, name)) from error
            return _info(name, standing)
        return BlobInfo(
            name=name,
            etag=_etag(written["etag"]),
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
                    source_etag=f'"{_etag(etag)}"',
                    source_match_condition=MatchConditions.IfNotModified,
                    match_condition=MatchConditions.IfMissing,
                )
            except ResourceExistsError:
                # Azurite takes the blocks that a dead upload left for a blob; a commit of others discards them.
                if self._settled(client) is not None:
                    raise
                _copy_through(origin, client, marked, etag=etag)
        except AzureError as error:
            standing = self._settled(client)
            if standing is not None:
                return _is_marked(standing, marked)
            found = self._properties(origin)
            if found is None:
                raise NotFoundError(named(source, source_name)) from error
            if _etag(found.etag) != _etag(etag):
                raise ChangedMeanwhileError(named(source, source_name)) from error
            raise translated(_SERVICE, error) from error
        standing = self._settled(client, ours=marked)
        if standing is None:
            raise UnavailableError(_SERVICE, f"the copy to {named(target, name)} failed, or was removed meanwhile")
        return _is_marked(standing, marked)

    def touch(self, container: BlobContainer, name: str) -> bool:
        """See BlobStore.touch."""
        client = self._client(container, name)
        for _ in range(_READ_TRIES):
            found = self._properties(client)
            if found is None:
                return False
            try:
                client.set_blob_metadata(
                    {**(found.metadata or {}), MARK: uuid4().hex},
                    etag=f'"{_etag(found.etag)}"',
                    match_condition=MatchConditions.IfNotModified,
                )
            except ResourceNotFoundError as error:
                _require_container(error)
                return False
            except ResourceModifiedError:
                continue  # another writer's metadata is not to be undone
            except AzureError as error:
                if isinstance(error, HttpResponseError) and (_code(error) or "").startswith(_IMMUTABLE):
                    return True
                raise translated(_SERVICE, error) from error
            return True
        raise UnavailableError(_SERVICE, f"{named(container, name)} kept changing while it was touched")

    def delete(self, container: BlobContainer, name: str, *, etag: str) -> bool:
        """See BlobStore.delete."""
        client = self._client(container, name)
        try:
            client.delete_blob(etag=f'"{_etag(etag)}"', match_condition=MatchConditions.IfNotModified)
        except ResourceNotFoundError as error:
            _require_container(error)
            return False
        except ResourceModifiedError as error:
            if self._properties(client) is None:
                return False
            raise ChangedMeanwhileError(named(container, name)) from error
        except AzureError as error:
            raise translated(_SERVICE, error) from error
        return True

    def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
        """See BlobStore.list."""
        client = self._service.get_container_client(container.value)
        with azure_errors(_SERVICE):
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
            raise translated(_SERVICE, error) from error

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
                with azure_errors(_SERVICE), suppress(ResourceNotFoundError, ResourceModifiedError):
                    client.delete_blob(etag=f'"{_etag(found.etag)}"', match_condition=MatchConditions.IfNotModified)
        if found is not None and ours is not None and _is_marked(found, ours):
            with suppress(AzureError):
                client.abort_copy(found)
        raise UnavailableError(_SERVICE, f"a copy to {client.container_name}/{client.blob_name} does not end")


def _upload(client: BlobClient, source: bytes | Path, metadata: dict[str, str], **condition: Any) -> dict[str, Any]:  # noqa: ANN401
    """Upload whole, under a condition on the blob as it stands."""
    with source.open("rb") if isinstance(source, Path) else BytesIO(source) as stream:
        block = stream.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            return client.upload_blob(block, length=len(block), overwrite=True, metadata=metadata, **condition)
        # The SDK names blocks by their offset, so that two uploads to one name would mix. Ours have names of their own.
        upload = uuid4().hex
        blocks: list[BlobBlock] = []
        while block:
            blocks.append(BlobBlock(block_id=f"{upload}-{len(blocks):05d}"))
            client.stage_block(blocks[-1].id, block, length=len(block))
            block = stream.read(BLOCK_BYTES)
        return client.commit_block_list(blocks, metadata=metadata, **condition)


def _copy_through(origin: BlobClient, client: BlobClient, metadata: dict[str, str], *, etag: str) -> None:
    """Copy a blob by way of this process, part by part, where no blob stands."""
    stream = origin.download_blob(
        etag=f'"{_etag(etag)}"', match_condition=MatchConditions.IfNotModified, decompress=False
    )
    copy, blocks = uuid4().hex, list[BlobBlock]()
    for chunk in stream.chunks():
        blocks.append(BlobBlock(block_id=f"{copy}-{len(blocks):05d}"))
        client.stage_block(blocks[-1].id, chunk, length=len(chunk))
    client.commit_block_list(blocks, metadata=metadata, match_condition=MatchConditions.IfMissing)


@contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that did not exist, removed again on an error."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def _copied(client: BlobClient, file: IO[bytes], what: str, *, etag: str, max_bytes: int) -> str:
    """Stream a blob into an open file; its SHA-256."""
    hashed = hashlib.sha256()
    copied_bytes = 0
    stream = client.download_blob(
        etag=f'"{_etag(etag)}"', match_condition=MatchConditions.IfNotModified, decompress=False
    )
    check_size(what, stream.size, max_bytes)
    for chunk in stream.chunks():
        copied_bytes += len(chunk)
        check_size(what, copied_bytes, max_bytes)
        hashed.update(chunk)
        file.write(chunk)
    if copied_bytes != stream.size:
        raise UnavailableError(_SERVICE, f"{what} has {stream.size} bytes, and {copied_bytes} arrived")
    return hashed.hexdigest()


def _info(name: str, found: BlobProperties) -> BlobInfo:
    metadata = {key.lower(): value for key, value in (found.metadata or {}).items()}
    metadata.pop(MARK, None)
    return BlobInfo(
        name=name,
        etag=_etag(found.etag),
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
        raise translated(_SERVICE, error) from error


def _code(error: HttpResponseError) -> str | None:
    code: str | None = getattr(error, "error_code", None)
    return code


def _etag(text: str) -> str:
    return text.strip('"')
