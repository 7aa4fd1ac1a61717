"""The plans that storage holds, beside those that the endpoints call for, and putting right what differs.

A published blob only moves to a later generation, and pods take no plan that is not above theirs. Both guard against
what comes late; both pass over whatever an endpoint says once its document went back in time, as after a restore.
`republish` lifts the endpoint's generation above whatever storage holds and pods have applied, and publishes what the
document calls for under it. It changes nothing of what is called for, and nothing at all where that is in force.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from shared.core.clock import Clock
from shared.core.errors import InvalidInputError, NotFoundError
from shared.core.ids import EndpointName
from shared.core.threads import AT_ONCE, side_by_side
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.gateway import manifest_blob_name
from shared.rollout.publishing import publish, routes_of, schedule
from shared.routing.plan import RoutePlan
from shared.store.aggregate import PublishEntry
from shared.store.outbox import generation_of
from shared.store.ports import BlobContainer, BlobStore
from shared.store.repository import Repository
from shared.telemetry.evidence import read_window
from shared.telemetry.names import place_of, prefixes

MAX_PLAN_BYTES = 1_000_000
_REPORTED_WITHIN = timedelta(minutes=15)
"""Pods report each minute at least; one that was silent for so long is taken for gone, and what it kept with it."""

type _Key = tuple[BlobContainer, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Astray:
    """What storage holds of an endpoint is not what it calls for, and no delivery under way makes it so.

    `stored` is the generation of the blob, None where that is gone. One that `is_unknown` is made of a plan that the
    endpoint knows nothing of, whatever its generation.
    """

    endpoint: str
    blob: str
    called_for: int
    stored: int | None
    is_unknown: bool = False

    @property
    def sentence(self) -> str:
        """It in words, with what to do."""
        do = f"slipway plan republish {self.endpoint}"
        if self.stored is None:
            return f"{self.blob} is gone: pods that start find no plan of {self.endpoint}; publish it again: {do}"
        if self.is_unknown:
            return (
                f"{self.blob} has the Gateway send requests to pods that {self.endpoint} knows nothing of, as after "
                f"its document was restored to an earlier time, and that keep nothing for it: look whom it would have "
                f"serve, then publish that: {do}"
            )
        if self.stored < self.called_for:
            return (
                f"{self.blob} holds generation {self.stored}, and {self.endpoint} is at {self.called_for}: an earlier "
                f"state of it was put back; publish the plan again: {do}"
            )
        return (
            f"{self.blob} holds generation {self.stored}, and {self.endpoint} calls for another plan under "
            f"{self.called_for}, as after its document was restored to an earlier time: what it is told, a rollback "
            f"too, is passed over; look whom it would have serve, then publish that: {do}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Republished:
    """What came of a republish. `stored` and `reported` are the highest generations that storage held and pods had."""

    endpoint: str
    published: bool
    generation: int
    stored: int | None
    reported: int | None


class StoredPlans:
    """Compares stored plans with what endpoints call for, and publishes the latter anew."""

    def __init__(self, *, endpoints: Repository[Endpoint], blobs: BlobStore, clock: Clock) -> None:
        self._endpoints = endpoints
        self._blobs = blobs
        self._clock = clock

    def astray(self, *, left_out: set[str] | None = None, suspects: frozenset[str] = frozenset()) -> Iterator[Astray]:
        """What is astray of all endpoints; `left_out` is given the names of those that cannot be read.

        Generations are compared, and of `suspects`, which were astray before, what the blobs hold as well: an endpoint
        counts on, and may have come to the very generation that is stored.
        """
        # First the blobs, then the documents: a plan that is published in between is no later than its document.
        held: dict[_Key, int | None] = {
            (container, info.name): generation_of(info)
            for container in (BlobContainer.ROUTES, BlobContainer.MANIFESTS)
            for info in self._blobs.list(container)
        }
        for endpoint in list(self._endpoints.readable(left_out=left_out)):
            if found := self._astray(endpoint, held, thorough=endpoint.endpoint in suspects):
                yield found

    def republish(self, name: EndpointName, *, by: str, reason: str) -> Republished:
        """Have storage hold, and pods take, what an endpoint calls for. Where they do already, nothing changes.

        Raises NotFoundError where there is no endpoint or it has no plan yet, InvalidInputError without a name or a
        reason.
        """
        if not by.strip() or not reason.strip():
            raise InvalidInputError("publishing a plan again needs a name and a reason, which go into the audit")
        # What waits in the outbox goes first: it may be all that is missing.
        seen = self._endpoints.change(name, ENDPOINT_ID, lambda _: False)
        if seen.plan() is None:
            raise NotFoundError(f"a route plan of endpoint {name}", hint="it comes to be with its first rollout")
        held = {key: self._generation(*key) for key in {*_blobs_of(seen), _routes_key(name)}}
        stored = max((found for found in held.values() if found is not None), default=None)
        reported = self._reported(name)
        found = self._astray(seen, held, thorough=True)
        above = max(stored or 0, reported or 0)
        published = False

        def lift(endpoint: Endpoint) -> bool:
            nonlocal published
            is_as_seen = endpoint.generation == seen.generation
            published = endpoint.generation < above or (is_as_seen and found is not None)
            if published:
                # Whoever the Gateway was once told of is told of for good, and the document may not know it.
                endpoint.is_gated = endpoint.is_gated or held[_routes_key(name)] is not None
                _lift(endpoint, above, self._clock.now())
                endpoint.record(
                    "plan_republished",
                    self._clock.now(),
                    generation=endpoint.generation,
                    stored=stored,
                    reported=reported,
                    routes=routes_of(endpoint),
                    by=by,
                    reason=reason,
                )
            return published

        endpoint = self._endpoints.change(name, ENDPOINT_ID, lift)
        return Republished(
            endpoint=name, published=published, generation=endpoint.generation, stored=stored, reported=reported
        )

    def _astray(self, endpoint: Endpoint, held: Mapping[_Key, int | None], *, thorough: bool) -> Astray | None:
        if endpoint.generation == 0:
            return None
        routes = _routes_key(endpoint.endpoint)
        if not endpoint.is_gated and held.get(routes) is not None:
            return Astray(
                endpoint=endpoint.endpoint,
                blob="/".join(routes),
                called_for=endpoint.generation,
                stored=held[routes],
                is_unknown=True,
            )
        waiting = {(one.container, one.name) for one in endpoint.outbox if isinstance(one, PublishEntry)}
        for key in _blobs_of(endpoint):
            stored, is_told = held.get(key), key not in waiting
            if stored is None or stored < endpoint.generation:
                # It may have been published since the blobs were looked at; a delivery under way will do so.
                stored = self._generation(*key) if is_told else endpoint.generation
                is_astray = stored is None or stored < endpoint.generation
            else:
                is_astray = stored > endpoint.generation or (thorough and is_told and not self._holds(endpoint, *key))
            if is_astray:
                blob = "/".join(key)
                return Astray(endpoint=endpoint.endpoint, blob=blob, called_for=endpoint.generation, stored=stored)
        return None

    def _generation(self, container: BlobContainer, name: str) -> int | None:
        info = self._blobs.info(container, name)
        return generation_of(info) if info else None

    def _holds(self, endpoint: Endpoint, container: BlobContainer, name: str) -> bool:
        """Whether a blob of the endpoint's own generation holds its plan, or a later one that was published since. Of
        what is made from the plan the generation has to do.
        """
        if container is not BlobContainer.ROUTES:
            return True
        try:
            blob = self._blobs.read(container, name, max_bytes=MAX_PLAN_BYTES)
            if blob is None:
                return False
            is_later = generation_of(blob.info) > endpoint.generation
            return is_later or RoutePlan.model_validate_json(blob.data) == endpoint.plan()
        except (InvalidInputError, ValueError):
            return False

    def _reported(self, endpoint: str) -> int | None:
        """The highest generation that pods have applied, by the latest window of each; None where none reports."""
        now = self._clock.now()
        latest: dict[str, tuple[int, str]] = {}
        for prefix in prefixes(endpoint, now - _REPORTED_WITHIN, now + timedelta(minutes=5)):
            for info in self._blobs.list(BlobContainer.TELEMETRY, prefix):
                if place := place_of(info.name):
                    pod, sequence = place
                    latest[pod] = max(latest.get(pod, (-1, "")), (sequence, info.name))
        names = [name for _, name in latest.values()]
        found: list[int] = []
        for start in range(0, len(names), AT_ONCE):
            windows = side_by_side(partial(read_window, self._blobs), names[start : start + AT_ONCE])
            found += [window.generation for window in windows if window and window.endpoint == endpoint]
        return max(found, default=None)


def _lift(endpoint: Endpoint, above: int, now: datetime) -> None:
    """Publish what the endpoint calls for under a generation above one, and wait for the pods anew.

    A stage under way goes on: its time runs, and its counts begin with the new generation, as with any other plan.
    """
    endpoint.generation = max(endpoint.generation, above)
    if endpoint.active:
        endpoint.active.published_at = now
    publish(endpoint)
    # The generations that these wait for were others' in the time that is gone.
    if endpoint.rollback:
        endpoint.rollback = endpoint.rollback.model_copy(update={"generation": endpoint.generation})
    if endpoint.unapplied:
        endpoint.unapplied = endpoint.unapplied.model_copy(update={"generation": endpoint.generation, "at": now})
    if endpoint.ticking:
        # The tick that the document waits for may have been in the queue before, and gone.
        schedule(endpoint, endpoint.ticking, now)


def _routes_key(endpoint: str) -> _Key:
    return BlobContainer.MANIFESTS, manifest_blob_name(endpoint)


def _blobs_of(endpoint: Endpoint) -> list[_Key]:
    """The blobs that the endpoint's plan is published as: what it would publish next says where."""
    rollout = endpoint.rollout.model_copy() if endpoint.rollout else None
    copy = endpoint.model_copy(update={"outbox": [], "rollout": rollout})
    publish(copy)
    return [(entry.container, entry.name) for entry in copy.outbox if isinstance(entry, PublishEntry)]
