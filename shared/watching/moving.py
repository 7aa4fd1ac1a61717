"""Brings an endpoint's roll-ups to where they are kept, from where an older release kept them: beside the windows.

Each is copied by storage, and deleted then. One that is there already stays as it is. Who dies in between leaves the
rest to the next call; several calls at once do no harm.
"""

from shared.core.errors import ChangedMeanwhileError, NotFoundError
from shared.core.threads import side_by_side
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.watching.rollups import ROLLUPS

FORMER = BlobContainer.TELEMETRY


def bring_rollups(blobs: BlobStore, endpoint: str) -> int:
    """Bring what there is; how many roll-ups."""

    def bring(info: BlobInfo) -> None:
        try:
            blobs.copy(FORMER, info.name, ROLLUPS, info.name, etag=info.etag)
            blobs.delete(FORMER, info.name, etag=info.etag)
        except (ChangedMeanwhileError, NotFoundError):
            pass  # Another call brought it.

    found = [info for kind in ("hourly", "daily") for info in blobs.list(FORMER, f"{endpoint}/features-{kind}/")]
    return sum(1 for _ in side_by_side(bring, found))
