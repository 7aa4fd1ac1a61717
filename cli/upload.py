"""A drop's upload into the incoming container.

A drop's name holds the digest of its bytes: two pushes of the same bytes are one blob, two different ones never meet.
A blob appears whole or not at all.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ResourceExistsError
from azure.storage.blob import BlobServiceClient, LinearRetry

from cli.outcome import CliError, ExitCode
from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.ids import ModelName

CONTAINER = "incoming"

_BLOCK_BYTES = 8 * 1024 * 1024
_RETRIES = 2
_CONNECT_S = 5
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A blob in the incoming container. `created` is false where the same bytes lay there already."""

    blob: str
    etag: str
    size_bytes: int
    digest: str
    created: bool
    container: str = CONTAINER


def blob_name(model: ModelName, filename: str, digest: str) -> str:
    """Where a file goes within the incoming container: a part of its digest keeps different bytes apart."""
    path = Path(filename)
    stem = _UNSAFE.sub("-", path.stem).strip("-.")[:80] or "model"
    return f"{model}/{digest[:16]}-{stem}{path.suffix.lower()}"


def upload(storage: str, file: Path, model: ModelName) -> Dropped:
    """Upload a file. Raises UnavailableError, CliError where it may not be written, InvalidInputError."""
    with file.open("rb") as source:
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    name = blob_name(model, file.name, digest)
    size_bytes = file.stat().st_size
    try:
        with _service(storage) as service, service.get_blob_client(CONTAINER, name) as blob, file.open("rb") as source:
            try:
                etag = str(blob.upload_blob(source, length=size_bytes, overwrite=False, max_concurrency=4)["etag"])
                created = True
            except ResourceExistsError:
                etag = str(blob.get_blob_properties().etag)
                created = False
    except ClientAuthenticationError as error:
        raise CliError(f"storage refused the upload: {_first_line(error)}", ExitCode.FAILED, "refused") from error
    except HttpResponseError as error:
        raise CliError(f"storage did not take the upload: {_first_line(error)}", ExitCode.FAILED, "failed") from error
    except AzureError as error:
        raise UnavailableError("storage", f"{_first_line(error)}: is the system up?") from error
    return Dropped(blob=name, etag=etag.strip('"'), size_bytes=size_bytes, digest=digest, created=created)


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
