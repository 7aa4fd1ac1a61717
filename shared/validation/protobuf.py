"""Walks protobuf messages on the wire, and writes them again without some of their fields.

Works on a memory map and copies nothing. The number of fields that are walked one by one is bounded; runs of numbers
and short texts that the caller names are passed over by a compiled expression, which is some fifty times as quick. A
tag here is what stands on the wire: `number << 3 | wire type`. Groups, which nothing has written since 2008, are taken
for damage.

https://protobuf.dev/programming-guides/encoding/
"""

import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10
_MAX_TAG_BYTES = 5
_NO_RUNS: Mapping[int, re.Pattern[bytes]] = {}

type Field = tuple[int, int, int, int, int]
"""Tag; value where it is a varint, else 0; where the field starts; where its content starts and stops."""


class MalformedError(ValueError):
    """The bytes are no protobuf message. The message completes "it is damaged: ...", or stands alone."""


class TooManyFieldsError(Exception):
    """More fields than the budget has."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A field of a message to be written anew: with these edits in its content, or, where they are None, left out."""

    tag: int
    at: int
    start: int
    stop: int
    edits: "list[Edit] | None"


class Fields:
    """Reads the fields of messages within one map, on one budget."""

    def __init__(self, data: mmap.mmap, budget: int) -> None:
        self._data = data
        self._left = budget

    def of(self, start: int, stop: int, runs: Mapping[int, re.Pattern[bytes]] = _NO_RUNS) -> Iterator[Field]:
        """The fields between two offsets. A run of a tag in `runs` comes as one, from its first tag to its end.

        Raises MalformedError where a field does not end within them, TooManyFieldsError where the budget is used up.
        """
        data, at = self._data, start
        while at < stop:
            tag = data[at]
            if tag in runs and (run := runs[tag].match(data, at, stop)):
                self._spend()
                yield tag, 0, at, at, run.end()
                at = run.end()
                continue
            self._spend()
            begin = at + 1
            if tag > 0x7F:
                tag, begin = self.varint(at, stop, _MAX_TAG_BYTES)
            wire, value = tag & 7, 0
            if wire == _LENGTH:
                length, begin = self.varint(begin, stop)
                end = begin + length
            elif wire == _VARINT:
                value, end = self.varint(begin, stop)
            elif wire in {_FIXED32, _FIXED64}:
                end = begin + (4 if wire == _FIXED32 else 8)
            else:
                raise MalformedError(f"byte {at} begins no field")
            if end > stop or tag < 8:
                raise MalformedError(f"the field at byte {at} ends beyond what holds it" if tag >= 8 else f"byte {at}")
            yield tag, value, at, begin, end
            at = end

    def varint(self, at: int, stop: int, most: int = _MAX_VARINT_BYTES) -> tuple[int, int]:
        """An unsigned number, and where it ends. Raises MalformedError."""
        data, value = self._data, 0
        for index in range(min(most, stop - at)):
            byte = data[at + index]
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return value, at + index + 1
        raise MalformedError(f"the number at byte {at} has no end")

    def _spend(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyFieldsError


def runs_of(*tags: int) -> Mapping[int, re.Pattern[bytes]]:
    """Expressions for runs of numbers, or of texts under 128 bytes, by their fields' tag, which must be of one byte."""
    content = {
        _VARINT: rb"[\x80-\xff]{0,9}+[\x00-\x7f]",
        _FIXED32: rb".{4}",
        _FIXED64: rb".{8}",
        _LENGTH: rb"(?:%b)" % b"|".join(rb"\x%02x.{%d}" % (length, length) for length in range(128)),
    }
    return {tag: re.compile(b"(?s:\\x%02x%b)++" % (tag, content[tag & 7])) for tag in tags}


def tag_of(number: int, *, wire: int = _LENGTH) -> int:
    """The tag of a field; without `wire` of one that has a length: text, bytes, a message, packed numbers."""
    return number << 3 | wire


def signed(value: int) -> int:
    """An int64 as it stands in a varint."""
    return value - (1 << 64) if value >= 1 << 63 else value


def without(data: mmap.mmap, start: int, stop: int, edits: list[Edit]) -> bytes:
    """The message between two offsets, with edits, which are in the order of their places, made."""
    parts: list[bytes] = []
    for edit in edits:
        parts.append(data[start : edit.at])
        if edit.edits is not None:
            content = without(data, edit.start, edit.stop, edit.edits)
            parts += [_varint(edit.tag), _varint(len(content)), content]
        start = edit.stop
    parts.append(data[start:stop])
    return b"".join(parts)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
