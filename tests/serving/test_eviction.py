"""Shadows make room in memory for other versions, and those that have traffic, or may get it, never do."""

import gc
import math
import resource
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aks_serving.errors import LoadCode, LoadError
from aks_serving.memory import Room, Usage, give_back, group_limit, usage
from onnx import helper

from shared.routing.plan import Role, Route
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio
_MIB = 1024 * 1024


def _wide(megabytes: int, seed: int = 0) -> bytes:
    """A model of so many megabytes of weights, which needs little else to run."""
    rng = np.random.default_rng(seed)
    side = math.isqrt(megabytes * _MIB // 4)
    return models.graph(
        [
            helper.make_node("MatMul", ["x", "u"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["g"]),
            helper.make_node("MatMul", ["g", "v"], ["y"]),
        ],
        [("x", models.FLOAT, ["n", 64])],
        [("y", models.FLOAT, ["n", 1])],
        {
            "u": np.ones((64, side), np.float32),
            "w": rng.random((side, side), np.float32),
            "v": np.ones((side, 1), np.float32),
        },
    )


def _shadow(version: int, data: bytes) -> Route:
    return models.route(version, data, role=Role.SHADOW, weight=0)


def _candidate(version: int, data: bytes, weight: int = 0) -> Route:
    return models.route(version, data, role=Role.CANDIDATE, weight=weight)


@contextmanager
def _limited(running: Running, *, left_mib: int) -> Iterator[None]:
    """Leave the server so much memory beyond what it takes now."""
    room = running.server._loader._room
    gc.collect()  # the servers of tests before, which must not make room in this one
    give_back()
    used = usage()
    room._limit_bytes = int((used.private_bytes + used.shared_bytes + left_mib * _MIB) / 0.95)
    yield
    room._limit_bytes = None


async def test_what_has_no_traffic_makes_room_and_comes_back_when_a_plan_gives_it_traffic(
    start: Start, storage: MemoryStorage
) -> None:
    # What makes room is so much larger that what a fetch still holds of memory does not matter.
    old, idle, new = _wide(40, 0), _wide(100, 1), _wide(40, 2)
    storage.put(old, idle, new)
    storage.publish(models.plan(1, models.route(1, old), _shadow(2, idle)))
    async with start() as running:
        await running.reload()
        with _limited(running, left_mib=110):
            storage.publish(models.plan(1, models.route(1, new), endpoint="fraud"))
            state = (await running.reload())["endpoints"]
            assert (state["churn"]["loaded"], state["fraud"]["loaded"]) == ([1, 2], [1])
            storage.publish(models.plan(2, models.route(1, new), _shadow(3, old), endpoint="fraud"))
            state = (await running.reload())["endpoints"]
            assert state["churn"]["loaded"] == [1]
            assert "made room" in state["churn"]["failed"]["2"]
            assert state["fraud"]["loaded"] == [1, 3]
            assert running.server.servings["churn"].waiting == {2}
        storage.publish(models.plan(2, models.route(1, old, weight=9_000), _candidate(2, idle, 1_000)))
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1, 2]
    assert not any(window.failed for window in storage.windows())


async def test_the_least_recently_used_goes_first(start: Start, storage: MemoryStorage) -> None:
    small = [models.scaler(float(number)) for number in range(4)]
    storage.put(*small)
    storage.publish(
        models.plan(1, models.route(1, small[0]), *(_shadow(number, small[number - 1]) for number in (2, 3, 4)))
    )
    async with start() as running:
        await running.reload()
        for version in (3, 2, 4):
            assert (await running.predict([[1, 1]], model_version=version)).status_code == 200
        gone = []
        while (found := await running.server._deployments.evict_one()) is not None:
            gone.append(sorted({2, 3, 4} & set(running.server.servings["churn"].failed)))
            del found
        assert gone == [[3], [2, 3], [2, 3, 4]]
        assert sorted(running.server.servings["churn"].lanes) == [1]
        assert (await running.predict([[1, 1]])).status_code == 200


async def test_what_does_not_fit_is_not_loaded_and_what_serves_goes_on(start: Start, storage: MemoryStorage) -> None:
    small, large = models.scaler(2.0, width=64), _wide(48)
    storage.put(small, large)
    storage.publish(models.plan(1, models.route(1, small)))
    async with start() as running:
        await running.reload()
        with _limited(running, left_mib=32):
            # Whatever else this process lets go of meanwhile is no room for a model.
            taken = usage()
            running.server._loader._room._used = lambda: taken
            storage.publish(models.plan(2, models.route(1, small), _candidate(2, large)))
            state = (await running.reload())["endpoints"]["churn"]
            assert state["loaded"] == [1]
            assert state["failed"]["2"].startswith("memory: version 2 takes up to 98 MiB, and of the ")
            assert "SLIPWAY_MEMORY_LIMIT_BYTES" in state["failed"]["2"]
            assert (await running.predict([[1] * 64])).status_code == 200
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1, 2]


