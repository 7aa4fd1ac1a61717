"""Loading and saving aggregates: every save is one conditional write, followed by the delivery of the outbox."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from shared.core.errors import (
    AlreadyExistsError,
    ChangedMeanwhileError,
    NotFoundError,
    SlipwayError,
    UnavailableError,
)
from shared.store.aggregate import Aggregate
from shared.store.outbox import Outbox
from shared.store.ports import PARTITION_KEY, DocumentStore, Page
from shared.store.unreadable import Unreadable, leaving_out, named, naming, read_or_left_out

_ATTEMPTS = 20

_log = logging.getLogger(__name__)


class Loaded[A: Aggregate](NamedTuple):
    """An aggregate, and the ETag of the state that it was read from."""

    aggregate: A
    etag: str


class AggregatePage[A: Aggregate](NamedTuple):
    """A page of aggregates; `continuation` is None on the last page. Those that cannot be read are told apart."""

    items: list[A]
    continuation: str | None
    unreadable: Sequence[Unreadable] = ()


class Repository[A: Aggregate]:
    """The aggregates of one type. Safe to share between threads."""

    def __init__(self, kind: type[A], documents: DocumentStore, outbox: Outbox) -> None:
        self._kind = kind
        self._documents = documents
        self._outbox = outbox

    def find(self, partition: str, document_id: str) -> A | None:
        """The aggregate as it stands, or None; so also for the id of a document of another kind."""
        loaded = self._load(partition, document_id)
        return loaded.aggregate if loaded else None

    def create(self, aggregate: A) -> A:
        """Store a new aggregate and deliver its outbox. Raises AlreadyExistsError."""
        aggregate.stamp(self._outbox.now())
        stored = self._documents.create(self._kind.container, aggregate.to_body())
        return self._deliver(Loaded(aggregate, stored.etag))

    def find_or_create(self, aggregate: A) -> A:
        """The stored aggregate with this one's id, which becomes this one where there is none."""
        try:
            return self.create(aggregate)
        except AlreadyExistsError:
            found = self.find(aggregate.partition, aggregate.id)
            if found is None:
                raise
            return found

    def change(self, partition: str, document_id: str, decide: Callable[[A], bool]) -> A:
        """Load, let `decide` change the aggregate, save, deliver the outbox; return what then stands.

        `decide` answers whether anything is to be saved; it runs again on a fresh copy when another writer was first,
        and what it raises passes through with nothing saved. What an earlier change left in the outbox is delivered in
        any case. Raises NotFoundError; ChangedMeanwhileError when other writers were first too many times.
        """
        for _ in range(_ATTEMPTS):
            loaded = self._load(partition, document_id)
            if loaded is None:
                raise NotFoundError(f"{document_id} of {partition}")
            if not decide(loaded.aggregate):
                return self._deliver(loaded)
            loaded.aggregate.stamp(self._outbox.now())
            try:
                stored = self._documents.replace(self._kind.container, loaded.aggregate.to_body(), etag=loaded.etag)
            except ChangedMeanwhileError:
                continue
            return self._deliver(Loaded(loaded.aggregate, stored.etag))
        raise ChangedMeanwhileError(f"{document_id} of {partition}")

    def deliver_outboxes(self) -> int:
        """Deliver every outbox that waits. Returns how many there were.

        One that cannot be delivered keeps no other waiting; the first such failure is raised at the end.
        """
        count, failures = 0, []
        for waiting in list(self.readable(outbox_pending=True)):
            count += 1
            loaded = self._load(waiting.partition, waiting.id)
            if loaded:
                failures += self._deliver_all(loaded)[1]
        if failures:
            raise failures[0]
        return count

    def where(self, *, partition: str | None = None, **fields: str | int | bool) -> Iterator[A]:
        """The aggregates of this type with these values in their top-level fields."""
        continuation = None
        while True:
            page = self._query(partition, continuation, fields)
            yield from (self._read(stored.body) for stored in page.items)
            if page.continuation is None:
                return
            continuation = page.continuation

    def readable(
        self,
        *,
        partition: str | None = None,
        left_out: set[str] | None = None,
        unreadable: list[Unreadable] | None = None,
        **fields: str | int | bool,
    ) -> Iterator[A]:
        """As `where`, for who goes over all of them: one that cannot be read is logged, and stops nobody.

        It is added to `unreadable`, and its partition to `left_out`.
        """
        continuation = None
        while True:
            page = self._query(partition, continuation, fields)
            for body in (stored.body for stored in page.items):
                what = named(self._kind.container, body)
                aggregate = read_or_left_out(what, partial(self._kind.from_body, body), unreadable)
                if aggregate is not None:
                    yield aggregate
                elif left_out is not None:
                    left_out.add(str(body[PARTITION_KEY[self._kind.container]]))
            if page.continuation is None:
                return
            continuation = page.continuation

    def page(
        self, *, partition: str | None = None, continuation: str | None = None, **fields: str | int | bool
    ) -> AggregatePage[A]:
        """A page of those that can be read. Raises InvalidInputError for a continuation that no page gave."""
        page = self._query(partition, continuation, fields)
        items, unreadable = list[A](), list[Unreadable]()
        for stored in page.items:
            with leaving_out(named(self._kind.container, stored.body), unreadable):
                items.append(self._kind.from_body(stored.body))
        return AggregatePage(items, page.continuation, unreadable)

    def _query(self, partition: str | None, continuation: str | None, fields: Mapping[str, str | int | bool]) -> Page:
        where = {"kind": self._kind.model_fields["kind"].default, **fields}
        return self._documents.query(self._kind.container, partition=partition, where=where, continuation=continuation)

    def _load(self, partition: str, document_id: str) -> Loaded[A] | None:
        stored = self._documents.get(self._kind.container, partition, document_id)
        # Several kinds share a partition, and people give ids.
        if stored is None or stored.body.get("kind") != self._kind.model_fields["kind"].default:
            return None
        return Loaded(self._read(stored.body), stored.etag)

    def _read(self, body: Mapping[str, Any]) -> A:
        with naming(named(self._kind.container, body)):
            return self._kind.from_body(body)

    def _deliver(self, loaded: Loaded[A]) -> A:
        """Deliver what can be delivered now; the rest waits for the sweep, and the change itself stands."""
        return self._deliver_all(loaded)[0]

    def _deliver_all(self, loaded: Loaded[A]) -> tuple[A, list[SlipwayError]]:
        """Deliver each entry, strike out those that went, and tell what failed. No entry waits for another."""
        delivered: set[int] = set()
        failures: dict[int, SlipwayError] = {}
        current: Loaded[A] | None = loaded
        while current:
            aggregate = current.aggregate
            for entry in aggregate.outbox:
                if entry.number not in delivered and entry.number not in failures:
                    try:
                        self._outbox.deliver(entry)
                        delivered.add(entry.number)
                    except SlipwayError as error:
                        _log.warning("%s: outbox entry %d waits: %s", aggregate.stream, entry.number, error)
                        failures[entry.number] = error
            if not any(entry.number in delivered for entry in aggregate.outbox):
                break
            aggregate.strike(delivered)
            try:
                self._documents.replace(self._kind.container, aggregate.to_body(), etag=current.etag)
                break
            except ChangedMeanwhileError:
                current = self._load(aggregate.partition, aggregate.id)
            except UnavailableError as error:
                # What went out goes out again some time, which does no harm.
                _log.warning("%s: the outbox is struck out later: %s", aggregate.stream, error)
                break
        return (current or loaded).aggregate, list(failures.values())
