"""Names and numbers that identify things. Each has a type of its own and one place that checks its form.

A name is a DNS label: it stands in blob paths, queue messages, URLs and document ids without escaping.
"""

import re
from typing import NewType

from shared.core.errors import InvalidInputError

ModelName = NewType("ModelName", str)
EndpointName = NewType("EndpointName", str)
VersionNumber = NewType("VersionNumber", int)
RolloutId = NewType("RolloutId", str)
SubjectKey = NewType("SubjectKey", str)
Digest = NewType("Digest", str)
"""Lower-case hexadecimal SHA-256, 64 characters."""

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def model_name(text: str) -> ModelName:
    """Check a model's name. Raises InvalidInputError."""
    return ModelName(_checked_name(text, "a model name"))


def endpoint_name(text: str) -> EndpointName:
    """Check an endpoint's name. Raises InvalidInputError."""
    return EndpointName(_checked_name(text, "an endpoint name"))


def version_number(text: str) -> VersionNumber:
    """Read a version number, a whole number from 1. Raises InvalidInputError."""
    if not (text.isascii() and text.isdecimal() and 0 < len(text) <= 9 and int(text) > 0):
        raise InvalidInputError(f"version {text[:40]!r} is not a version number: use a whole number from 1")
    return VersionNumber(int(text))


def digest(text: str) -> Digest:
    """Check the form of a SHA-256 digest. Raises InvalidInputError."""
    if not _DIGEST.fullmatch(text):
        raise InvalidInputError(f"{text[:80]!r} is not a SHA-256 digest: use 64 lower-case hexadecimal digits")
    return Digest(text)


def _checked_name(text: str, what: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidInputError(
            f"{text[:80]!r} is not {what}: use 1 to 63 lower-case letters, digits and hyphens, "
            "starting and ending with a letter or digit"
        )
    return text
