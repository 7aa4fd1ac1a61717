"""What the plan has elsewhere is served on as long as it is asked for, in whatever process of the pod; what then comes
all the same is counted, so that the control plane knows that the Gateway has not heard.
"""

import gc
import shutil
import threading
import weakref
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from aks_serving.board import Board
from aks_serving.lingering import HEARD_S, LINGER_S
from aks_serving.reports import Siblings

from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.slotted import (
    BLUE,
    ONE,
    ROWS,
    THREE,
    TWO,
    Time,
    answering,
    candidate,
    dedicated,
    loaded,
    refusal,
    stable,
    why_not_ready,
)

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


@pytest.mark.parametrize("storage_is", ["up", "down"])
async def test_a_pod_that_restarts_while_it_lingers_goes_on(
    start: Start, storage: MemoryStorage, tmp_path: Path, storage_is: str
) -> None:
    """The candidate that ends its process is the very one that is taken back while the Gateway still sends to it."""
    time = Time()
    storage.publish(dedicated(1))

    def pod() -> Any:
        return start(endpoints=("churn",), slot=BLUE, now_s=time, cache=tmp_path / "blue", poll_s=0.05)

    async with pod() as blue:
        assert await loaded(blue) == [2]
        storage.publish(models.plan(2, stable(1, ONE)))
        assert await loaded(blue) == [2]
    # Newer by the time that it is back, and heard of, or not, before the version is loaded.
    storage.publish(models.plan(3, stable(1, ONE)))
    storage.down = storage_is == "down"
    async with pod() as blue:
        await eventually(lambda: bool(blue.server.servings))
        storage.down = False
        assert await loaded(blue) == [2]
        assert await why_not_ready(blue) == ""
        assert await answering(blue) == {(2, "candidate")}
        _look(blue)
        # Its ten minutes begin anew.
        time.now_s += LINGER_S - 1
        _look(blue)
        assert await loaded(blue) == [2]
        time.now_s += 1
        _look(blue)
        assert blue.server.servings["churn"].plan.generation == 3
        await eventually(lambda: b'"generation":3' in (tmp_path / "blue" / "plans" / "churn.json").read_bytes())
    # What it let go it does not take up again.
    async with pod() as blue:
        assert await loaded(blue) == []


async def test_what_cannot_be_loaded_again_after_a_restart_holds_up_no_plan(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, cache=tmp_path / "blue") as blue:
        assert await loaded(blue) == [2]
    shutil.rmtree(tmp_path / "blue" / "artifacts")
    del storage.artifacts[models.digest(TWO)]
    storage.publish(models.plan(2, stable(1, ONE)))
    async with start(endpoints=("churn",), slot=BLUE, cache=tmp_path / "blue") as blue:
        assert await loaded(blue) == []
        assert blue.server.servings["churn"].plan.generation == 2


async def test_the_next_version_of_the_slot_is_not_kept_waiting_by_what_returns(
    start: Start, storage: MemoryStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, cache=tmp_path / "blue") as blue:
        assert await loaded(blue) == [2]
    held = storage.held[models.digest(TWO)] = threading.Event()
    shutil.rmtree(tmp_path / "blue" / "artifacts")
    storage.publish(models.plan(2, stable(1, ONE)))
    async with start(endpoints=("churn",), slot=BLUE, cache=tmp_path / "blue") as blue:
        await blue.server._poller.poll()
        assert dict(blue.server.servings) == {}
        storage.publish(models.plan(3, stable(1, ONE, weight=9_000), candidate(3, THREE, BLUE, 1_000)))
        await blue.server._poller.poll()
        held.set()
        assert await loaded(blue) == [3]
        assert blue.server.servings["churn"].plan.generation == 3
    assert "is refused" not in caplog.text


async def test_of_plans_that_come_while_it_is_loaded_again_the_newest_is_taken_after_it(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, cache=tmp_path / "blue") as blue:
        assert await loaded(blue) == [2]
    held = storage.held[models.digest(TWO)] = threading.Event()
    shutil.rmtree(tmp_path / "blue" / "artifacts")
    async with start(endpoints=("churn",), slot=BLUE, cache=tmp_path / "blue") as blue:
        for generation in (4, 3):
            storage.publish(models.plan(generation, stable(1, ONE)))
            await blue.server._poller.poll()
        held.set()
        assert await loaded(blue) == [2]
        wanted = blue.server._deployments["churn"].wanted
        assert wanted is not None
        assert wanted.generation == 4


async def test_what_never_was_served_in_a_pod_does_not_linger_there(start: Start, storage: MemoryStorage) -> None:
    storage.publish(dedicated(1))
    held = storage.held[models.digest(TWO)] = threading.Event()
    async with start(endpoints=("churn",), slot=BLUE) as blue:
        await blue.server._poller.poll()
        storage.publish(models.plan(2, stable(1, ONE)))
        assert await loaded(blue) == []
        held.set()
        assert await loaded(blue) == []
