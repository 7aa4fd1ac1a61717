"""Verification of the audit log: beside running work, with foreign documents, and no further than was asked."""

from collections.abc import Callable
from typing import Any

import pytest

from shared.audit.chain import Problem
from shared.audit.service import AuditService
from shared.core.errors import IntegrityError, NotFoundError
from shared.registration.documents import Drop
from shared.registry.aliases import Alias
from shared.registry.documents import Model, ModelVersion
from shared.rollout.endpoint import Endpoint
from shared.store.aggregate import Aggregate
from shared.store.ports import BlobContainer, Container, Page
from tests.world.fakes import FakeDocuments
from tests.world.world import MODEL, World

STREAM = f"endpoint:{MODEL}"
KINDS: dict[str, type[Aggregate]] = {
    "model": Model,
    "version": ModelVersion,
    "drop": Drop,
    "endpoint": Endpoint,
    "alias": Alias,
}


class Watched(FakeDocuments):
    """The documents of a world, watched: what is queried, and what others do just before a numbered query."""

    def __init__(self, world: World) -> None:
        super().__init__(world.fuse, world.documents.held)
        self.queries: list[tuple[Container, str | None]] = []
        self.before: dict[int, Callable[[], object]] = {}

    def query(self, container: Container, **arguments: Any) -> Page:
        self.queries.append((container, arguments["partition"]))
        self.before.pop(len(self.queries), lambda: None)()
        return super().query(container, **arguments)


def worked() -> World:
    """A world with a version that serves."""
    world = World()
    world.event(world.drop("one"))
    world.run(seconds=30)
    return world


def foreign(world: World, stream: str = STREAM, document_id: str = "zzz") -> None:
    """Put a document that is no event into the audit container."""
    world.documents.create(Container.AUDIT, {"id": document_id, "stream": stream, "x": 1})


def test_a_registration_at_any_moment_of_a_verification_is_no_problem() -> None:
    world = worked()
    watched = Watched(world)
    assert AuditService(watched, KINDS).verify().verified
    for at in range(1, len(watched.queries) + 1):
        world = worked()
        watched = Watched(world)

        def register(world: World = world) -> None:
            world.blobs.put(BlobContainer.INCOMING, f"{MODEL}/other.onnx", b"two", {})
            world.registration.register(f"{MODEL}/other.onnx")

        watched.before[at] = register
        assert AuditService(watched, KINDS).verify().problems == [], at
        assert not watched.before, "it has happened"


def test_a_registration_that_begins_while_its_own_stream_is_verified_is_no_problem() -> None:
    world = World()
    watched = Watched(world)
    watched.before[2] = lambda: world.registration.register(world.drop("one"))
    assert AuditService(watched, KINDS).verify(f"model:{MODEL}").problems == []


def test_a_foreign_document_is_a_problem_and_the_rest_is_verified() -> None:
    world = worked()
    before = world.audit.verify()
    foreign(world)
    found = world.audit.verify()
    (problem,) = found.problems
    assert (found.verified, found.events, found.streams) == (False, before.events, before.streams)
    assert (problem.stream, problem.seq) == (STREAM, 0)
    assert "the document 'zzz' is not an event" in problem.problem
    assert world.audit.verify(STREAM).problems == found.problems
    with pytest.raises(IntegrityError, match="'zzz' is not an event"):
        world.audit.events(STREAM)


def test_a_damaged_event_is_named_by_its_number_and_what_follows_is_verified_too() -> None:
    world = worked()
    world.event(world.drop("two"))
    world.run(seconds=10)
    key = (Container.AUDIT, STREAM, "0000000001")
    stored = world.documents.held[key]
    assert (Container.AUDIT, STREAM, "0000000002") in world.documents.held
    world.documents.replace(Container.AUDIT, {**stored.body, "at": "noon"}, etag=stored.etag)
    found = world.audit.verify(STREAM)
    assert [problem.seq for problem in found.problems] == [1, 2, 2]
    assert "'0000000001' is not an event: at: " in found.problems[0].problem
    assert found.problems[1].problem == "it follows event 0"


@pytest.mark.parametrize("stream", ["model:nobody", "version:digits:7", "drop:nothing", "endpoint:nobody", "x", "x:y"])
def test_a_stream_without_a_subject_is_a_problem(stream: str) -> None:
    world = worked()
    with pytest.raises(NotFoundError):
        world.audit.verify(stream)
    foreign(world, stream, "0000000001")
    orphan = [Problem(stream=stream, seq=0, problem="its subject does not exist")]
    assert world.audit.verify(stream).problems == orphan
    assert world.audit.verify().problems == orphan
    assert world.audit.verify().streams == len({key[1] for key in world.documents.held if key[0] is Container.AUDIT})


def test_events_that_still_wait_in_an_outbox_are_part_of_their_stream() -> None:
    world = World()
    model = Model(model=MODEL)
    model.record("policy_set", world.clock.now(), by="test")
    model.record("policy_set", world.clock.now(), by="somebody")
    world.documents.create(Container.MODELS, model.to_body())
    found = world.audit.verify(model.stream)
    assert (found.problems, found.events, found.streams) == ([], 2, 1)
    assert world.audit.verify() == found


def test_an_event_that_is_neither_delivered_nor_waiting_is_missed() -> None:
    world = World()
    model = Model(model=MODEL)
    model.record("policy_set", world.clock.now(), by="test")
    model.strike({entry.number for entry in model.outbox})
    world.documents.create(Container.MODELS, model.to_body())
    (problem,) = world.audit.verify(model.stream).problems
    assert problem.problem == "the stream ends here, its subject stands at event 1"


@pytest.mark.parametrize("kind", ["model", "version", "endpoint"])
def test_one_streams_verification_reads_its_partitions_alone(kind: str) -> None:
    world = worked()
    stream = {"model": f"model:{MODEL}", "version": f"version:{MODEL}:1", "endpoint": STREAM}[kind]
    watched = Watched(world)
    found = AuditService(watched, KINDS).verify(stream)
    assert (found.verified, found.streams, found.events) == (True, 1, len(world.audit.events(stream)))
    assert set(watched.queries) == {(Container.AUDIT, stream), (KINDS[kind].container, MODEL)}


def test_a_drops_verification_reads_no_other_stream_and_no_endpoint() -> None:
    world = worked()
    (drop,) = world.registration.drops(MODEL).items
    watched = Watched(world)
    found = AuditService(watched, KINDS).verify(drop.stream)
    assert (found.verified, found.streams, found.events) == (True, 1, len(world.audit.events(drop.stream)))
    assert set(watched.queries) == {(Container.AUDIT, drop.stream), (Container.MODELS, None)}