async def test_the_memory_of_a_version_is_measured(start: Start, storage: MemoryStorage) -> None:
    first, small, large = models.scaler(1.0, width=64), models.scaler(2.0, width=64), _wide(64)
    storage.put(first, small, large)
    # What comes into memory with the first version of all is the runtime's.
    storage.publish(models.plan(1, models.route(3, first)))
    async with start() as running:
        await running.reload()
        storage.publish(models.plan(2, models.route(1, small), _candidate(2, large)))
        await running.reload()
        sizes = running.server.facts().memory_bytes["churn"]
        assert 54 * _MIB < sizes[2] < 90 * _MIB  # the process does other things meanwhile
        assert sizes[1] < 16 * _MIB
        text = (await running.client.get("/metrics")).text
        assert f'model_memory_bytes{{model="churn",version="2"}} {sizes[2]}' in text


async def test_what_is_unloaded_gives_its_memory_back(start: Start, storage: MemoryStorage) -> None:
    cycles = 12
    data = [_wide(4, seed) for seed in range(2)]
    storage.put(*data)
    async with start() as running:

        async def cycle(number: int) -> None:
            storage.publish(models.plan(number, models.route(number, data[number % 2])))
            assert (await running.reload())["endpoints"]["churn"]["loaded"] == [number]
            assert (await running.predict([[1] * 64])).json()["model_version"] == number

        async def settled() -> int:
            await eventually(lambda: len(running.server._windows._open["churn"]) == 1)
            gc.collect()
            give_back()
            return usage().private_bytes

        for number in range(1, 7):
            await cycle(number)
        before = await settled()
        for number in range(7, 7 + cycles):
            await cycle(number)
        # test_workers measures a process of its own more closely.
        assert await settled() < before + cycles * 4 * _MIB / 3


def test_where_the_kernel_sums_no_mappings_the_pages_of_files_are_taken_as_shared(tmp_path: Path) -> None:
    (tmp_path / "statm").write_text("900 300 100 1 0 200 0\n")
    page = resource.getpagesize()
    assert usage(tmp_path / "none", tmp_path / "statm") == Usage(private_bytes=200 * page, shared_bytes=100 * page)
    assert usage(tmp_path / "none", tmp_path / "none") == Usage(private_bytes=0, shared_bytes=0)


