"""Whole numbers of any size that stay exact wherever they are written.

JSON's numbers are exact up to 2^53 in most readers, and documents refuse greater ones (shared.store.documents). A sum
of squares in millionths passes that with a single error of a hundred. So a greater one is written as text, in JSON
alone, and either is read.
"""

from typing import Annotated

from pydantic import Field, PlainSerializer

_EXACT = 2**53 - 1


def _written(value: int) -> int | str:
    return value if abs(value) <= _EXACT else str(value)


type Exact = Annotated[int, PlainSerializer(_written, when_used="json")]
type NonNegativeExact = Annotated[int, Field(ge=0), PlainSerializer(_written, when_used="json")]
