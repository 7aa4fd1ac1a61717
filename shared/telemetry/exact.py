"""Whole numbers of any size that stay exact wherever they are written.

JSON's numbers are exact up to 2^53 in most readers, and documents refuse greater ones (shared.store.documents). A sum
of squares in millionths passes that with a single error of a hundred. So a greater one is written as text, in JSON
alone, and either is read.
"""

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

_EXACT = 2**53 - 1

if TYPE_CHECKING:
    type Exact = int
    type NonNegativeExact = int
else:
    # As they are read. What has such fields calls keep_exact, after which they are whole numbers.
    type Exact = int | Annotated[str, Meta(pattern=r"^-?[0-9]+\Z")]
    type NonNegativeExact = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^[0-9]+\Z")]


class _Great(int):
    """One that JSON's numbers may not hold: nothing that msgspec knows, so that its writer asks for the text."""


def keep_exact(of: msgspec.Struct, *names: str) -> None:
    """Make fields whole numbers that are written as text where they are great. Raises ValueError where a text is longer
    than Python reads.
    """
    for name in names:
        value = int(getattr(of, name))
        msgspec.structs.force_setattr(of, name, value if abs(value) <= _EXACT else _Great(value))
