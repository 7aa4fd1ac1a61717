"""Events of drops that are lost, doubled and shuffled, on two workers at once: each drop is registered once."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from shared.core.messages import RegisterDrop
from shared.registration.documents import DropState
from shared.registration.service import RegistrationService
from shared.registry.documents import Model, ModelVersion
from shared.store.ports import BlobContainer
from tests.world.fakes import Fuse
from tests.world.test_registration import FILES, WHOLE, manifest, registry_of
from tests.world.world import GRACE, World

LOST = 0.3
COPIES = 10
MODELS = 20


@dataclass
class Interrupting(Fuse):
    """Has another worker act before a port call, at random: its calls come between this one's."""

    rng: random.Random = field(default_factory=lambda: random.Random(0))
    share: float = 0.0
    others: Iterator[Callable[[], object]] = field(default_factory=lambda: iter(()))
    acting: bool = False

    def before_call(self) -> None:
        """Let the other worker act if it is time, and not while it does."""
        if not self.acting and self.rng.random() < self.share:
            self.acting = True
            try:
                next(self.others, lambda: None)()
            finally:
                self.acting = False
        super().before_call()


def drop_many(world: World, count: int) -> tuple[list[str], set[str]]:
    """Drop files, bundles and folders of different content; every blob that was put, and the drops."""
    blobs: list[str] = []
    drops: set[str] = set()
    for number in range(count):
        model = f"model-{number % MODELS}"
        if number % 5:
            name = f"{model}/{number}.{'zip' if number % 5 == 1 else 'onnx'}"
            put = {name: str(number).encode()}
            drops.add(name)
        else:
            files = FILES | {"model.onnx": str(number).encode()}
            put = {f"{model}/{number}/{file}": data for file, data in files.items()}
            put |= {f"{model}/{number}/slipway.yaml": manifest(files)}
            drops.add(f"{model}/{number}/")
        for name, data in put.items():
            world.blobs.put(BlobContainer.INCOMING, name, data, {})
            blobs.append(name)
    return blobs, drops


def states(world: World) -> dict[str, DropState]:
    """The drops that have a document."""
    return {
        str(document.body["blob"]): DropState(document.body["state"])
        for document in world.documents.held.values()
        if document.body.get("kind") == "drop"
    }


@pytest.mark.parametrize("count", [150, pytest.param(1_000, marks=pytest.mark.long)])
def test_of_drops_of_which_every_third_event_was_lost_one_sweep_leaves_none_unregistered(count: int) -> None:
    rng = random.Random(2)
    world = World()
    workers = [world.registration, registry_of(world)]
    blobs, drops = drop_many(world, count)
    kept = [blob for blob in blobs if rng.random() >= LOST]
    deliver(world, workers, kept, rng)
    before = states(world)
    registered = sum(state is DropState.REGISTERED for state in before.values())
    assert 0.6 * count < registered < 0.9 * count
    world.clock.pass_s(GRACE.total_seconds() + 1)
    world.queues.messages.clear()
    sent = list(world.registration.missed_drops(GRACE))
    assert len(sent) == len(set(sent)) == count - registered
    deliver(world, workers, [message.blob for message in sent], rng)
    after = states(world)
    assert after.keys() == drops
    assert set(after.values()) == {DropState.REGISTERED}
    world.clock.pass_s(GRACE.total_seconds() + 1)
    assert list(world.registration.missed_drops(GRACE)) == []
    assert_one_version_each(world, count)


def deliver(world: World, workers: list[RegistrationService], blobs: list[str], rng: random.Random) -> None:
    """Each event ten times, shuffled, to two workers, each of which now and then acts amid the other's work."""
    first, second = workers
    due = blobs * COPIES
    rng.shuffle(due)
    waiting = iter(due)
    others = (lambda blob=blob: second.register(blob) for blob in waiting)
    fuse = Interrupting(rng=rng, share=0.02, others=others)
    world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
    for blob in waiting:
        first.register(blob)
    world.documents.fuse = world.blobs.fuse = world.queues.fuse = Fuse()


def assert_one_version_each(world: World, count: int) -> None:
    """Every drop has one version of its own, numbered without a gap, and one event that says so."""
    bodies = [document.body for document in world.documents.held.values()]
    versions = [ModelVersion.from_body(body) for body in bodies if body.get("kind") == "version"]
    models = [Model.from_body(body) for body in bodies if body.get("kind") == "model"]
    assert len(versions) == len({version.digest for version in versions}) == count
    for model in models:
        numbers = sorted(version.version for version in versions if version.model == model.model)
        assert numbers == list(range(1, len(numbers) + 1)) == sorted(model.versions.values())
    registered = [body for body in bodies if body.get("kind") in {"version_registered", "drop_registered"}]
    assert len(registered) == 2 * count
    assert world.audit.verify().verified


@pytest.mark.parametrize("form", ["file", "folder"])
def test_a_second_worker_that_comes_between_any_two_steps_of_the_first_changes_nothing(form: str) -> None:
    files = {"one.onnx": b"one"} if form == "file" else {f"one/{name}": data for name, data in WHOLE.items()}
    event = "digits/" + next(iter(files))

    def run(at: int | None) -> tuple[World, int]:
        world = World()
        for name, data in files.items():
            world.blobs.put(BlobContainer.INCOMING, f"digits/{name}", data, {})
        second = registry_of(world)
        fuse = At(at=at, act=lambda: second.register(event))
        world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
        world.registration.register(event)
        return world, fuse.calls

    _, calls = run(None)
    for at in range(1, calls + 1):
        world, _ = run(at)
        (drop,) = world.registration.drops("digits").items
        assert (drop.state, drop.version) == (DropState.REGISTERED, 1), at
        assert_one_version_each(world, 1)


@dataclass
class At(Fuse):
    """Has something done before one numbered port call."""

    act: Callable[[], object] = lambda: None

    def before_call(self) -> None:
        """Act if it is time."""
        self.calls += 1
        if self.calls == self.at:
            self.act()


def test_queue_messages_that_are_lost_are_asked_for_again_until_all_drops_are_registered() -> None:
    rng = random.Random(3)
    world = World()
    _, drops = drop_many(world, 100)
    sweeps = 0
    while states(world) != dict.fromkeys(drops, DropState.REGISTERED):
        world.clock.pass_s(GRACE.total_seconds() + 1)
        sweeps += 1
        assert sweeps < 20
        for message in world.registration.missed_drops(GRACE):
            if rng.random() >= LOST:
                world.registration.register(RegisterDrop(blob=message.blob).blob)
    assert sweeps > 1
    assert_one_version_each(world, 100)
