"""The last stretch of a rollout: the candidate has all the traffic, and stable stays warm to stand in for it.

And the way back: from any weight, a plan whose stable version is warm takes the candidate's traffic away at once.
"""

import asyncio
from dataclasses import replace

import httpx
import pytest
from aks_serving.serving import Serving

from shared.routing.plan import Role, RoutePlan
from shared.telemetry.window import merge_counts
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Watched, keep

pytestmark = pytest.mark.anyio

STABLE, PICKY = models.table(), models.picky(limit=4)
FULL = 10_000


def _plan(generation: int, weight: int | None) -> RoutePlan:
    """With a candidate of some weight, or (None) without one."""
    stable = models.route(1, STABLE)
    routes = (stable,) if weight is None else models.canary((1, STABLE), (2, PICKY), weight)
    return models.plan(generation, *routes)


def _publish(storage: MemoryStorage, generation: int, weight: int | None) -> None:
    storage.put(STABLE, PICKY)
    storage.publish(_plan(generation, weight))


async def _ask(running: Running, feature: int, *, times: int = 40) -> set[tuple[int, bool]]:
    """Which versions answer, and whether in place of another."""
    asked = [running.predict([[feature]], user_id=f"user {n}") for n in range(times)]
    answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    return {(answer.json()["model_version"], answer.json()["fallback"]) for answer in answers}


async def test_stable_without_traffic_stands_in_and_its_silence_proves_nothing(
    start: Start, storage: MemoryStorage
) -> None:
    """Every request fails at the candidate, and no guard trips by that: it has nothing to hold it against."""
    _publish(storage, 1, FULL)
    async with start() as running:
        await running.reload()
        serving = running.server.servings["churn"]
        assert serving.guard is not None
        for _ in range(5):
            assert await _ask(running, 9) == {(1, True)}
            serving.look()
            await asyncio.sleep(0.11)  # longer than a slice of the guard's time
        assert serving.guard.tripped is None
        assert await _ask(running, 1) == {(2, False)}
        named = await running.predict([[9]], model_version=1)
        assert (named.status_code, named.json()["fallback"]) == (200, False)


async def test_a_candidate_that_hangs_is_tripped_though_stable_had_no_traffic(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, 1, FULL)
    async with start() as running:
        await running.reload()
        serving = running.server.servings["churn"]
        running.server._watchdog._convict(serving.lanes[2], 30.0)
        assert "hung" in serving.tripped[2]
        assert await _ask(running, 1) == {(1, False)}
        await eventually(lambda: any(window.tripped for window in storage.windows()))


async def test_no_window_mixes_the_plans_of_a_rollout(start: Start, storage: MemoryStorage) -> None:
    """Requests that are on their way while the plan changes are counted under the plan that they began with."""
    weights = {1: 5_000, 2: FULL, 3: 5_000, 4: 0, 5: FULL, 6: None}
    async with start(window_s=0.02) as running:
        _publish(storage, 1, weights[1])
        await running.reload()
        for generation in list(weights)[1:]:
            asking = asyncio.gather(*(running.predict([[n % 6]], user_id=n) for n in range(200)))
            await asyncio.sleep(0)
            _publish(storage, generation, weights[generation])
            await running.reload()
            await asking
        assert await _ask(running, 1) == {(1, False)}
    windows = [window for window in storage.windows() if window.versions]
    assert {window.generation for window in windows} >= {1, 2, 5}
    for window in windows:
        weight = weights[window.generation]
        stable, candidate = (window.versions.get(version) for version in (1, 2))
        assert not (weight == FULL and stable and stable.requests)
        assert not (not weight and candidate and candidate.requests)
    every = [counts for window in windows for counts in window.versions.values()]
    # What waits for a candidate when the guard trips is stable's, which counts it, and no error of the candidate's.
    diverted = sum(counts.fallbacks - counts.errors for counts in every)
    assert sum(counts.requests for counts in every) + diverted == 5 * 200 + 40


@pytest.mark.parametrize("weight", [1_000, 5_000, FULL])
@pytest.mark.parametrize("to", [0, None])
async def test_going_back_to_a_warm_version_takes_no_load_and_leaves_the_candidate_no_request(
    start: Start, storage: MemoryStorage, weight: int, to: int | None
) -> None:
    _publish(storage, 1, weight)
    async with start(window_s=3600.0) as running:
        await running.reload()
        assert (2, False) in await _ask(running, 1)
        reads = storage.artifact_reads
        _publish(storage, 2, to)
        await running.server._poller.poll()
        # No turn of the event loop lies between the plan's arrival and this.
        assert running.server.servings["churn"].plan.generation == 2
        assert await _ask(running, 1) == {(1, False)}
        assert storage.artifact_reads == reads
        await eventually(lambda: any(window.generation == 2 for window in storage.windows()))
        (window,) = [window for window in storage.windows() if window.generation == 2]
        assert not window.versions.get(2)


