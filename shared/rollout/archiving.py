"""Taking a version out of use for good. What serves, rolls out, waits, would be rolled back to, or has an alias stays.

The endpoint first lets no rollout of the version begin, then the version is archived: a start that overlaps is either
seen here, or sees this. So with aliases, which are looked at before and after, as AliasService looks at the version.
What a crash leaves in between only refuses starts, until the command is given again.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.core.errors import ConflictError
from shared.core.ids import ModelName, VersionNumber
from shared.registry.documents import ModelVersion, VersionState
from shared.rollout import admission
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.store.repository import Repository


class Versions(Protocol):
    """The versions of models, as the registry keeps them."""

    def version(self, name: str, number: VersionNumber) -> ModelVersion:
        """A version. Raises NotFoundError."""
        ...

    def mark_archived(
        self, name: ModelName, number: VersionNumber, *, by: str, reason: str, only: VersionState | None = None
    ) -> ModelVersion:
        """Archive a version. Raises ConflictError where it is in another state than `only`."""
        ...

    def take_back_archiving(self, name: ModelName, number: VersionNumber, *, reason: str) -> object:
        """Undo that."""
        ...


class Named(Protocol):
    """The aliases that name versions."""

    def named(self, model: ModelName) -> Mapping[int, Sequence[str]]:
        """The aliases of a model, by the version that they name."""
        ...


class Archiving:
    """Archives versions, of which no rollout begins any more."""

    def __init__(self, *, endpoints: Repository[Endpoint], versions: Versions, aliases: Named) -> None:
        self._endpoints = endpoints
        self._versions = versions
        self._aliases = aliases

    def archive(
        self, name: ModelName, number: VersionNumber, *, by: str, reason: str, only: VersionState | None = None
    ) -> ModelVersion:
        """Archive a version; again, answer it as it stands. Raises NotFoundError; ConflictError where it is in use, or
        in another state than `only`, if that is given.
        """
        version = self._versions.version(name, number)
        if version.state is VersionState.ARCHIVED:
            return version
        self._check_no_alias(name, number)
        if version.state is VersionState.REJECTED:
            # No rollout begins of one that is rejected; one that is validated again meanwhile is it no more.
            return self._archive(name, number, by=by, reason=reason, only=only or VersionState.REJECTED)
        self._endpoints.find_or_create(Endpoint(endpoint=name))
        is_altered = bool(version.altered)
        self._endpoints.change(
            name, ENDPOINT_ID, lambda endpoint: admission.withdraw(endpoint, number, is_altered=is_altered)
        )
        try:
            archived = self._archive(name, number, by=by, reason=reason, only=only)
        except ConflictError:
            self._forget_withdrawn(name, number)
            raise
        self._forget_withdrawn(name, number)
        return archived

    def _forget_withdrawn(self, name: ModelName, number: VersionNumber) -> None:
        self._endpoints.change(name, ENDPOINT_ID, lambda endpoint: admission.forget_withdrawn(endpoint, number))

    def _archive(
        self, name: ModelName, number: VersionNumber, *, by: str, reason: str, only: VersionState | None
    ) -> ModelVersion:
        archived = self._versions.mark_archived(name, number, by=by, reason=reason, only=only)
        try:
            self._check_no_alias(name, number)
        except ConflictError as conflict:
            self._versions.take_back_archiving(name, number, reason=str(conflict))
            raise
        return archived

    def _check_no_alias(self, name: ModelName, number: VersionNumber) -> None:
        aliases = self._aliases.named(name).get(number)
        if aliases:
            raise ConflictError(
                f"version {number} of {name} has the alias {' and '.join(aliases)}: move that first to archive it"
            )
