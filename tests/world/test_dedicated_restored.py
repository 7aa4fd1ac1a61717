"""Versions in pods of their own, after documents went back in time: the Gateway is told anew where requests go."""

import pytest

from shared.alerts.documents import Alert
from shared.core.slots import Slot
from shared.rollout.endpoint import Endpoint
from shared.rollout.publishing import publish
from tests.world.strategies import change, published, start
from tests.world.test_dedicated import LAG_S, SHARED, dedicated, heard, manifest, placed
from tests.world.test_stored_plans import Keeping, look, republish, restored
from tests.world.twins import twin
from tests.world.world import Pod, World


@pytest.fixture(scope="module")
def once_forgotten() -> World:
    world = dedicated()
    keep(world)
    world.run(seconds=3)
    before = dict(world.documents.held)
    placed(world, 2)
    restored(world, before)
    return world


@pytest.fixture
def forgotten(once_forgotten: World) -> World:
    """A world whose Gateway sends all to blue, and whose documents are as of when the shared pods had version 1."""
    world = twin(once_forgotten)
    world.pod.plan, world.others = once_forgotten.pod.plan, once_forgotten.others
    keep(world)
    world.gateway.lag_s = LAG_S
    world.run(seconds=LAG_S + 2)
    assert world.gateway.shares(world.clock.now())[Slot.BLUE] == 10_000
    assert not world.endpoint().is_gated
    return world


def keep(world: World) -> None:
    """Have pods that take no plan that is not above their own."""

    def keeping(pod: Pod) -> Pod:
        return Keeping(name=pod.name, slot=pod.slot, sequence=pod.sequence, plan=pod.plan)

    world.pod, world.others = keeping(world.pod), [keeping(pod) for pod in world.others]


def of_gateway(found: list[Alert]) -> list[str]:
    return [alert.sentence for alert in found if alert.sentence.startswith("manifests/")]


def test_a_republish_tells_a_gateway_that_the_document_knows_nothing_of(forgotten: World) -> None:
    world = forgotten
    assert len(of_gateway(look(world))) == 1
    assert republish(world).published
    manifest(world)
    assert look(world) == []
    heard(world)
    # Pods go on for ten minutes with what they had: nobody must be sent to them by then.
    world.clock.pass_s(700)
    world.run(seconds=5)
    assert world.gateway.shares(world.clock.now()) == {SHARED: 10_000, Slot.BLUE: 0, Slot.GREEN: 0}
    assert [(route.version, route.slot) for route in published(world).routes] == [(1, SHARED)]
    assert world.gateway.failed == []
    assert not republish(world).published


def test_a_gateway_is_told_where_the_endpoint_s_plans_are_in_force_again(forgotten: World) -> None:
    world = forgotten

    def count_on(endpoint: Endpoint) -> None:
        endpoint.generation += 100
        publish(endpoint)

    change(world, count_on)
    assert [(route.version, route.slot) for route in published(world).routes] == [(1, SHARED)]
    assert len(of_gateway(look(world))) == 1
    assert republish(world).published
    manifest(world)
    assert look(world) == []


def test_an_endpoint_that_never_had_pods_of_its_own_is_told_of_to_no_gateway() -> None:
    world = dedicated(lag_s=0)
    keep(world)
    world.run(seconds=2)
    assert not republish(world).published
    assert look(world) == []
    start(world, 2)
    assert look(world) == []
