"""Receipts: which blobs a function was told of. Stored beside each other by every host of one id, as Azure's host does.

A receipt is an empty blob `blobreceipts/<host id>/<function>/<etag>/<container>/<blob>` of the container
`azure-webjobs-hosts`; a blob's name too long for that is replaced by its digest. The receipt is created, if absent,
before the message to the function is sent, and marked complete after:

- two hosts that see one blob: one creates the receipt, the other leaves the blob to it;
- a host that dies between receipt and message: the receipt stays incomplete; once it is older than the patience, one
  scan takes it over by a conditional write and sends the message;
- a host that dies between message and mark, or is merely slow: the message is sent a second time. No lease guards
  against that: Event Grid sends events twice as well, so handlers stand it anyhow.
"""

import hashlib
from datetime import UTC, datetime
from enum import Enum, auto
from urllib.parse import quote

from azure.core import MatchConditions
from azure.core.exceptions import ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import BlobClient, BlobServiceClient

from local.host.storage import HOSTS_CONTAINER

_INCOMPLETE = {"Incomplete": "true"}
_MAX_BLOB_NAME = 1024


class Taken(Enum):
    """What came of asking for a blob's receipt."""

    OURS = auto()
    """It is to be completed by us, after the message is sent."""
    DONE = auto()
    """The message was sent: nothing is to be done for this state of the blob, ever."""
    IN_WORK = auto()
    """Another host has it, or died with it: ask again later."""


class Receipt:
    """The receipt for one state (`etag`, without quotes) of one blob and one function."""

    def __init__(
        self, blobs: BlobServiceClient, *, host_id: str, function: str, etag: str, container: str, blob: str
    ) -> None:
        name = f"blobreceipts/{host_id}/{function}/{quote(etag, safe='')}/{container}/{blob}"
        if len(name) > _MAX_BLOB_NAME:
            digest = hashlib.sha256(blob.encode()).hexdigest()
            name = f"{name.removesuffix(blob)}sha256-{digest}"
        self._client: BlobClient = blobs.get_blob_client(HOSTS_CONTAINER, name)

    def take(self, patience_s: float) -> Taken:
        """Create the receipt, or take over one that stayed incomplete for longer than `patience_s`.

        Raises AzureError.
        """
        try:
            self._client.upload_blob(b"", overwrite=False, metadata=_INCOMPLETE)
        except ResourceExistsError:
            return self._take_over(patience_s)
        return Taken.OURS

    def complete(self) -> None:
        """Mark the message as sent. Raises AzureError."""
        self._client.set_blob_metadata({})

    def _take_over(self, patience_s: float) -> Taken:
        try:
            found = self._client.get_blob_properties()
            if not found.metadata:
                return Taken.DONE
            if (datetime.now(UTC) - found.last_modified).total_seconds() < patience_s:
                return Taken.IN_WORK
            self._client.set_blob_metadata(_INCOMPLETE, etag=found.etag, match_condition=MatchConditions.IfNotModified)
        except (ResourceModifiedError, ResourceNotFoundError):
            return Taken.IN_WORK
        return Taken.OURS
