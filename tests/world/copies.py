"""Copies of a world, for tests that begin at the same state many times."""

import itertools

from tests.world.world import World


def copy_of(prepared: World) -> World:
    """A world of its own that holds what the other holds, its messages too."""
    world = World()
    world.clock.time = prepared.clock.time
    world.documents.held, world.blobs.held = dict(prepared.documents.held), dict(prepared.blobs.held)
    # ETags go on where no ETag of the other was.
    world.documents.etags = world.blobs.etags = itertools.count(100_000)
    world.queues.messages = list(prepared.queues.messages)
    return world