def test_what_is_shared_is_looked_up_while_a_process_is_small_and_what_comes_later_is_its_own(tmp_path: Path) -> None:
    page, statm, rollup = resource.getpagesize(), tmp_path / "statm", tmp_path / "rollup"

    def takes(resident_mib: int, *, of_files_mib: int, private_mib: int | None = None) -> Usage:
        pages = [mib * _MIB // page for mib in (resident_mib, of_files_mib)]
        statm.write_text(f"9000000 {pages[0]} {pages[1]} 1 0 200 0\n")
        if private_mib is not None:
            rollup.write_text(
                f"00-ff rollup\nRss: {resident_mib * 1024} kB\n"
                f"Private_Clean: {1024} kB\nPrivate_Dirty: {(private_mib - 1) * 1024} kB\n"
            )
        return usage(rollup, statm)

    assert takes(60, of_files_mib=30, private_mib=10) == Usage(private_bytes=10 * _MIB, shared_bytes=50 * _MIB)
    assert takes(100, of_files_mib=40, private_mib=30) == Usage(private_bytes=30 * _MIB, shared_bytes=70 * _MIB)
    assert takes(900, of_files_mib=400, private_mib=500) == Usage(private_bytes=830 * _MIB, shared_bytes=70 * _MIB)
    assert takes(100, of_files_mib=40, private_mib=20) == Usage(private_bytes=20 * _MIB, shared_bytes=80 * _MIB)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this kernel sums up no mappings")
def test_what_this_process_takes_is_what_the_kernel_sums_up() -> None:
    before = usage()
    held = np.ones(256 * _MIB, np.uint8)
    found = usage()
    lines = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    total = int(lines["Rss"].split()[0]) * 1024
    assert abs(found.private_bytes + found.shared_bytes - total) < 64 * _MIB
    assert abs(found.private_bytes - before.private_bytes - held.nbytes) < 64 * _MIB


class _Held:
    """Something that takes memory."""


def _of(used_mib: list[int]) -> Callable[[], Usage]:
    return lambda: Usage(private_bytes=sum(used_mib) * _MIB, shared_bytes=10 * _MIB)


@pytest.mark.parametrize(("workers", "fits"), [(1, 84), (2, 42), (3, 28)])
def test_each_worker_has_its_part_of_the_limit_beside_what_they_share(workers: int, fits: int) -> None:
    room = Room(100 * _MIB, workers=workers, used=_of([0]))
    room.make(fits * _MIB, "it")
    with pytest.raises(LoadError) as caught:
        room.make((fits + 2) * _MIB, "version 7")
    assert caught.value.code is LoadCode.MEMORY
    assert f"version 7 takes up to {fits + 2} MiB" in str(caught.value)


def test_room_is_made_until_there_is_enough_and_no_more() -> None:
    held, used = [_Held() for _ in range(3)], [20, 20, 20]

    def evict() -> Any:
        used.pop()
        return weakref.ref(held.pop())

    Room(100 * _MIB, evict=evict, used=_of(used)).make(60 * _MIB, "it")
    assert (len(held), len(used)) == (1, 1)


def test_without_a_limit_nothing_is_asked() -> None:
    def never() -> Any:
        raise AssertionError

    Room(None, evict=never, used=never).make(1 << 60, "it")


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/pod/one\n", {"pod/one/memory.max": "max", "pod/memory.max": "1000"}, 1000),
        ("0::/\n", {"memory.max": "2000\n"}, 2000),
        ("0::/\n", {}, None),
        ("3:memory:/a\n2:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "500"}, 500),
        ("3:memory:/a\n", {"memory/a/memory.limit_in_bytes": "9223372036854771712"}, None),
        ("3:memory:/gone\n", {"memory/memory.limit_in_bytes": "700"}, 700),
    ],
)
def test_the_least_limit_of_the_control_groups_holds(
    tmp_path: Path, groups: str, files: dict[str, str], limit: int | None
) -> None:
    own = tmp_path / "cgroup"
    own.write_text(groups)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert group_limit(tmp_path / "root", own) == limit
    assert group_limit(tmp_path / "root", tmp_path / "none") is None


async def test_a_shadow_that_gets_copies_outlasts_one_that_gets_none_and_the_new_outlast_the_old(
    start: Start, storage: MemoryStorage
) -> None:
    small = [models.scaler(float(number)) for number in range(5)]
    storage.put(*small)
    stable, copied = models.route(1, small[0]), _shadow(2, small[1]).model_copy(update={"mirror_bp": 10_000})
    storage.publish(models.plan(1, stable, copied, _shadow(3, small[2])))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1, 1]])).status_code == 200
        await eventually(lambda: running.server.totals()["churn"].get(2) is not None)
        await eventually(lambda: running.server.totals()["churn"][2].shadowed().compared == 1)
        storage.publish(models.plan(2, stable, copied, _shadow(3, small[2]), _shadow(4, small[3])))
        await running.reload()
        gone = []
        while (found := await running.server._deployments.evict_one()) is not None:
            gone.append(sorted(running.server.servings["churn"].failed))
            del found
        assert gone == [[3], [2, 3], [2, 3, 4]]


async def test_a_candidate_never_makes_room_though_it_has_no_traffic_yet(start: Start, storage: MemoryStorage) -> None:
    one, two, three = (models.scaler(float(number)) for number in range(3))
    storage.put(one, two, three)
    storage.publish(models.plan(1, models.route(1, one), _candidate(2, two)))
    async with start() as running:
        await running.reload()
        assert await running.server._deployments.evict_one() is None
        assert sorted(running.server.servings["churn"].lanes) == [1, 2]