async def test_a_pod_without_stable_is_ready_while_the_candidate_has_everything_and_not_after_a_rollback(
    start: Start, storage: MemoryStorage
) -> None:
    """It started during the watch, and cannot fetch stable: others can answer what it cannot."""
    _publish(storage, 1, FULL)
    del storage.artifacts[models.digest(STABLE)]
    async with start(endpoints=("churn",)) as running:
        await running.reload()
        assert (await running.client.get("/ready")).status_code == 200
        assert await _ask(running, 1) == {(2, False)}
        storage.publish(_plan(2, 9_000))
        await running.reload()
        assert (await running.client.get("/ready")).status_code == 503
        storage.publish(_plan(3, 0))
        await running.reload()
        assert (await running.client.get("/ready")).status_code == 503
        assert {(await running.predict([[1]], user_id=n)).status_code for n in range(20)} == {503}
        served = running.server.servings["churn"]
        assert (served.plan.generation, served.routes[2].role) == (3, Role.CANDIDATE)


def _hold(serving: Serving) -> Watched:
    """Have the candidate hang in its first run, with the others waiting behind it."""
    watched, lane = Watched(PICKY, version=2), serving.lanes[2]
    watched.open.clear()
    lane.loaded = replace(lane.loaded, model=watched)
    keep(lane, inline=False)
    return watched


async def _held(running: Running, *fields: dict[str, int]) -> tuple[Watched, list[asyncio.Task[httpx.Response]]]:
    """A request that runs at the candidate, and those that wait for it."""
    watched = _hold(running.server.servings["churn"])
    asked = [asyncio.create_task(running.predict([[1]]))]
    await eventually(watched.began.is_set)
    asked += [asyncio.create_task(running.predict([[n % 4]], **found)) for n, found in enumerate(fields)]
    await eventually(lambda: running.server.engine.waiting == 1 + len(fields))
    return watched, asked


@pytest.mark.parametrize("to", [0, None])
async def test_what_waits_for_a_slow_candidate_is_answered_by_stable_once_a_plan_takes_it_back(
    start: Start, storage: MemoryStorage, to: int | None
) -> None:
    """A queue behind a candidate that is slow would keep it answering for long after the rollback."""
    _publish(storage, 1, FULL)
    async with start() as running:
        await running.reload()
        watched, asked = await _held(running, *[{} for _ in range(50)], {"model_version": 2})
        _publish(storage, 2, to)
        await running.server._poller.poll()
        answers = await asyncio.gather(*asked[1:-1])
        assert {(a.status_code, a.json()["model_version"], a.json()["fallback"]) for a in answers} == {(200, 1, True)}
        assert [a.json()["predictions"] for a in answers] == [[[n % 4 * 10.0]] for n in range(50)]
        assert len(watched.ran) == 1
        watched.open.set()
        assert [(await late).json()["model_version"] for late in (asked[0], asked[-1])] == [2, 2]
        assert running.server.engine.waiting == 0
    windows = [window for window in storage.windows() if window.generation == 1]
    counts = {v: merge_counts([w.versions[v] for w in windows if v in w.versions]) for v in (1, 2)}
    assert (counts[2].requests, counts[2].errors, counts[2].pinned, counts[1].fallbacks) == (1, 0, 1, 50)


async def test_what_waits_for_a_candidate_that_is_tripped_does_not_run_there(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, 1, FULL)
    async with start() as running:
        await running.reload()
        serving = running.server.servings["churn"]
        watched, asked = await _held(running, *[{} for _ in range(20)])
        running.server._watchdog._convict(serving.lanes[2], 30.0)
        answers = await asyncio.gather(*asked[1:])
        assert {(a.status_code, a.json()["model_version"]) for a in answers} == {(200, 1)}
        assert len(watched.ran) == 1
        watched.open.set()
        assert (await asked[0]).status_code == 200


async def test_what_waits_goes_on_waiting_where_the_candidate_keeps_traffic(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, 1, FULL)
    async with start() as running:
        await running.reload()
        watched, asked = await _held(running, {}, {})
        _publish(storage, 2, 1_000)
        await running.server._poller.poll()
        assert running.server.servings["churn"].plan.generation == 2
        assert running.server.engine.waiting == 3
        watched.open.set()
        assert {(await one).json()["model_version"] for one in asked} == {2}
