"""Slots: pods of an endpoint's own, apart from those that many share. Plans, windows and policies speak of them."""

from enum import StrEnum
from typing import Self


class Slot(StrEnum):
    """One of an endpoint's two sets of pods of its own, so that two versions of it need never share a process.

    Where a slot may be None, that stands for the pods that endpoints share.
    """

    BLUE = "blue"
    GREEN = "green"

    @property
    def other(self) -> Self:
        """The one that this is not."""
        return type(self)("green" if self is Slot.BLUE else "blue")
