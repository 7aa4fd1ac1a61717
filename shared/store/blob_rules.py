"""What every blob adapter holds alike: the form of names and metadata, and the limit on what is read.

Azure's rules, made a little narrower where storage would take a name or a value and hand back another.
"""

import re
from collections.abc import Mapping

from shared.core.errors import InvalidInputError
from shared.store.ports import BlobContainer

MAX_NAME_CHARS = 1024
MAX_METADATA_BYTES = 7 * 1024
"""Azure's limit is 8 KB; the mark needs room."""
MARK = "slipwaywrite"
"""The metadata field of the adapter's own, which is not handed out."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_METADATA_NAME = re.compile(r"[a-z][a-z0-9_]*")


def check_name(name: str) -> None:
    """Check a blob's name. Raises InvalidInputError."""
    # A dot segment would be resolved on the way, and reach another blob or container.
    if (
        not 0 < len(name) <= MAX_NAME_CHARS
        or _CONTROL.search(name)
        or name.endswith(".")
        or not {".", ".."}.isdisjoint(name.split("/"))
    ):
        raise InvalidInputError(
            f"{name[:80]!r} is not a blob name: use 1 to {MAX_NAME_CHARS} characters, no backslash, no control "
            "character, no part that is . or .., no dot at the end"
        )


def checked_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """A copy of a blob's metadata. Raises InvalidInputError where it would not come back as it is."""
    plain = dict(metadata or {})
    for key, value in plain.items():
        if not _METADATA_NAME.fullmatch(key) or key == MARK:
            raise InvalidInputError(f"{key[:80]!r} is not a metadata name: use lower-case letters, digits, underscores")
        if not value.isascii() or not value.isprintable() or value != value.strip() or not value:
            raise InvalidInputError(
                f"the metadata {key!r} is {value[:80]!r}: use printable ASCII, without outer spaces"
            )
    if sum(len(key) + len(value) for key, value in plain.items()) > MAX_METADATA_BYTES:
        raise InvalidInputError(f"the metadata is larger than {MAX_METADATA_BYTES} bytes: keep it in the blob")
    return plain


def check_size(named: str, size_bytes: int, max_bytes: int) -> None:
    """Check what is to be read. Raises InvalidInputError."""
    if size_bytes > max_bytes:
        raise InvalidInputError(f"{named} has {size_bytes} bytes, and at most {max_bytes} are read")


def named(container: BlobContainer, name: str) -> str:
    """A blob in an error's sentence."""
    return f"the blob {container}/{name}"
