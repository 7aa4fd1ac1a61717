"""What an endpoint has been through: its rollouts that are over, and its rollbacks, as they were archived.

An archived record may still wait in the endpoint's outbox: it counts from the change on that made it, not from its
delivery.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from shared.core.errors import NotFoundError
from shared.rollout.documents import Rollout, RolloutRecord
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Reverted, Rollback, RollbackRecord
from shared.store.aggregate import ArchiveEntry
from shared.store.ports import Container, DocumentStore
from shared.store.unreadable import Unreadable, leaving_out, named, naming


class History:
    """Reads the records of endpoints. It writes nothing."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def rollouts(self, endpoint: Endpoint, unreadable: list[Unreadable] | None = None) -> list[Rollout]:
        """All rollouts, the latest one included, in the order of their start.

        What cannot be read is left out and added to `unreadable`, where that is given, and is an error elsewhere.
        """
        records = _read(RolloutRecord, self._bodies(endpoint, "rollout"), unreadable)
        found = {record.rollout.rollout_id: record.rollout for record in records}
        if endpoint.rollout:
            found[endpoint.rollout.rollout_id] = endpoint.rollout
        rollbacks = self.rollbacks(endpoint, unreadable)
        in_order = sorted(found.values(), key=lambda rollout: rollout.started_at)
        return [_with_revert(one, in_order, rollbacks) for one in in_order]

    def rollout(self, endpoint: Endpoint, rollout_id: str) -> Rollout:
        """One rollout. Raises NotFoundError."""
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return endpoint.rollout
        body = next((body for body in waiting_records(endpoint, "rollout") if body["id"] == rollout_id), None)
        if body is None:
            stored = self._documents.get(Container.ENDPOINTS, endpoint.endpoint, rollout_id)
            if stored is None or stored.body["kind"] != "rollout":
                raise NotFoundError(f"rollout {rollout_id} of endpoint {endpoint.endpoint}")
            body = stored.body
        with naming(named(Container.ENDPOINTS, body)):
            found = RolloutRecord.model_validate(body).rollout
        if found.state is not RolloutState.PROMOTED:
            return found
        return next((one for one in self.rollouts(endpoint) if one.rollout_id == rollout_id), found)

    def rollbacks(self, endpoint: Endpoint, unreadable: list[Unreadable] | None = None) -> list[Rollback]:
        """All rollbacks, in their order; the latest one may not be confirmed by the pods yet. `unreadable` as above."""
        return _rollbacks(endpoint, self._bodies(endpoint, "rollback"), unreadable)

    def rollbacks_of_all(
        self, endpoints: Sequence[Endpoint], unreadable: list[Unreadable] | None = None
    ) -> dict[str, list[Rollback]]:
        """All rollbacks of each endpoint by its name, in their order, read together: not a query for each.

        `unreadable` as above.
        """
        bodies = defaultdict(list)
        for body in self._stored("rollback"):
            bodies[body["endpoint"]].append(body)
        return {
            one.endpoint: _rollbacks(one, [*waiting_records(one, "rollback"), *bodies[one.endpoint]], unreadable)
            for one in endpoints
        }

    def has_begun(self, endpoint: Endpoint, rollout_id: str) -> bool:
        """Whether a start command has had its rollout, under way or over."""
        if endpoint.rollout and endpoint.rollout.rollout_id == rollout_id:
            return True
        if any(body["id"] == rollout_id for body in waiting_records(endpoint, "rollout")):
            return True
        return self._documents.get(Container.ENDPOINTS, endpoint.endpoint, rollout_id) is not None

    def has_rolled_out(self, endpoint: Endpoint, version: int) -> bool:
        """Whether a version has had a rollout, by policy or by hand."""
        if endpoint.rollout and endpoint.rollout.candidate.version == version:
            return True
        if any(body["version"] == version for body in waiting_records(endpoint, "rollout")):
            return True
        page = self._documents.query(
            Container.ENDPOINTS, partition=endpoint.endpoint, where={"kind": "rollout", "version": version}
        )
        return bool(page.items) or page.continuation is not None

    def _bodies(self, endpoint: Endpoint, kind: str) -> Iterator[dict[str, Any]]:
        yield from waiting_records(endpoint, kind)
        yield from self._stored(kind, partition=endpoint.endpoint)

    def _stored(self, kind: str, *, partition: str | None = None) -> Iterator[dict[str, Any]]:
        continuation = None
        while True:
            page = self._documents.query(
                Container.ENDPOINTS, partition=partition, where={"kind": kind}, continuation=continuation
            )
            yield from (stored.body for stored in page.items)
            if page.continuation is None:
                return
            continuation = page.continuation


def _with_revert(rollout: Rollout, rollouts: Iterable[Rollout], rollbacks: Iterable[Rollback]) -> Rollout:
    """A rollout, with what took its version back since: its record was archived before that.

    `rollouts` and `rollbacks` are its endpoint's. What comes after another rollout of the version is that one's.
    """
    version, ended_at = rollout.candidate.version, rollout.ended_at
    if rollout.state is not RolloutState.PROMOTED or rollout.reverted or ended_at is None:
        return rollout
    until = min(
        (one.started_at for one in rollouts if one.candidate.version == version and one.started_at > ended_at),
        default=None,
    )
    for one in rollbacks:
        is_of_it = one.rollout_id is None and one.from_version == version and one.detected_at >= ended_at
        if is_of_it and one.to_version is not None and (until is None or one.detected_at < until):
            back = Reverted(to_version=one.to_version, at=one.detected_at, by=one.by, reason=one.reason)
            return rollout.model_copy(update={"reverted": back})
    return rollout


def _read[M: BaseModel](
    kind: type[M], bodies: Iterable[Mapping[str, Any]], unreadable: list[Unreadable] | None
) -> Iterator[M]:
    for body in bodies:
        what = named(Container.ENDPOINTS, body)
        with naming(what) if unreadable is None else leaving_out(what, unreadable):
            yield kind.model_validate(body)


def _rollbacks(
    endpoint: Endpoint, bodies: Iterable[Mapping[str, Any]], unreadable: list[Unreadable] | None
) -> list[Rollback]:
    records = _read(RollbackRecord, bodies, unreadable)
    found = {record.rollback.rollback_id: record.rollback for record in records}
    if endpoint.rollback:
        found[endpoint.rollback.rollback_id] = endpoint.rollback
    return sorted(found.values(), key=lambda rollback: rollback.generation)


def waiting_records(endpoint: Endpoint, kind: str) -> list[dict[str, Any]]:
    """The archived records of a kind that are still in the endpoint's outbox."""
    return [e.body for e in endpoint.outbox if isinstance(e, ArchiveEntry) and e.body["kind"] == kind]
