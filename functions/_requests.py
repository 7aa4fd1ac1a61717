"""What the bodies and parameters of the admin API's calls have in common."""

from datetime import datetime
from typing import Annotated
from uuid import uuid4

import azure.functions as func
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from shared.core.errors import InvalidInputError

MAX_TEXT = 500
"""Characters of a name or a reason."""
_AUTOMATIC = "automatic:"
_MAX_NUMBER_DIGITS = 9


def _not_automatic(command_id: str) -> str:
    if command_id.startswith(_AUTOMATIC):
        raise ValueError(f"ids that start with {_AUTOMATIC!r} belong to the rollouts that policy starts: use another")
    return command_id


type Text = Annotated[str, Field(max_length=MAX_TEXT)]
type Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT)]
type CommandId = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_not_automatic)]


class Command(BaseModel):
    """The body of a command. Without an id each call is a command of its own."""

    model_config = ConfigDict(extra="forbid")

    command_id: CommandId = Field(default_factory=lambda: str(uuid4()))


def number_param(req: func.HttpRequest, name: str) -> int | None:
    """A whole number from 0 in the query, or None where it is not given. Raises InvalidInputError."""
    text = req.params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_NUMBER_DIGITS):
        raise InvalidInputError(f"{name} is {text[:40]!r}: use a whole number from 0")
    return int(text)


def text_param(req: func.HttpRequest, name: str) -> str:
    """A text in the query, without its outer spaces; empty where it is not given. Raises InvalidInputError."""
    text: str = req.params.get(name, "").strip()
    if len(text) > MAX_TEXT:
        raise InvalidInputError(f"{name} has {len(text)} characters: at most {MAX_TEXT} are taken")
    return text


def time_param(req: func.HttpRequest, name: str) -> datetime | None:
    """A time in the query, or None where it is not given. Raises InvalidInputError."""
    text = req.params.get(name)
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(
            f"{name} is {text[:40]!r}: use a time in ISO 8601, as in 2026-01-31T09:30:00Z (a + is written %2B)"
        ) from None
    if found.tzinfo is None:
        raise InvalidInputError(f"{name} is {text[:40]!r}, which names no zone: end it with Z or an offset")
    return found
