"""A drop's upload into the incoming container.

A drop's name holds the digest of its bytes: two pushes of the same bytes are one drop, two different ones never meet.
A blob appears whole or not at all, and a folder's manifest after all its files: a push that broke off goes on where it
was when it is made again.
"""

import hashlib
import io
import logging
import re
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobServiceClient, ContainerClient, LinearRetry

from cli.folder import MANIFEST, FolderDrop
from cli.outcome import CliError, ExitCode
from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.ids import ModelName

CONTAINER = "incoming"

_BLOCK_BYTES = 8 * 1024 * 1024
_RETRIES = 2
_CONNECT_S = 5
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")

type Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A drop in the incoming container: a blob, or a folder with a slash at its end, whose ETag is its manifest's.

    `created` is false where the same bytes lay there already.
    """

    blob: str
    etag: str
    size_bytes: int
    digest: str
    created: bool
    container: str = CONTAINER


def _silent(_text: str) -> None:
    pass


def blob_name(model: ModelName, filename: str, digest: str) -> str:
    """Where a file goes within the incoming container: a part of its digest keeps different bytes apart."""
    path = Path(filename)
    return f"{model}/{digest[:16]}-{_plain(path.stem)}{path.suffix.lower()}"


def upload(storage: str, file: Path, model: ModelName, *, say: Say = _silent) -> Dropped:
    """Upload a file, and tell `say` how far it is.

    Raises UnavailableError, CliError where it may not be written, InvalidInputError.
    """
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    name = blob_name(model, file.name, digest)
    with _container(storage) as container:
        etag, created = _put(container, name, file, say)
    return Dropped(blob=name, etag=etag, size_bytes=file.stat().st_size, digest=digest, created=created)


def upload_folder(storage: str, drop: FolderDrop, model: ModelName, *, say: Say = _silent) -> Dropped:
    """Upload a folder's files, and its manifest last. Raises as `upload` does."""
    name = f"{model}/{drop.digest[:16]}-{_plain(drop.name)}/"
    with _container(storage) as container:
        for file, path in drop.files.items():
            _put(container, name + file, path, say)
        etag, created = _put(container, name + MANIFEST, drop.manifest, say)
    size_bytes = sum(path.stat().st_size for path in drop.files.values()) + len(drop.manifest)
    return Dropped(blob=name, etag=etag, size_bytes=size_bytes, digest=drop.digest, created=created)


def _put(container: ContainerClient, name: str, content: Path | bytes, say: Say) -> tuple[str, bool]:
    """Upload unless the blob is there, which its name says holds the same; its ETag, and whether it was uploaded."""
    blob = container.get_blob_client(name)
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as source:
        size_bytes = content.stat().st_size if isinstance(content, Path) else len(content)

        def progress(sent: int, _total: int | None) -> None:
            say(f"uploading {name}: {sent / 1e6:.1f} of {size_bytes / 1e6:.1f} MB")

        progress(0, None)
        try:
            answer = blob.upload_blob(
                source, length=size_bytes, overwrite=False, max_concurrency=4, progress_hook=progress
            )
        except ResourceExistsError:
            return str(blob.get_blob_properties().etag).strip('"'), False
    return str(answer["etag"]).strip('"'), True


@contextmanager
def _container(storage: str) -> Generator[ContainerClient]:
    """The incoming container, and its errors as the command's."""
    # What the SDK notes of strange answers would stand on the terminal beside the sentence that tells of them.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    try:
        with _service(storage) as service, service.get_container_client(CONTAINER) as container:
            yield container
    except ClientAuthenticationError as error:
        raise CliError(f"storage refused the upload: {_first_line(error)}", ExitCode.FAILED, "refused") from error
    except HttpResponseError as error:
        raise CliError(f"storage did not take the upload: {_first_line(error)}", ExitCode.FAILED, "failed") from error
    except AzureError as error:
        raise UnavailableError("storage", f"{_first_line(error)}: is the system up?") from error


def _plain(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-.")[:80] or "model"


def _service(storage: str) -> BlobServiceClient:
    options: dict[str, Any] = {
        "max_single_put_size": _BLOCK_BYTES,
        "max_block_size": _BLOCK_BYTES,
        "retry_policy": LinearRetry(backoff=1, retry_total=_RETRIES, random_jitter_range=0),
        "connection_timeout": _CONNECT_S,
    }
    if storage.startswith(("https://", "http://")):
        from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - half a second, and not on one machine

        return BlobServiceClient(storage, credential=DefaultAzureCredential(), **options)
    try:
        return BlobServiceClient.from_connection_string(storage, **options)
    except ValueError as error:
        raise InvalidInputError(
            "what --storage or SLIPWAY_STORAGE gives is neither a connection string nor a URL"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
