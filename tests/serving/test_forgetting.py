"""What was counted of versions that are long gone is not shown, and then forgotten; no sum is ever seen to fall."""

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from aks_serving.board import Board, State
from aks_serving.counts import Kind
from aks_serving.engine import Engine
from aks_serving.reports import Siblings, read_report
from aks_serving.serving import Serving, Servings
from aks_serving.together import Together
from aks_serving.uplink import Uplink
from aks_serving.windows import Windows

from shared.routing.plan import Role
from tests.serving import models
from tests.serving.conftest import Running, Start
from tests.serving.fakes import MemoryStorage
from tests.serving.slotted import Time
from tests.world.fakes import FakeClock

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)
_MINUTE_S = 60.0


async def _shown(running: Running) -> dict[str, float]:
    """Requests that were answered, by version, as /metrics has it; the statistics have the same versions."""
    lines = (await running.client.get("/metrics")).text.splitlines()
    requests = [line for line in lines if line.startswith("model_prediction_requests_total{") and '"success"' in line]
    found = {line.split('version="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in requests}
    stats = (await running.client.get("/ab-test/stats")).json()["endpoints"]["churn"]["versions"]
    assert {version: counted["requests"] for version, counted in stats.items()} == found
    return found


async def test_a_version_that_is_gone_for_long_is_not_told_of_and_one_that_idles_is(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    time, board = Time(), Board(places=1)
    async with start(now_s=time, siblings=Siblings(board, place=0, seat=0)) as running:
        await running.reload()
        assert (await running.predict([[1, 1]])).status_code == 200
        time.now_s += 200 * _MINUTE_S
        assert await _shown(running) == {"1": 1}
        storage.publish(models.plan(2, models.route(2, TWO)))
        await running.reload()
        for _ in range(2):
            assert (await running.predict([[1, 1]])).status_code == 200
        running.server._windows.close_all()
        time.now_s += 59 * _MINUTE_S
        assert await _shown(running) == {"1": 1, "2": 2}
        time.now_s += 2 * _MINUTE_S
        assert await _shown(running) == {"2": 2}
        await running.server._together.forget()
        storage.publish(models.plan(3, models.route(1, ONE)))
        await running.reload()
        assert await _shown(running) == {"1": 1, "2": 2}
        running.server._windows.close_all()
        time.now_s += 121 * _MINUTE_S
        await running.server._together.forget()
        running.server.tell()
        assert [found[0] for found in read_report(board.seat(0, 0)).counts["churn"]] == [1]


class _Worker:
    """A process of a server, as far as it counts and tells."""

    def __init__(self, board: Board, place: int, seat: int, time: Time) -> None:
        self._engine = Engine(max_queue=1, max_queue_bytes=1)
        self._uplink = Uplink(lambda _name, _data: None)
        self._windows = Windows(
            pod="pod", clock=FakeClock(datetime(2026, 3, 1, tzinfo=UTC)), keep=lambda _name, _data: None, now_s=time
        )
        self.together = Together(
            Siblings(board, place=place, seat=seat),
            engine=self._engine,
            uplink=self._uplink,
            windows=self._windows,
            servings=lambda: Servings({}),
            not_ready_here=lambda: "",
            asked_s=dict,
            now_s=time,
        )
        self._seat = board.seat(place, seat)
        self._serving: Serving | None = None

    def apply(self, generation: int, version: int, role: Role) -> None:
        route = models.route(version, ONE, role=role)
        self._serving = Serving(plan=models.plan(generation, route), lanes={}, failed={})
        self._windows.applied(self._serving)
        self._windows.close_changed()

    def count(self, requests: int, *, closing: bool) -> None:
        assert self._serving is not None
        (version,) = self._serving.routes
        for _ in range(requests):
            self._serving.tally.of(version).answered(Kind.ASSIGNED, 3.0)
        if closing:
            self._windows.close_all()

    def die(self) -> None:
        self.close()
        self._seat.state = State.GONE

    def close(self) -> None:
        self._engine.close()
        self._uplink.close(within_s=0.0)


def _told(worker: _Worker) -> dict[int, int]:
    """Requests by version, as the process shows them."""
    return {version: tally.requests for version, tally in worker.together.totals().get("churn", {}).items()}


@pytest.fixture
def workers() -> Iterator[Callable[..., _Worker]]:
    """Makes a worker that serves version 1."""
    made: list[_Worker] = []

    def worker(board: Board, place: int, seat: int, time: Time) -> _Worker:
        made.append(_Worker(board, place, seat, time))
        made[-1].apply(1, 1, Role.STABLE)
        return made[-1]

    yield worker
    for one in made:
        one.close()


async def test_a_version_that_idled_is_told_of_for_an_hour_after_it_is_gone(workers: Callable[..., _Worker]) -> None:
    time, board = Time(), Board(places=1)
    worker = workers(board, 0, 0, time)
    worker.count(5, closing=True)
    time.now_s += 200 * _MINUTE_S
    assert _told(worker) == {1: 5}
    worker.apply(2, 2, Role.STABLE)
    assert _told(worker) == {1: 5}
    await worker.together.forget()
    time.now_s += 59 * _MINUTE_S
    assert _told(worker) == {1: 5}
    time.now_s += 2 * _MINUTE_S
    assert _told(worker) == {}


async def test_a_version_of_the_plan_keeps_what_a_dead_process_counted_of_it(workers: Callable[..., _Worker]) -> None:
    time, board = Time(), Board(places=1)
    first = workers(board, 0, 0, time)
    first.count(5, closing=True)
    first.together.tell()
    first.die()
    for seat in (1, 0):
        worker = workers(board, 0, seat, time)
        time.now_s += 130 * _MINUTE_S
        await worker.together.forget()
        assert _told(worker) == {1: 5}
        worker.die()


async def test_what_one_process_forgot_is_not_shown_by_another(workers: Callable[..., _Worker]) -> None:
    time, board = Time(), Board(places=2)
    both = [workers(board, place, 0, time) for place in range(2)]
    for worker in both:
        worker.count(5, closing=True)
        worker.apply(2, 2, Role.STABLE)
        worker.together.tell()
    assert _told(both[0]) == {1: 10}
    time.now_s += 121 * _MINUTE_S
    await both[1].together.forget()
    both[0].apply(3, 1, Role.STABLE)
    assert _told(both[0]) == {1: 5}


class _Life:
    """Two workers, of which the second follows the plan some minutes later, and what each scrape showed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._time = Time()
        self._board = Board(places=2)
        self._seats = [0, 0]
        self._workers = [_Worker(self._board, place, 0, self._time) for place in range(2)]
        self._plans: list[tuple[int, int, Role]] = []
        self._follows_s: float | None = None
        self._before: dict[object, int] = {}
        self.returned = 0
        self.publish()
        self.follow()

    async def step(self) -> None:
        step = self._draw.choice([self.publish, self.follow, self.count, self.count, self.wait, self.replace, None])
        if step is None:
            await self._draw.choice(self._workers).together.forget()
        else:
            step()
        if self._follows_s is not None and self._time.now_s >= self._follows_s:
            self.follow()
        for worker in self._draw.sample(self._workers, 2):
            self._scrape(worker)

    def publish(self) -> None:
        self.follow()
        self._plans.append(
            (len(self._plans) + 1, self._draw.randint(1, 4), self._draw.choice([Role.STABLE, Role.CANDIDATE]))
        )
        self._workers[0].apply(*self._plans[-1])
        self._follows_s = self._time.now_s + 10 * _MINUTE_S

    def follow(self) -> None:
        if self._follows_s is not None or len(self._plans) == 1:
            self._workers[1].apply(*self._plans[-1])
        self._follows_s = None

    def count(self) -> None:
        self._draw.choice(self._workers).count(self._draw.randint(1, 9), closing=self._draw.random() < 0.5)

    def wait(self) -> None:
        self._time.now_s += self._draw.choice([1, 5] if self._follows_s else [1, 20, 50, 70, 130, 300]) * _MINUTE_S

    def replace(self) -> None:
        place = self._draw.randrange(2)
        self._workers[place].die()
        self._seats[place] = (self._seats[place] + 1) % 3
        self._workers[place] = _Worker(self._board, place, self._seats[place], self._time)
        self._workers[place].apply(*self._plans[-1])
        if place == 1:
            self._follows_s = None

    def close(self) -> None:
        for worker in self._workers:
            worker.close()

    def _scrape(self, worker: _Worker) -> None:
        shown: dict[object, int] = {}
        for variant, tally in worker.together.facts().totals.get("churn", {}).items():
            shown[variant] = tally.requests
        for version, tally in worker.together.totals().get("churn", {}).items():
            shown[version] = tally.requests
        fell = {name: (count, shown[name]) for name, count in self._before.items() if shown.get(name, count) < count}
        assert fell == {}
        self.returned += len(shown.keys() - self._before.keys())
        self._before = shown


@pytest.mark.parametrize("seed", range(20))
async def test_no_sum_over_processes_falls_while_it_is_shown(seed: int) -> None:
    life = _Life(seed)
    try:
        for _ in range(150):
            await life.step()
    finally:
        life.close()
    assert life.returned > 10
