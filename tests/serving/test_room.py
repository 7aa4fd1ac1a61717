"""What loading and eviction hold to beside the limit: what comes back, what is looked at again, what is learnt."""

import math
from pathlib import Path

import pytest
from aks_serving.cache import DiskCache
from aks_serving.engine import Engine
from aks_serving.errors import LoadCode, LoadError
from aks_serving.lanes import Lane
from aks_serving.loader import Loader
from aks_serving.memory import Room, Usage

from shared.routing.plan import Role
from tests.serving import models
from tests.serving.conftest import Start
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)
_MIB = 1024 * 1024


async def test_a_plan_that_gives_traffic_brings_back_what_made_room_without_a_reload(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    shadow = models.route(2, TWO, role=Role.SHADOW, weight=0)
    storage.publish(models.plan(1, models.route(1, ONE), shadow))
    async with start() as running:
        await running.reload()
        assert await running.server._deployments.evict_one() is not None
        assert sorted(running.server.servings["churn"].failed) == [2]
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 1_000)))
        # As the server does every few seconds: a reload would forget all failures anyway.
        await running.server._poller.poll()
        (deployment,) = running.server._deployments.planned
        await deployment.settled.wait()
        serving = running.server.servings["churn"]
        assert (serving.plan.generation, sorted(serving.lanes), dict(serving.failed)) == (2, [1, 2], {})


def test_a_version_that_turns_out_larger_than_reckoned_is_not_kept(storage: MemoryStorage, tmp_path: Path) -> None:
    storage.put(ONE)
    taken_mib = [10, 200]

    def used() -> Usage:
        return Usage(private_bytes=(taken_mib.pop(0) if len(taken_mib) > 1 else taken_mib[0]) * _MIB, shared_bytes=0)

    loader = Loader(storage, DiskCache(tmp_path), room=Room(100 * _MIB, used=used))
    with pytest.raises(LoadError, match="with version 1 the limit is exceeded") as caught:
        loader.load("churn", models.route(1, ONE))
    assert caught.value.code is LoadCode.MEMORY


@pytest.mark.parametrize(("limit", "is_downloaded"), [(len(ONE), False), (3 * len(ONE), True)])
def test_a_version_that_would_not_fit_alone_is_not_downloaded(
    storage: MemoryStorage, tmp_path: Path, limit: int, *, is_downloaded: bool
) -> None:
    """One that does not fit beside others is: these may be gone by then."""
    storage.put(ONE)
    cache = DiskCache(tmp_path)
    used = Usage(private_bytes=2 * len(ONE), shared_bytes=0)
    loader = Loader(storage, cache, room=Room(limit, used=lambda: used))
    with pytest.raises(LoadError, match="version 1 takes up to") as caught:
        loader.load("churn", models.route(1, ONE))
    assert caught.value.code is LoadCode.MEMORY
    assert cache.has_artifact(models.digest(ONE)) == is_downloaded


async def test_loading_measures_how_long_runs_take_so_that_the_first_request_need_not(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.put(ONE)
    loaded = Loader(storage, DiskCache(tmp_path)).load("churn", models.route(1, ONE))
    row_bytes = 2 * 4
    assert [size for size, _ in loaded.run_times_s] == [rows * row_bytes for rows in (1, 8, 64)]
    engine = Engine(max_queue=1)
    try:
        # Infinity is what nobody measured, and runs beside the event loop.
        assert 0 < Lane(loaded, engine).times.expected_s(row_bytes) < math.inf
    finally:
        engine.close()
