"""What the plan has elsewhere is served on as long as it is asked for, in whatever process of the pod; what then comes
all the same is counted, so that the control plane knows that the Gateway has not heard.
"""

import gc
import weakref
from collections.abc import Awaitable
from pathlib import Path

import pytest
from aks_serving.board import Board
from aks_serving.lingering import HEARD_S, LINGER_S
from aks_serving.reports import Siblings

from tests.serving import models
from tests.serving.conftest import Running, Start
from tests.serving.fakes import MemoryStorage
from tests.serving.slotted import BLUE, ONE, ROWS, THREE, TWO, Time, dedicated, loaded, refusal, stable

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.put(ONE, TWO, THREE)
    return storage


def _look(running: Running) -> None:
    """Have a server look for what lingered for long enough, as it does twice a second."""
    running.server._deployments.end_lingering()


async def _asked(running: Running) -> int:
    """The status of a request, of which the server then knows."""
    status = (await running.predict(ROWS, model="churn")).status_code
    _look(running)
    return status


async def test_what_is_still_asked_for_is_never_let_go(start: Start, storage: MemoryStorage) -> None:
    """The Gateway may not hear for hours: Flux stands still, or has lost its identity."""
    time = Time()
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, now_s=time) as blue:
        assert await loaded(blue) == [2]
        storage.publish(models.plan(2, stable(1, ONE)))
        assert await loaded(blue) == [2]
        for _ in range(10):
            time.now_s += LINGER_S - 1
            assert await _asked(blue) == 200
            assert await blue.server._deployments.evict_one() is None
        time.now_s += HEARD_S
        _look(blue)
        assert blue.server.servings["churn"].plan.generation == 1
        time.now_s += LINGER_S - HEARD_S
        _look(blue)
        assert blue.server.servings["churn"].plan.generation == 2
        assert await _asked(blue) == 404


async def test_what_is_not_asked_for_makes_room_in_memory_and_says_where_it_is(
    start: Start, storage: MemoryStorage
) -> None:
    time = Time()
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, now_s=time) as blue:
        await blue.reload()
        storage.publish(models.plan(2, stable(1, ONE)))
        await blue.reload()
        assert await _asked(blue) == 200
        time.now_s += HEARD_S - 1
        assert await blue.server._deployments.evict_one() is None
        time.now_s += 1
        memory = weakref.ref(blue.server.servings["churn"].lanes[2])
        assert await blue.server._deployments.evict_one() is not None
        _look(blue)
        await eventually(lambda: gc.collect() >= 0 and memory() is None)
        assert "served by the shared pods" in await refusal(blue)


async def test_what_other_pods_have_is_counted_as_refused_and_told_in_each_window(
    start: Start, storage: MemoryStorage
) -> None:
    time = Time()
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, now_s=time) as blue:
        await blue.reload()
        storage.publish(models.plan(2, stable(1, ONE)))
        await blue.reload()
        time.now_s += LINGER_S
        _look(blue)
        for _ in range(3):
            await refusal(blue)
        await refusal(blue, model_version=1)
        assert "does not exist" in await refusal(blue, model_version=9)
        metrics = (await blue.client.get("/metrics")).text
        assert 'model_requests_refused_total{model="churn",reason="elsewhere"} 4' in metrics
        blue.server._windows.close_all()
    told = [(w.slot, w.generation, w.loaded, w.refused) for w in storage.windows() if w.refused]
    assert told == [(BLUE, 2, [], {"elsewhere": 4})]


async def test_a_process_goes_on_as_long_as_another_of_its_pod_is_asked(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    """With one that has nothing the pod is not ready, and the Gateway's connections may all be to the other."""
    time = Time()
    board = Board(places=2)
    storage.publish(dedicated(1))

    def worker(place: int) -> Awaitable[Running]:
        found: Awaitable[Running] = start(
            pod=f"blue-{place}",
            cache=tmp_path / "blue",
            endpoints=("churn",),
            slot=BLUE,
            now_s=time,
            siblings=Siblings(board, place=place, seat=0),
        )
        return found

    async with worker(0) as busy, worker(1) as idle:  # type: ignore[attr-defined]
        both = (busy, idle)
        for running in both:
            assert await loaded(running) == [2]
        storage.publish(models.plan(2, stable(1, ONE)))
        for running in both:
            assert await loaded(running) == [2]
        for _ in range(3):
            time.now_s += LINGER_S - 1
            assert await _asked(busy) == 200
            busy.server.tell()
            time.now_s += 1
            _look(idle)
            assert idle.server.servings["churn"].plan.generation == 1
            assert await idle.server._deployments.evict_one() is None
        time.now_s += LINGER_S
        for running in both:
            _look(running)
            assert running.server.servings["churn"].plan.generation == 2
