"""The ports to stored state: documents, blobs and queues. Services see these; adapters stand beside this file.

Guarantees that every adapter gives, and the contract tests under tests/contract hold:

- a write is durable and visible to every process when its call returns;
- a conditional write either takes effect whole or raises and changes nothing;
- a vendor's failure to answer is raised as `UnavailableError`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol


class Container(StrEnum):
    """The document containers."""

    MODELS = "models"
    ENDPOINTS = "endpoints"
    EXPERIMENTS = "experiments"
    AUDIT = "audit"
    REPORTS = "reports"


PARTITION_KEY: Mapping[Container, str] = {
    Container.MODELS: "model",
    Container.ENDPOINTS: "endpoint",
    Container.EXPERIMENTS: "experiment",
    Container.AUDIT: "stream",
    Container.REPORTS: "model",
}
"""The field of a document's body that places it in a partition, a container each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A document as stored: its body, and the ETag of this state of it."""

    body: dict[str, Any]
    etag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of a query. `continuation` is None on the last page, else opaque text that the next call takes."""

    items: list[Stored]
    continuation: str | None


class DocumentStore(Protocol):
    """Documents: JSON objects with an `id` (text) and the container's partition key (text) among their fields.

    An id is unique within its partition. The body that comes back is the body that was stored, without fields of the
    database's own. There is no unconditional write, and no unconditional delete.
    """

    def get(self, container: Container, partition: str, document_id: str) -> Stored | None:
        """The document's latest state, or None."""
        ...

    def create(self, container: Container, body: Mapping[str, Any]) -> Stored:
        """Store a new document. Raises AlreadyExistsError where its id is taken in its partition."""
        ...

    def replace(self, container: Container, body: Mapping[str, Any], *, etag: str) -> Stored:
        """Replace a document whose ETag is still `etag`. Raises ChangedMeanwhileError, or NotFoundError."""
        ...

    def delete(self, container: Container, partition: str, document_id: str, *, etag: str) -> bool:
        """Delete a document whose ETag is still `etag`. False where there is none. Raises ChangedMeanwhileError."""
        ...

    def query(
        self,
        container: Container,
        *,
        partition: str | None = None,
        where: Mapping[str, str | int | bool] | None = None,
        page_size: int = 100,
        continuation: str | None = None,
    ) -> Page:
        """The documents whose top-level fields equal those of `where`, a page at a time.

        With a partition: ordered by id. Without: over all partitions, in an order that holds across the pages of one
        query. A document that stands unchanged while a query pages through is seen exactly once.
        """
        ...


class BlobContainer(StrEnum):
    """The blob containers."""

    INCOMING = "incoming"
    ARTIFACTS = "artifacts"
    ROUTES = "routes"
    TELEMETRY = "telemetry"
    REPORTS = "reports"
    MANIFESTS = "manifests"
    """What the cluster's GitOps applies by itself: the Gateway's routes of endpoints with pods of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobInfo:
    """What a listing or a look-up tells of a blob. `etag` stands without quotes."""

    name: str
    etag: str
    size_bytes: int
    last_modified: datetime
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A small blob, read whole."""

    info: BlobInfo
    data: bytes


class BlobStore(Protocol):
    """Blobs."""

    def info(self, container: BlobContainer, name: str) -> BlobInfo | None:
        """What the blob is now, or None."""
        ...

    def read(self, container: BlobContainer, name: str, *, max_bytes: int) -> Blob | None:
        """A blob read whole, or None. Raises InvalidInputError where it is larger than `max_bytes`."""
        ...

    def download(self, container: BlobContainer, name: str, path: Path, *, etag: str, max_bytes: int) -> str:
        """Stream a blob into a new file and return its SHA-256 (hexadecimal); memory use does not grow with size.

        Raises ChangedMeanwhileError where the blob's ETag is not `etag`, NotFoundError, or InvalidInputError where it
        is larger than `max_bytes`. The file is not left behind on an error.
        """
        ...

    def create(
        self, container: BlobContainer, name: str, source: bytes | Path, *, metadata: Mapping[str, str] | None = None
    ) -> bool:
        """Store a new blob from bytes or, streamed, from a file. False, and no change, where the name is taken."""
        ...

    def replace(
        self,
        container: BlobContainer,
        name: str,
        data: bytes,
        *,
        etag: str,
        metadata: Mapping[str, str] | None = None,
    ) -> BlobInfo:
        """Replace a blob whose ETag is still `etag`. Raises ChangedMeanwhileError, also where the blob is gone."""
        ...

    def copy(self, source: BlobContainer, source_name: str, target: BlobContainer, name: str, *, etag: str) -> bool:
        """Store a new blob with the content of another, which storage copies by itself: no byte passes through here.

        False, and no change, where the name is taken. Raises ChangedMeanwhileError where the source's ETag is not
        `etag`, or NotFoundError.
        """
        ...

    def touch(self, container: BlobContainer, name: str) -> bool:
        """Give a blob a new ETag and nothing else, so that no delete decided before succeeds. False where it is gone.

        A blob that storage protects from change is left as it is, for it cannot be deleted either.
        """
        ...

    def delete(self, container: BlobContainer, name: str, *, etag: str) -> bool:
        """Delete a blob whose ETag is still `etag`. False where there is none.

        Raises ChangedMeanwhileError, or another ConflictError where storage protects it from being deleted.
        """
        ...

    def list(self, container: BlobContainer, prefix: str = "") -> Iterator[BlobInfo]:
        """The blobs whose name starts with `prefix`, in the order of their names, fetched in pages as needed.

        `metadata` is filled in.
        """
        ...


class QueueSender(Protocol):
    """Sends queue messages."""

    def send(self, queue: str, body: str, *, delay_s: float = 0.0) -> None:
        """Put a message on a queue, visible after `delay_s` seconds (0 to 7 days, rounded up to whole seconds)."""
        ...
