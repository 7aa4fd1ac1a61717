"""Text from elsewhere, made fit for a terminal.

Reasons, names and the errors of pods are what callers and models made them: an escape sequence in one could rewrite
what a person has read, or type for them. Such characters are shown by their codes. Line ends and tabs stay.
"""

import re
from typing import Any

# The control characters, and those that change the direction in which text is read.
_UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """A JSON value in which every text, the names of keys too, can be shown."""
    match value:
        case str():
            return _UNFIT.sub(_code, value)
        case list():
            return [printable(part) for part in value]
        case dict():
            return {printable(name): printable(part) for name, part in value.items()}
        case _:
            return value


def escaped(text: str) -> str:
    """JSON text with the characters that JSON lets stand, and a terminal does not, in JSON's own escapes."""
    return _UNFIT.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _code(found: re.Match[str]) -> str:
    code = ord(found.group())
    return f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}"
