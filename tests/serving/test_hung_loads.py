"""A model that hangs while it is loaded: it fails, others are loaded, and its process is replaced."""

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aks_serving.cache import DiskCache
from aks_serving.loader import Loader, LoadWatch
from aks_serving.memory import Usage, usage
from aks_serving.server import ModelServer
from aks_serving.settings import Settings

from shared.routing.plan import Role, Route, RoutePlan
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = (models.scaler(float(number)) for number in (1, 2, 3))


class _Hang:
    """Stands where a load measures memory, and hangs for the first that comes."""

    def __init__(self) -> None:
        self.ends = threading.Event()
        self.came = 0

    def __call__(self) -> Usage:
        self.came += 1
        if self.came == 1:
            assert self.ends.wait(90)
        return usage()


class _Process:
    def __init__(self, cache: Path, storage: MemoryStorage) -> None:
        self.replaced: list[int] = []
        self._hangs: list[_Hang] = []
        settings = Settings(
            storage_connection="unused", blob_url=None, cache_dir=cache, pod="pod", poll_s=3600.0, window_s=3600.0
        )
        self.server = ModelServer(settings, storage, replace=lambda: self.replaced.append(1), load_hang_s=2.0)

    def hang_next(self) -> _Hang:
        room = self.server._loader._room
        hang = room._used = _Hang()
        room._limit_bytes = 1 << 50
        self._hangs.append(hang)
        return hang

    async def stop(self) -> None:
        for hang in self._hangs:
            hang.ends.set()
        await self.server.stop()

    def loaded(self, endpoint: str) -> list[int]:
        serving = self.server.servings.get(endpoint)
        return sorted(serving.lanes) if serving else []

    def failed(self, version: int) -> str:
        return self.server.servings["churn"].failed.get(version, "")


@asynccontextmanager
async def _process(cache: Path, storage: MemoryStorage) -> AsyncIterator[_Process]:
    process = _Process(cache, storage)
    await process.server.start()
    try:
        yield process
    finally:
        await process.stop()


def _canary(generation: int) -> RoutePlan:
    return models.plan(
        generation, models.route(1, ONE, weight=9_000), models.route(2, TWO, role=Role.CANDIDATE, weight=1_000)
    )


async def test_a_model_that_hangs_while_it_is_loaded_fails_and_others_are_loaded(
    storage: MemoryStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put(ONE, TWO, THREE)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with _process(tmp_path, storage) as first:
        await first.server.reload()
        assert first.loaded("churn") == [1]
        hang = first.hang_next()
        storage.publish(_canary(2))
        await first.server.reload()
        assert first.failed(2).startswith("hangs: it was not made within ")
        assert (first.loaded("churn"), first.replaced) == ([1], [1])
        assert "endpoint churn: loading version 2 hangs, since " in caplog.text
        # The next has its turn, though the thread is still there; what that gives in the end is dropped.
        storage.publish(models.plan(1, models.route(1, THREE), endpoint="fraud"))
        await first.server.reload()
        assert first.loaded("fraud") == [1]
        hang.ends.set()
    async with _process(tmp_path, storage) as second:
        # Its successor does not try again, but under a new generation.
        await second.server.reload()
        await eventually(lambda: second.server.servings["churn"].plan.generation == 2)
        assert second.failed(2).startswith("hangs: ")
        assert second.replaced == []
        storage.publish(_canary(3))
        await second.server.reload()
        assert second.loaded("churn") == [1, 2]


async def test_loads_that_follow_each_other_without_a_pause_do_not_hang_and_one_that_lasts_does(
    storage: MemoryStorage, tmp_path: Path
) -> None:
    loader, found = Loader(storage, DiskCache(tmp_path)), list[Route]()
    watch = LoadWatch(loader, hang_s=0.3, found=lambda route, _: found.append(route))
    for version in range(1, 50):
        loader.making = models.route(version, ONE)
        for _ in range(9):
            await watch.look()
    assert found == []
    lasting = loader.making = models.route(50, ONE)
    for _ in range(30):
        await watch.look()
    assert found == [lasting]
    assert loader.making is None


@pytest.mark.parametrize("slow", ["model", "external data"])
async def test_a_download_that_takes_long_does_not_hang_and_holds_up_no_other_load(
    storage: MemoryStorage, tmp_path: Path, slow: str
) -> None:
    table = models.numbers(1, 2, 3)
    model = models.lookup(("table", 0, len(table)))
    storage.put(ONE, model, table)
    held = storage.held[models.digest(model if slow == "model" else table)] = threading.Event()
    loader, found = Loader(storage, DiskCache(tmp_path)), list[Route]()
    watch = LoadWatch(loader, hang_s=0.3, found=lambda route, _: found.append(route))
    route = models.route(2, model, external={"table": table})
    with ThreadPoolExecutor() as threads:
        loading = threads.submit(loader.load, "churn", route)
        try:
            await eventually(lambda: storage.artifact_reads == (1 if slow == "model" else 2))
            for _ in range(30):
                await watch.look()
            other = threads.submit(loader.load, "fraud", models.route(1, ONE))
            assert (await asyncio.wait_for(asyncio.wrap_future(other), 20)).model.version == 1
            assert found == []
            assert not loading.done()
        finally:
            held.set()
        assert (await asyncio.wrap_future(loading)).model.version == 2
