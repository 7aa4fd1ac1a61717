"""Documents that cannot be read: another release wrote them, or somebody changed them by hand.

Who goes over many leaves such a one out; who needs it fails, with an error that names it.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from pydantic import ValidationError

from shared.store.ports import PARTITION_KEY, Container

_log = logging.getLogger(__name__)


class Unreadable(NamedTuple):
    """A document that was left out, and what is wrong with it."""

    document: str
    problem: str

    @classmethod
    def of(cls, document: str, error: ValidationError) -> "Unreadable":
        """In words: the first field that is wrong."""
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return cls(document, f"{where}: {first['msg']}" if where else first["msg"])


def named(container: Container, body: Mapping[str, Any]) -> str:
    """A stored document in words: its id, and its partition."""
    return f"{body['id']} of {body[PARTITION_KEY[container]]}"


@contextmanager
def naming(document: str) -> Iterator[None]:
    """Read a document: an error says which one it was."""
    try:
        yield
    except ValidationError as error:
        error.add_note(document)
        raise


@contextmanager
def leaving_out(what: str, unreadable: list[Unreadable] | None = None) -> Iterator[None]:
    """Do something for one of many: where a document that it takes cannot be read, that is logged, and stops nobody.

    It is added to `unreadable`.
    """
    try:
        yield
    except ValidationError as error:
        _leave_out(what, error, unreadable)


def read_or_left_out[T](what: str, read: Callable[[], T], unreadable: list[Unreadable] | None = None) -> T | None:
    """What `read` gives; None where it cannot be read, which is seen to as by `leaving_out`."""
    try:
        return read()
    except ValidationError as error:
        _leave_out(what, error, unreadable)
        return None


def _leave_out(what: str, error: ValidationError, unreadable: list[Unreadable] | None) -> None:
    _log.error("%s is left out, for it cannot be read: %s", what, error)
    if unreadable is not None:
        unreadable.append(Unreadable.of(what, error))
