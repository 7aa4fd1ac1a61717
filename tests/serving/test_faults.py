"""What fails around a pod, and what happens: it goes on answering, or says why not.

| what fails | where it is shown |
| --- | --- |
| no plan at the start, and one later | here; test_deployment (deleted while serving), test_protocol (no model: 503) |
| a plan is torn, not JSON, another endpoint's | at the start: here; later: test_deployment, test_process |
| a plan is rolled back | test_deployment (while serving, and against the cache after a restart) |
| a cached plan is torn | here; test_cache (names that are no endpoint's) |
| a plan names what is not in storage | test_deployment, test_altered (each file of a version) |
| storage is slow | here |
| storage fails as nobody foresaw | here |
| storage has a plan, and does not give it | here |
| storage is gone, at the start and later | test_deployment, test_process, test_external; test_fallback (windows wait) |
| an artifact is altered, in storage, on disk | test_altered, test_external |
| the disk is full | here; test_external (data larger than memory), test_guard (notes of trips) |
| a model raises, or gives NaN | test_fallback, test_batching (the guilty call alone) |
| the server has a defect | here |
| a candidate hangs | here (beside the event loop); test_workers (on it: the process is replaced) |
| a candidate fails too late | test_deadlines |
| overload, expired work | test_deadlines |
| the clock jumps | here; test_windows |
| telemetry piles up, or is refused | test_uplink, test_fallback |
| the process is killed | test_process, test_workers, test_cache; here, marked long, while it loads and writes |
| the process is told to stop | test_process |
"""

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest
from aks_serving.asks import PlainAsk
from aks_serving.cache import DiskCache
from aks_serving.counts import Kind
from aks_serving.model import Signature
from aks_serving.ports import StoredPlan
from aks_serving.serving import Serving
from aks_serving.tensors import Feeds
from aks_serving.watchdog import SWEEP_S
from aks_serving.windows import Windows

from shared.core.errors import UnavailableError
from shared.core.ids import EndpointName
from shared.telemetry.window import Window, merge_counts
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Asked, HandServer, Watched, plain
from tests.serving.processes import Account, Launch, Server, dead_connection
from tests.support.waiting import eventually as soon
from tests.world.fakes import FakeClock

ONE, TWO = models.scaler(1.0), models.scaler(2.0)
TABLE, PICKY = models.table(), models.picky(limit=4)
CHURN = EndpointName("churn")


@pytest.fixture
def storage(request: pytest.FixtureRequest) -> MemoryStorage:
    """Storage in memory, of the kind that a test asks for."""
    kind: type[MemoryStorage] = getattr(request, "param", MemoryStorage)
    return kind()


async def _version(running: Running) -> int:
    answer = await running.predict([[1, 1]])
    assert answer.status_code == 200, answer.text
    version: int = answer.json()["model_version"]
    return version


