"""The port to storage: what the server asks of it, whoever answers.

Every method blocks, is called from worker threads, and raises UnavailableError where storage does not answer or
refuses: the call may be made again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shared.core.ids import EndpointName


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPlan:
    """A route plan as stored, unparsed, and the ETag of this state of it."""

    data: bytes
    etag: str


class Storage(Protocol):
    """Plans and artifacts in, windows out."""

    def plan_etags(self) -> dict[EndpointName, str]:
        """Every endpoint that has a plan, with the plan's ETag."""
        ...

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        """The endpoint's plan, or None where there is none or its ETag is still `unless_etag`."""
        ...

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        """An artifact's bytes, unverified, in chunks of a few MiB.

        Raises, before any chunk or between two, NotFoundError, or InvalidInputError beyond `max_bytes`.
        """
        ...

    def keep_window(self, name: str, data: bytes) -> None:
        """Store a window under a new name; a name that is taken is left as it is: it was stored before."""
        ...
