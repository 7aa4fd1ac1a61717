"""One drop is one trace, whatever is lost, comes twice, or dies on the way."""

import json
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from shared.core import tracing
from shared.core.ids import VersionNumber
from shared.core.messages import Queue
from shared.core.tracing import TRACEPARENT, TraceContext, unstamped
from shared.registry.policy import ServingPolicy
from shared.routing.plan import RoutePlan, SubjectSource, plan_blob_name
from shared.store.ports import BlobContainer
from tests.unit.functions.test_tracing import Spans
from tests.world.strategies import policy
from tests.world.world import ENDPOINT, MODEL, World


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    tracing.install(Spans())
    yield
    tracing.install(tracing.IDS_ALONE)


class Traced(World):
    """A world whose messages are handled as functions handle them: in the trace that each carries."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[str, int | str], set[str]] = defaultdict(set)
        """The traces in which each thing was handled."""
        self.bodies: list[str] = []

    def handle(self, queue: str, body: str) -> None:
        self.bodies.append(body)
        message = json.loads(body)
        with tracing.span(queue, parent=TraceContext.parse(message.get(TRACEPARENT))) as span:
            about = message.get("version") or message.get("rollout_id") or message.get("blob") or ""
            self.seen[queue, about].add(span.context.trace_id)
            super().handle(queue, json.dumps(unstamped(message)))


def traces(world: World, number: int) -> set[str]:
    """The traces of a version, its rollout and the plan in force."""
    version = world.registry.version(MODEL, VersionNumber(number))
    rollout = world.endpoint().rollout
    blob = world.blobs.read(BlobContainer.ROUTES, plan_blob_name(ENDPOINT), max_bytes=10**6)
    assert rollout is not None
    assert blob is not None
    found = (version.trace, rollout.trace, RoutePlan.model_validate_json(blob.data).trace)
    contexts = [TraceContext.parse(text) for text in found]
    assert all(contexts), found
    return {context.trace_id for context in contexts if context}


@pytest.mark.parametrize("seed", range(2))
def test_a_drop_is_one_trace_to_its_plan_though_messages_are_lost_and_doubled_and_processes_die(seed: int) -> None:
    rng = random.Random(seed)
    world = Traced()
    world.put_policy(policy(automatic=True))
    found = []
    for number in (1, 2):
        world.event(world.drop(f"content {number}", name=f"{number}.onnx"))
        world.queues.loses = lambda: rng.random() < 0.2
        for _ in range(3):
            world.fuse.at = world.fuse.calls + rng.randrange(5, 60)
            world.run(seconds=60, copies=2, rng=rng)
        world.fuse.at = None
        world.queues.loses = lambda: False
        world.run(seconds=200, copies=2, rng=rng)
        assert world.stable == number
        (trace,) = traces(world, number)
        found.append(trace)
        rollout = world.endpoint().rollout
        assert rollout is not None
        assert world.seen[Queue.ROLLOUT_TICKS, rollout.rollout_id] == {trace}
    assert len(set(found)) == 2


def test_what_the_sweep_has_done_again_is_done_in_the_versions_trace() -> None:
    world = Traced()
    world.put_policy(policy(automatic=True))
    world.queues.loses = lambda: True
    for number in (1, 2):
        with tracing.span("register"):
            world.registration.register(world.drop(f"content {number}", name=f"{number}.onnx"))
    world.queues.loses = lambda: False
    with tracing.span("timer sweep"):
        world.clock.pass_s(3_600)
        world.sweep.sweep()
    world.run(seconds=5)
    for number in (1, 2):
        version = TraceContext.parse(world.registry.version(MODEL, VersionNumber(number)).trace)
        assert version is not None
        assert world.seen[Queue.VALIDATIONS, number] == {version.trace_id}


def test_drops_whose_events_were_lost_are_traces_of_their_own() -> None:
    world = Traced()
    for number in (1, 2):
        world.drop(f"content {number}", name=f"{number}.onnx")
    world.clock.pass_s(3_600)
    with tracing.span("timer sweep"):
        world.sweep.sweep()
    world.run(seconds=5)
    first, second = (world.registry.version(MODEL, VersionNumber(number)).trace for number in (1, 2))
    assert first is not None
    assert second is not None
    assert first[:35] != second[:35]


def test_where_nobody_collects_spans_nothing_that_an_older_release_refuses_is_sent_or_stored() -> None:
    tracing.install(tracing.IDS_ALONE)
    world = Traced()
    world.put_policy(policy(automatic=True))
    world.event(world.drop("content"))
    world.run(seconds=200)
    assert world.stable == 1
    assert len(world.bodies) > 3
    assert all(TRACEPARENT not in body for body in world.bodies)
    assert world.registry.version(MODEL, VersionNumber(1)).trace is None
    blob = world.blobs.read(BlobContainer.ROUTES, plan_blob_name(ENDPOINT), max_bytes=10**6)
    assert blob is not None
    body = json.loads(blob.data)
    assert "trace" not in body
    assert all("profile_digest" not in route for route in body["routes"])
    assert RoutePlan.model_validate(body) == world.endpoint().plan()


def test_a_none_that_says_something_stays_in_a_plan() -> None:
    world = World()
    serving = ServingPolicy(subject=SubjectSource(header=None))
    world.put_policy(policy(automatic=True).model_copy(update={"serving": serving}))
    world.event(world.drop("content"))
    world.run(seconds=200)
    blob = world.blobs.read(BlobContainer.ROUTES, plan_blob_name(ENDPOINT), max_bytes=10**6)
    assert blob is not None
    assert json.loads(blob.data)["subject"]["header"] is None
    assert RoutePlan.model_validate_json(blob.data) == world.endpoint().plan()


def test_outside_any_trace_nothing_is_stamped() -> None:
    world = World()
    world.put_policy(policy(automatic=True))
    world.registration.register(world.drop("content"))
    assert all(TRACEPARENT not in json.loads(body) for _, _, body in world.queues.messages)
    assert world.registry.version(MODEL, VersionNumber(1)).trace is None
