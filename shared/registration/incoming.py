"""What lies in the incoming container, as drops: files, and folders with all that is in them."""

from collections.abc import Iterator
from itertools import groupby, islice

from shared.core.errors import InvalidInputError
from shared.registration.folders import Listing
from shared.registration.places import drop_of, is_folder
from shared.registry.manifest import MAX_FILES
from shared.store.ports import BlobContainer, BlobInfo, BlobStore


class Incoming:
    """Looks into the incoming container. It reads names and properties, and no content."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def file(self, blob: str) -> tuple[BlobInfo | None, InvalidInputError | None]:
        """The blob as it stands, and the error where storage does not read blobs of such a name."""
        try:
            return self._blobs.info(BlobContainer.INCOMING, blob), None
        except InvalidInputError as error:
            # Names come in order, so the first one with the whole name as its prefix is the name itself, if any.
            first = next(iter(self._blobs.list(BlobContainer.INCOMING, blob)), None)
            return (first if first and first.name == blob else None), error

    def folder(self, name: str) -> Listing:
        """What lies in a folder, up to one file more than it may hold."""
        return Listing.of(name, islice(self._blobs.list(BlobContainer.INCOMING, name), MAX_FILES + 1))

    def all(self) -> Iterator[tuple[str, BlobInfo | Listing]]:
        """Every drop, by its name. A folder's blobs stand together, for names come in order."""
        for name, infos in groupby(self._blobs.list(BlobContainer.INCOMING), key=lambda info: drop_of(info.name)):
            held = list(islice(infos, MAX_FILES + 1))
            yield name, Listing.of(name, held) if is_folder(name) else held[0]