@pytest.mark.anyio
async def test_without_a_plan_at_the_start_the_pod_waits_for_one_and_keeps_it_when_it_goes(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    async with start(endpoints=("churn",)) as running:
        await running.reload()
        ready = await running.client.get("/ready")
        assert (ready.status_code, "no version that answers" in ready.json()["reason"]) == (503, True)
        assert (await running.predict([[1, 1]])).status_code == 503
        assert (await running.client.get("/health")).status_code == 200
        storage.publish(models.plan(3, models.route(1, ONE)))
        await running.reload()
        assert await _version(running) == 1
        storage.plans.clear()
        await running.reload()
        assert await _version(running) == 1
        storage.publish(models.plan(4, models.route(2, TWO)))
        await running.reload()
        assert await _version(running) == 2


_GOOD = models.plan(1, models.route(1, ONE)).model_dump_json().encode()
TORN = {
    "empty": b"",
    "cut": _GOOD[: len(_GOOD) // 2],
    "not text": b"\xff\xfe\x00",
    "not JSON": b"<html>",
    "not a plan": b"[1]",
    "a pit": b"[" * 100_000,
    "zeros": bytes(4096),
    "another endpoint's": models.plan(1, models.route(1, ONE), endpoint="fraud").model_dump_json().encode(),
}


@pytest.mark.anyio
@pytest.mark.parametrize("place", ["storage", "disk"])
@pytest.mark.parametrize("harm", TORN)
async def test_a_plan_that_is_torn_at_the_start_is_refused_and_a_good_one_taken(
    start: Start, storage: MemoryStorage, tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: str, place: str
) -> None:
    storage.put(ONE)
    if place == "storage":
        storage.plans[CHURN] = TORN[harm]
    else:
        DiskCache(tmp_path / "cache").keep_plan("churn", TORN[harm])
    async with start() as running:
        await running.reload()
        assert "a plan is refused" in caplog.text
        assert (await running.predict([[1, 1]])).status_code == 503
        assert (await running.client.get("/health")).status_code == 200
        storage.publish(models.plan(1, models.route(1, ONE)))
        await running.reload()
        assert await _version(running) == 1


class SlowStorage(MemoryStorage):
    """Answers only while `open` is set: until then, whoever asks waits."""

    def __init__(self) -> None:
        super().__init__()
        self.open = threading.Event()
        self.open.set()
        self.asked: set[str] = set()

    def plan_etags(self) -> dict[EndpointName, str]:
        self._wait("plans")
        return super().plan_etags()

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        self._wait("plan")
        return super().plan(endpoint, unless_etag=unless_etag)

    def artifact(self, digest: str, *, max_bytes: int) -> Iterator[bytes]:
        self._wait("artifact")
        return super().artifact(digest, max_bytes=max_bytes)

    def keep_window(self, name: str, data: bytes) -> None:
        self._wait("window")
        super().keep_window(name, data)

    def _wait(self, what: str) -> None:
        if not self.open.is_set():
            self.asked.add(what)
            assert self.open.wait(30)


class OddStorage(MemoryStorage):
    """Can fail as no adapter says that it does."""

    broken = False

    def _answer(self) -> None:
        if self.broken:
            raise RuntimeError("the library has a defect, says the test")
        super()._answer()


@pytest.mark.anyio
@pytest.mark.parametrize("storage", [SlowStorage], indirect=True)
async def test_while_storage_takes_its_time_requests_do_not(start: Start, storage: SlowStorage) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.05, window_s=0.05) as running:
        await eventually(lambda: "churn" in running.server.servings)
        storage.open.clear()
        try:
            answered = 0
            while not {"plans", "window"} <= storage.asked:
                assert await _version(running) == 1
                answered += 1
            for _ in range(20):
                assert await _version(running) == 1
            storage.publish(models.plan(2, models.route(2, TWO)))
        finally:
            storage.open.set()
        await eventually(lambda: running.server.servings["churn"].plan.generation == 2)
    counts = merge_counts([window.versions[1] for window in storage.windows() if 1 in window.versions])
    assert counts.requests == answered + 20


@pytest.mark.anyio
@pytest.mark.parametrize("storage", [OddStorage], indirect=True)
async def test_a_failure_of_storage_that_nobody_foresaw_stops_nothing(
    start: Start, storage: OddStorage, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.05) as running:
        await eventually(lambda: "churn" in running.server.servings)
        storage.broken = True
        await eventually(lambda: "a poll went wrong" in caplog.text)
        assert await _version(running) == 1
        assert (await running.client.post("/models/reload")).status_code == 500
        storage.broken = False
        storage.publish(models.plan(2, models.route(2, TWO)))
        await eventually(lambda: running.server.servings["churn"].plan.generation == 2)
        assert await _version(running) == 2


class PatchyStorage(MemoryStorage):
    """Has one plan that cannot be had."""

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        if endpoint == "aaa":
            raise UnavailableError("blob storage", "this blob is archived, says the test")
        return super().plan(endpoint, unless_etag=unless_etag)


@pytest.mark.anyio
@pytest.mark.parametrize("storage", [PatchyStorage], indirect=True)
@pytest.mark.parametrize("endpoints", [(), ("aaa", "churn")])
async def test_a_plan_that_cannot_be_had_keeps_no_other_away(
    start: Start, storage: PatchyStorage, endpoints: tuple[str, ...]
) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE), endpoint="aaa"))
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(endpoints=endpoints, poll_s=0.05) as running:
        await eventually(lambda: "churn" in running.server.servings)
        assert await _version(running) == 1


def _full(folder: Path) -> AbstractContextManager[None]:
    """No room in a folder: a file system of its own, which is full. Skips the test where none can be mounted."""

    @contextlib.contextmanager
    def filled() -> Iterator[None]:
        filler = folder / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(b"x" * 512):
                pass
        yield
        filler.unlink()

    return filled()


