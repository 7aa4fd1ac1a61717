"""How bytes go to storage and come back: in blocks, so that memory use does not grow with the size of a blob."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from azure.core import MatchConditions
from azure.storage.blob import BlobBlock, BlobClient

from shared.core.errors import UnavailableError
from shared.store.blob_rules import check_size

SERVICE = "blob storage"
BLOCK_BYTES = 4 * 1024 * 1024
"""What is smaller crosses in one request; what is larger in parts of this size."""


def upload(client: BlobClient, source: bytes | Path, metadata: dict[str, str], **condition: Any) -> dict[str, Any]:  # noqa: ANN401
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


def copy_through(origin: BlobClient, client: BlobClient, metadata: dict[str, str], *, etag: str) -> None:
    """Copy a blob by way of this process, part by part, where no blob stands."""
    stream = origin.download_blob(**unchanged(etag), decompress=False)
    copy, blocks = uuid4().hex, list[BlobBlock]()
    for chunk in stream.chunks():
        blocks.append(BlobBlock(block_id=f"{copy}-{len(blocks):05d}"))
        client.stage_block(blocks[-1].id, chunk, length=len(chunk))
    client.commit_block_list(blocks, metadata=metadata, match_condition=MatchConditions.IfMissing)


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that did not exist, removed again on an error."""
    with path.open("xb") as file:
        try:
            yield file
        except BaseException:
            path.unlink(missing_ok=True)
            raise


def download(client: BlobClient, file: IO[bytes], what: str, *, etag: str, max_bytes: int) -> str:
    """Stream a blob into an open file; its SHA-256."""
    hashed = hashlib.sha256()
    copied_bytes = 0
    stream = client.download_blob(**unchanged(etag), decompress=False)
    check_size(what, stream.size, max_bytes)
    for chunk in stream.chunks():
        copied_bytes += len(chunk)
        check_size(what, copied_bytes, max_bytes)
        hashed.update(chunk)
        file.write(chunk)
    if copied_bytes != stream.size:
        raise UnavailableError(SERVICE, f"{what} has {stream.size} bytes, and {copied_bytes} arrived")
    return hashed.hexdigest()


def unchanged(etag: str) -> dict[str, Any]:
    """The condition that a blob's ETag is still `etag`."""
    return {"etag": f'"{unquoted(etag)}"', "match_condition": MatchConditions.IfNotModified}


def unquoted(etag: str) -> str:
    """An ETag as the ports hand it out."""
    return etag.strip('"')
