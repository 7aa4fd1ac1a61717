"""A plan that names pods: those give the candidate all their traffic, the others none; and so in every other way."""

import asyncio
from pathlib import Path

import pytest

from shared.routing.plan import RoutePlan
from tests.serving import models
from tests.serving.conftest import Running, Start
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

STABLE, PICKY = models.table(), models.picky(limit=4)


def _publish(storage: MemoryStorage, generation: int, *pods: str, weight: int = 5_000) -> RoutePlan:
    storage.put(STABLE, PICKY)
    plan = models.plan(generation, *models.canary((1, STABLE), (2, PICKY), weight))
    plan = plan.model_copy(update={"pods": pods, "rollout_id": "rollout"})
    storage.publish(plan)
    return plan


async def _answering(running: Running, feature: int = 1) -> set[tuple[int, bool]]:
    """Which versions answer, and whether in place of another."""
    asked = [running.predict([[feature]], user_id=f"user {n}") for n in range(60)]
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    return {(answer["model_version"], answer["fallback"]) for answer in answers}


async def test_the_pods_that_are_named_give_the_candidate_everything_and_the_others_nothing(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    _publish(storage, 1, "one")
    async with start(pod="one") as one, start(pod="two", cache=tmp_path / "two") as two:
        for running in (one, two):
            await running.reload()
        assert (await _answering(one), await _answering(two)) == ({(2, False)}, {(1, False)})
        _publish(storage, 2, "one", "two", weight=10_000)
        await two.reload()
        assert await _answering(two) == {(2, False)}
        _publish(storage, 3, weight=0)
        for running in (one, two):
            await running.reload()
        assert (await _answering(one), await _answering(two)) == ({(1, False)}, {(1, False)})
    windows = storage.windows()
    took: dict[tuple[str, int], set[int]] = {}
    for window in windows:
        asked = {version for version, counts in window.versions.items() if counts.requests}
        if asked:
            took.setdefault((window.pod, window.generation), set()).update(asked)
    assert took == {("one", 1): {2}, ("two", 1): {1}, ("two", 2): {2}, ("one", 3): {1}, ("two", 3): {1}}
    assert all(w.loaded == [1, 2] for w in windows)


async def test_on_a_named_pod_stable_stands_in_for_the_candidate_and_can_be_named(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, 1, "pod")
    async with start() as running:
        await running.reload()
        assert await _answering(running, feature=9) == {(1, True)}
        assert (await running.predict([[9]], model_version=1)).json()["role"] == "stable"
        assert not running.server.servings["churn"].tripped
    windows = storage.windows()
    stable, candidate = ([w.versions[version] for w in windows if version in w.versions] for version in (1, 2))
    assert (sum(c.requests for c in candidate), sum(c.errors for c in candidate)) == (60, 60)
    assert (sum(c.fallbacks for c in stable), sum(c.pinned for c in stable)) == (60, 1)


async def test_a_plan_that_names_no_pods_is_split_on_every_pod(start: Start, storage: MemoryStorage) -> None:
    storage.put(STABLE, PICKY)
    plan = models.plan(1, *models.canary((1, STABLE), (2, PICKY), 5_000))
    storage.publish(plan)
    async with start() as running:
        await running.reload()
        assert running.server.servings["churn"].plan == plan
        assert await _answering(running) == {(1, False), (2, False)}


async def test_a_restart_follows_the_cached_plan_as_the_pod_that_it_is_now(
    start: Start, storage: MemoryStorage
) -> None:
    """A process that starts anew has another name, which no plan knows yet."""
    _publish(storage, 1, "before")
    async with start(pod="before") as running:
        await running.reload()
    for pod, version in (("after", 1), ("before", 2)):
        storage.down = True
        async with start(pod=pod) as again:
            await again.server._deployments[next(iter(storage.plans))].settled.wait()
            assert await _answering(again) == {(version, False)}
            storage.down = False