@contextlib.contextmanager
def _short_files(_: Path) -> Iterator[None]:
    """No file may become longer than a few bytes: writing begins, and fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of 64 KiB."""
    folder, mount = tmp_path / "small", shutil.which("mount")
    folder.mkdir()
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "none", folder], check=False).returncode
    ):
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def _files(cache: Path) -> list[str]:
    """What the cache holds beside what fills it, the process's note that it lives, and the empty file of turns."""
    others = ("filler", "pod", "turns")
    return [path.name for path in cache.rglob("*") if path.is_file() and path.name not in others]


async def _serves_without_room(
    start: Start, storage: MemoryStorage, cache: Path, no_room: Callable[[Path], AbstractContextManager[None]]
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    kept = cache / "plans" / "churn.json"
    async with start(cache=cache, window_s=0.05) as running:
        with no_room(cache):
            await running.reload()
            for _ in range(5):
                assert await _version(running) == 1
            await eventually(lambda: sum(w.versions[1].requests for w in storage.windows() if 1 in w.versions) == 5)
            assert _files(cache) == []
        storage.publish(models.plan(2, models.route(2, TWO)))
        await running.reload()
        assert await _version(running) == 2
        await eventually(kept.exists)
    assert DiskCache(cache).artifact(models.digest(TWO), max_bytes=len(TWO)) == TWO


@pytest.mark.anyio
async def test_a_full_disk_stops_neither_serving_nor_telemetry_and_room_is_used_again(
    start: Start, storage: MemoryStorage, small_disk: Path
) -> None:
    await _serves_without_room(start, storage, small_disk, _full)


@pytest.mark.anyio
async def test_writes_that_fail_half_way_stop_nothing_and_leave_nothing(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    await _serves_without_room(start, storage, tmp_path / "cache", _short_files)


@pytest.mark.anyio
async def test_a_candidate_that_hangs_costs_its_callers_time_and_nobody_else_anything(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(TABLE, PICKY)
    storage.publish(models.plan(1, *models.canary((1, TABLE), (2, PICKY), 10_000)))
    hanging = Watched(PICKY, version=2)
    async with start() as running:
        await running.reload()
        serving = running.server.servings["churn"]
        lane = serving.lanes[2]
        lane.loaded = replace(lane.loaded, model=hanging)
        for power in range(10):
            lane.times.add(2**power, 0.02)
        hanging.open.clear()
        try:
            asking = [asyncio.create_task(running.predict([[n]], timeout_ms=20_000)) for n in range(5)]
            await eventually(hanging.began.is_set)
            assert (await running.client.get("/health")).status_code == 200
            pinned = await running.predict([[6]], model_version=1)
            assert pinned.json()["predictions"] == [[60.0]]
            watchdog, now_s = running.server._watchdog, perf_counter()
            watchdog.close()
            for _ in range(int(11 / SWEEP_S)):  # more than half of the time that they allow
                now_s += SWEEP_S
                watchdog.sweep(now_s)
            answers = await asyncio.gather(*asking)
            assert [answer.json()["predictions"] for answer in answers] == [[[n * 10.0]] for n in range(5)]
            assert all(answer.json()["fallback"] for answer in answers)
            assert running.server.engine.waiting == 0
            assert serving.tripped == {}  # how little time its callers allow says nothing of it
            hanging.open.set()
            later = await running.predict([[3]])
            assert (later.json()["model_version"], later.json()["fallback"]) == (2, False)
        finally:
            hanging.open.set()
    counts = {v: merge_counts([w.versions[v] for w in storage.windows() if v in w.versions]) for v in (1, 2)}
    assert (counts[2].requests, counts[2].errors, counts[1].fallbacks) == (6, 5, 5)


class _Defect(Watched):
    """Raises what no model does, while it is told to."""

    broken = True

    def run(self, feeds: Feeds) -> Any:
        if self.broken:
            raise LookupError("the server has a defect, says the test")
        return super().run(feeds)


@pytest.mark.anyio
@pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "beside it"])
async def test_a_defect_around_a_run_costs_its_callers_an_error_and_nobody_else_anything(*, inline: bool) -> None:
    routes = models.canary((1, TABLE), (2, PICKY), 10_000)
    defect = _Defect(PICKY, version=2)
    server = HandServer(models.plan(1, *routes), {1: Watched(TABLE), 2: defect}, inline=inline)
    for version, statuses in ((None, [200, 200]), (2, [500, 500])):
        asked = [plain([[n]], model_version=version) for n in (1, 2)]
        server.ask(*asked)
        await server.idle()
        assert [one.status for one in asked] == statuses
    defect.broken = False
    good = plain([[3]])
    server.ask(good)
    await server.idle()
    assert (good.json()["predictions"], good.json()["fallback"]) == ([[30.0]], False)
    assert server.engine.running_here is None
    server.close()


@pytest.mark.anyio
async def test_where_no_thread_can_be_had_its_callers_are_told_so() -> None:
    server = HandServer(models.plan(1, models.route(1, ONE)), {1: Watched(ONE)})
    server.close()
    asked = [plain([[1, 1]]), plain([[2, 2]])]
    server.ask(*asked)
    await server.idle()
    assert [one.status for one in asked] == [500, 500]
    assert server.serving.lanes[1].idle


@pytest.mark.anyio
async def test_a_defect_before_a_run_leaves_nothing_in_flight() -> None:
    server = HandServer(models.plan(1, models.route(1, ONE)), {1: Watched(ONE)})

    def read(_: Signature) -> Feeds:
        raise LookupError("the server has a defect, says the test")

    asked = Asked("/predict")
    ask = PlainAsk(server.serving, 0.0, read=read)
    ask.exchange, ask.extra = asked, ()
    ask.begin(version=None, subject=None)
    assert asked.status == 500
    assert (server.waiting, server.serving.tally.in_flight) == (0, 0)
    server.close()


@pytest.mark.anyio
async def test_a_clock_that_jumps_back_and_forth_loses_no_count_and_no_order() -> None:
    clock, blobs = FakeClock(), dict[str, bytes]()
    windows = Windows(pod="pod", clock=clock, keep=blobs.__setitem__)
    serving = Serving(plan=models.plan(1, models.route(1, ONE)), lanes={}, failed={})
    windows.applied(serving)
    for hours in (5, -9, 0, 400, -400, 1):
        clock.time += timedelta(hours=hours)
        serving.tally.of(1).answered(Kind.ASSIGNED, 1.0)
        windows.close_all()
    closed = [Window.model_validate_json(data) for data in blobs.values()]
    assert [window.sequence for window in closed] == list(range(6))
    assert all(window.started_at <= window.ended_at for window in closed)
    assert [window.versions[1].requests for window in closed] == [1] * 6


def _kill(server: Server) -> None:
    """Kill a server and its workers, all at once as far as may be."""
    for pid in (server.process.pid, *server.workers()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.process.wait(30)


@pytest.mark.long
def test_a_pod_that_is_killed_while_it_serves_and_writes_its_cache_serves_after_its_next_start(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    table = models.numbers(*range(1000)) + bytes(24 * 1024 * 1024)
    large = models.lookup(("table.bin", 0, len(table)))
    account.put(ONE, large, table)
    account.publish(models.plan(1, models.route(1, ONE)))
    cache = tmp_path / "cache"
    server = launch(account.connection)
    soon((cache / "plans" / "churn.json").exists, what="the plan is kept on disk")
    wrong: list[Any] = []
    answered = threading.Event()

    def call() -> None:
        while True:
            try:
                answer = server.predict([[1, 2]])
            except httpx.HTTPError:
                return
            if answer.status_code != 200 or answer.json()["predictions"] != [[1.0, 2.0]]:
                wrong.append(answer.text)
            answered.set()

    caller = threading.Thread(target=call)
    caller.start()
    account.publish(models.plan(2, models.route(2, large, external={"table.bin": table})))

    def half_written() -> bool:
        found = [path.stat().st_size for path in cache.glob(f"private/*/{models.digest(table)}")]
        return any(0 < size < len(table) for size in found) and answered.is_set()

    soon(half_written, what="an artifact is half written")
    _kill(server)
    caller.join(30)
    assert wrong == []
    assert not (cache / "artifacts" / models.digest(table)).exists()
    second = launch(dead_connection())
    soon(second.ready, what="the pod is ready from its cache")
    assert second.predict([[1, 2]]).json()["generation"] == 1
    _kill(second)
    third = launch(account.connection)
    soon(lambda: third.generation() == 2, what="generation 2 is served")
    assert third.predict([[7], [999]]).json()["predictions"] == [[7.0], [999.0]]
    soon(lambda: list((cache / "private").iterdir()) == [], what="what the killed ones left is removed")
    assert third.stop() == 0
