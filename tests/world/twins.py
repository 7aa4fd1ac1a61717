"""A second world in which everything stands as in the first: what many tests begin with is lived through once."""

import itertools
from dataclasses import replace

from tests.world.world import World

_ETAGS_FROM = 1_000_000


def twin(world: World) -> World:
    """Another world in which everything stands as in this one. What happens in one is nothing to the other."""
    other = World(sinks=tuple(world.sinks), alert_settings=world.alert_settings)
    other.clock.time = world.clock.time
    other.documents.held, other.documents.etags = dict(world.documents.held), itertools.count(_ETAGS_FROM)
    other.blobs.held, other.blobs.etags = dict(world.blobs.held), itertools.count(_ETAGS_FROM)
    other.queues.messages = list(world.queues.messages)
    other.pod = replace(world.pod, errors=dict(world.pod.errors), unloadable=dict(world.pod.unloadable))
    return other
