"""Two operations at once, as two hosts do them: one, and before each of its port calls in turn all of the other.

What comes of it must be what would have come of one after the other.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from shared.core.errors import SlipwayError
from tests.world.fakes import FakeBlobs, FakeClock, FakeDocuments, FakeQueues, Fuse

LATER_S = 1.0
"""How long after the one the other begins."""


class Ports(Protocol):
    """What both work on."""

    clock: FakeClock
    documents: FakeDocuments
    blobs: FakeBlobs
    queues: FakeQueues


@dataclass
class Meanwhile(Fuse):
    """A fuse that has something else done before a numbered port call."""

    other: Callable[[], object] = lambda: None
    is_done: bool = False

    def before_call(self) -> None:
        """Do it here if it is time."""
        self.calls += 1
        if self.calls == self.at:
            self.is_done, self.at = True, None
            self.other()


def interleaved[P: Ports](
    world_of: Callable[[], P], one: Callable[[P], object], other: Callable[[P], object]
) -> Iterator[P]:
    """A world for each port call of `one`, before which `other` was done. Either may be refused."""
    for at in range(1, 1_000):
        world = world_of()
        meanwhile = Meanwhile(at=at, other=partial(_later, world, other))
        _use(world, meanwhile)
        _do(world, one)
        _use(world, Fuse())
        if not meanwhile.is_done:
            assert at > 1, "it calls no port"
            return
        yield world
    raise AssertionError("it calls ports without end")


def _later[P: Ports](world: P, other: Callable[[P], object]) -> None:
    world.clock.pass_s(LATER_S)
    _do(world, other)


def _do[P: Ports](world: P, what: Callable[[P], object]) -> None:
    # Whoever is refused is told so, or tries again.
    with suppress(SlipwayError):
        what(world)


def _use(world: Ports, fuse: Fuse) -> None:
    world.documents.fuse = world.blobs.fuse = world.queues.fuse = fuse
