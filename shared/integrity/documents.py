"""What is known of a stored artifact: the ETag that it had when its bytes were last hashed, and what they were."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime

from shared.registration.documents import NO_MODEL
from shared.store.aggregate import Aggregate
from shared.store.ports import Container


class ArtifactCheck(Aggregate):
    """The latest look at an artifact's bytes. While its ETag stands, they need no other."""

    container: ClassVar[Container] = Container.REPORTS

    id: str
    kind: Literal["artifact_check"] = "artifact_check"
    model: str = NO_MODEL
    """The partition: an artifact may belong to versions of several models."""
    digest: str
    etag: str = ""
    found: str = ""
    """The SHA-256 of its bytes under that ETag."""
    checked_at: AwareDatetime

    @property
    def stream(self) -> str:
        """The name of its audit stream, in which nothing is recorded: findings stand in those of versions."""
        return f"artifact_check:{self.model}:{self.digest}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.model


def check_id(digest: str) -> str:
    """The id of an artifact's check."""
    return f"artifact-{digest}"
