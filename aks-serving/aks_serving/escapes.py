"""What a JSON decoder's error does not tell: that an escape in a text is half of a surrogate pair."""

import re

import msgspec

_SEARCHED_BYTES = 1 << 20
_UNTOLD = re.compile("truncated|surrogate|hex escape")
"""What the decoder says where it meets one, among others."""
_HALF = re.compile(
    rb"(?:[^\\]++|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F]|\\u(?![dD][89a-fA-F])|\\[^u])*+"
    rb"(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)
"""A text up to its first escape that is half of a pair."""


def why(error: Exception, text: bytes | memoryview) -> str:
    """Why a decoder took a JSON text not: in its own words, but where half of a pair is in the text's first MiB."""
    said = str(error)
    if type(error) is not msgspec.DecodeError or _UNTOLD.search(said) is None:
        return said
    found = _HALF.match(text[:_SEARCHED_BYTES])
    if found is None:
        return said
    return (
        f"{found[1].decode()} (byte {found.start(1)}) is half of a surrogate pair, and no character: send both halves, "
        "or the character itself in UTF-8"
    )
