"""What a version answers to those whom the plan assigned stands in its window, a row each, and nothing else does."""

import asyncio

import numpy as np
import pytest
from aks_serving.counts import Kind, VersionTally
from aks_serving.model import Model
from aks_serving.reports import Report, counts_of

from shared.routing.plan import Route
from shared.telemetry.predictions import MAX_KEYS, PredictionTally
from shared.telemetry.window import VersionCounts, Window, merge_counts
from tests.serving import models
from tests.serving.conftest import Running, Start
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import HandServer, infer, plain, turn

pytestmark = pytest.mark.anyio

STABLE, PICKY = models.table(), models.picky(limit=4)
LABELS = models.identity("BYTES", ["n", 1])


def _publish(storage: MemoryStorage, *routes: Route) -> None:
    storage.put(STABLE, PICKY, LABELS)
    storage.publish(models.plan(1, *routes))


def _counts(windows: list[Window], version: int) -> VersionCounts:
    return merge_counts([w.versions[version] for w in windows if version in w.versions])


def _told(*values: object, dtype: str = "float32") -> dict[str, int]:
    """What stands in a window for answers of one row each."""
    tally = PredictionTally()
    for value in values:
        tally.gave(np.array([[value]], dtype=dtype))
    return tally.counts


async def _ask(running: Running, *features: object, **fields: object) -> list[int]:
    answers = await asyncio.gather(*(running.predict([[n]], **fields) for n in features))
    return [answer.status_code for answer in answers]


async def test_assigned_and_answered_rows_are_counted_and_no_others(start: Start, storage: MemoryStorage) -> None:
    """Not those of a fallback, of a caller who named the version, nor of one that was refused or failed."""
    _publish(storage, *models.canary((1, STABLE), (2, PICKY), 10_000))
    async with start() as running:
        await running.reload()
        assert await _ask(running, 1, 2, 2, 3, 9) == [200] * 5
        assert await _ask(running, 1, 2, model_version=2) == [200] * 2
        assert await _ask(running, 9, model_version=2) == [500]
        assert await _ask(running, "no number") == [400]
    candidate = _counts(storage.windows(), 2)
    assert candidate.predictions == _told(10.0, 20.0, 20.0, 30.0)
    assert (candidate.requests, candidate.errors, candidate.pinned, candidate.pinned_errors) == (5, 1, 3, 1)
    stable = _counts(storage.windows(), 1)
    assert (stable.fallbacks, stable.predictions) == (1, {})


async def test_a_batch_counts_as_its_calls_one_by_one(start: Start, storage: MemoryStorage) -> None:
    """However they came: alone, together, by either protocol, several rows at a time."""
    _publish(storage, models.route(1, STABLE))
    async with start() as running:
        await running.reload()
        assert await _ask(running, *range(40)) == [200] * 40
        for n in range(40):
            assert (await running.predict([[n]])).status_code == 200
        rows = {"name": "x", "datatype": "INT64", "shape": [40, 1], "data": list(range(40))}
        assert (await running.infer(rows)).status_code == 200
        assert (await running.infer(rows | {"name": "no such input"})).status_code == 400
    counts = _counts(storage.windows(), 1)
    assert counts.predictions == _told(*[10.0 * n for n in range(40)] * 3)
    assert (sum(counts.predictions.values()), counts.requests) == (120, 81)


async def test_requests_of_both_protocols_in_one_batch_count_once_each() -> None:
    """Such a batch is not told together: each call has its own rows of it."""
    plan = models.plan(1, models.route(1, STABLE))
    server = HandServer(plan, {1: Model(version=1, digest="", data=STABLE)}, inline=True)
    asked = [plain([[1], [2]]), infer("INT64", [1, 1], [3]), plain([[4]])]
    server.ask(*asked)
    await turn()
    assert [one.status for one in asked] == [200] * 3
    assert server.serving.lanes[1].runs.rows == 4
    assert server.serving.tally.of(1).counts().predictions == _told(10.0, 20.0, 30.0, 40.0)
    server.close()


async def test_labels_stand_under_their_text(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, models.route(1, LABELS))
    async with start() as running:
        await running.reload()
        for label in ("yes", "no", "yes"):
            assert (await running.predict([[label]])).status_code == 200
    assert _counts(storage.windows(), 1).predictions == {"yes": 2, "no": 1}


async def test_every_window_has_its_own(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, models.route(1, STABLE))
    async with start() as running:
        await running.reload()
        for n in (1, 2):
            assert await _ask(running, n) == [200]
            running.server._windows.close_all()
    windows = [w.versions[1].predictions for w in storage.windows() if w.versions]
    assert windows == [_told(10.0), _told(20.0)]


def test_the_keys_of_a_window_are_bounded_and_no_row_is_lost() -> None:
    tally = VersionTally()
    values = [(-1.03) ** n for n in range(2_000)]
    for start in range(0, len(values), 50):
        tally.answered_together([1.0] * 50, np.array(values[start : start + 50]))
    counts = tally.counts()
    assert sum(counts.predictions.values()) == 2_000
    assert 10 < len(counts.predictions) <= MAX_KEYS


def test_what_is_waiting_to_be_counted_is_bounded() -> None:
    tally = VersionTally()
    waiting = []
    for n in range(2_000):
        tally.answered_together([1.0], np.array([float(n)]))
        waiting.append(len(tally.predictions._fresh))
    assert max(waiting) < 512


def test_workers_tell_each_other_what_failed_of_what_was_pinned() -> None:
    tally = VersionTally()
    tally.failed(Kind.PINNED, 1.0)
    tally.answered(Kind.PINNED, 1.0)
    told = Report(counts=counts_of({"churn": {(1, "stable"): tally}})).totals()["churn"][1, "stable"]
    assert (told.pinned, told.pinned_errors) == (2, 1)
