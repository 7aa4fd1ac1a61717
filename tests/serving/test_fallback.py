"""A candidate that fails is answered for by stable; everything is counted once and in the right place."""

import asyncio
import itertools
import math
from typing import Any

import pytest

from shared.routing.assignment import bucket
from shared.routing.plan import SubjectSource
from shared.telemetry.window import VersionCounts, Window, merge_counts
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

STABLE, PICKY = models.table(), models.picky(limit=4)
HALF = 5_000


def _publish(storage: MemoryStorage, generation: int = 1, *, weight: int = HALF, candidate: bytes = PICKY) -> None:
    storage.put(STABLE, candidate)
    storage.publish(models.plan(generation, *models.canary((1, STABLE), (2, candidate), weight)))


def _merged(windows: list[Window]) -> dict[int, VersionCounts]:
    versions = {version for window in windows for version in window.versions}
    return {v: merge_counts([w.versions[v] for w in windows if v in w.versions]) for v in versions}


def _summary(counts: VersionCounts) -> tuple[int, int, int, int, int]:
    return counts.requests, counts.errors, counts.fallbacks, counts.pinned, sum(counts.latency_ms.values())


async def test_a_failing_candidate_is_answered_for_by_stable_and_says_so(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, weight=10_000)
    async with start() as running:
        await running.reload()
        good = await running.predict([[2]], user_id="ada")
        assert (good.json()["predictions"], good.json()["role"], good.json()["fallback"]) == (
            [[20.0]],
            "candidate",
            False,
        )
        bad = await running.predict([[7]], user_id="ada")
        body = bad.json()
        assert (bad.status_code, body["predictions"], body["model_version"]) == (200, [[70.0]], 1)
        assert (body["role"], body["fallback"], bad.headers["x-slipway-fallback"]) == ("stable", True, "true")
        v2 = await running.infer({"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [7]})
        assert (v2.json()["model_version"], v2.headers["x-slipway-fallback"]) == ("1", "true")


async def test_a_failing_stable_version_is_a_500_with_one_line(start: Start, storage: MemoryStorage) -> None:
    storage.put(PICKY)
    storage.publish(models.plan(1, models.route(1, PICKY)))
    async with start() as running:
        await running.reload()
        answer = await running.predict([[7]])
        assert answer.status_code == 500
        assert answer.json()["error"].startswith("version 1 failed on this request: ")
        assert "\n" not in answer.json()["error"]
        assert (await running.predict([[3]])).status_code == 200
    counts = _merged(storage.windows())[1]
    assert _summary(counts) == (2, 1, 0, 0, 1)


async def test_a_version_that_the_caller_named_fails_by_itself(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()
        assert (await running.predict([[7]], model_version=2)).status_code == 500
        assert (await running.predict([[3]], model_version=2)).status_code == 200
        series = (await running.client.get("/metrics")).text.splitlines()
    counts = _merged(storage.windows())
    assert {v: _summary(c) for v, c in counts.items()} == {2: (0, 0, 0, 2, 0)}
    assert counts[2].pinned_errors == 1
    named = 'model_prediction_requests_total{model="churn",version="2",variant="candidate",outcome='
    assert {f'{named}"pinned"}} 1', f'{named}"pinned_error"}} 1', f'{named}"error"}} 0'} <= set(series)


async def test_the_windows_hold_every_request_once(start: Start, storage: MemoryStorage) -> None:
    """Many mixed requests at once, over three generations: the sums equal what the callers saw."""
    _publish(storage)
    expected = {1: [0, 0, 0, 0, 0], 2: [0, 0, 0, 0, 0]}
    users = range(600)

    def on_candidate(user: int) -> bool:
        return bucket("salt", str(user)) < HALF

    async def ask(running: Running, user: int) -> None:
        kind = user % 10
        if kind == 0:
            assert (await running.predict([[1]], user_id=user, model_version=1)).status_code == 200
            expected[1][3] += 1
        elif kind == 1:
            assert (await running.predict([["no number"]], user_id=user)).status_code == 400
        elif kind == 2 and on_candidate(user):
            answer = await running.predict([[9]], user_id=user)
            assert answer.json()["fallback"] is True
            expected[2][0] += 1
            expected[2][1] += 1
            expected[1][2] += 1
        else:
            version = (await running.predict([[1]], user_id=user)).json()["model_version"]
            assert version == (2 if on_candidate(user) else 1)
            expected[version][0] += 1
            expected[version][4] += 1

    async with start(window_s=0.05) as running:
        await running.reload()
        for generation in (2, 3, 4):
            asking = asyncio.gather(*(ask(running, user) for user in users))
            await asyncio.sleep(0)
            _publish(storage, generation)
            await running.reload()
            await asking
        stats = (await running.client.get("/ab-test/stats")).json()["endpoints"]["churn"]["versions"]
    windows = storage.windows()
    assert {v: list(_summary(c)) for v, c in _merged(windows).items()} == expected
    for version, (requests, errors, fallbacks, pinned, _) in expected.items():
        counted = stats[str(version)]
        assert (counted["requests"], counted["errors"]) == (requests, errors)
        assert (counted["fallbacks"], counted["pinned"]) == (fallbacks, pinned)
        assert 0 < counted["p50_ms"] <= counted["p95_ms"] <= counted["p99_ms"]
    assert {window.generation for window in windows if window.versions} >= {1, 2, 3}
    assert [window.sequence for window in windows] == list(range(len(windows)))
    assert [window.generation for window in windows] == sorted(window.generation for window in windows)
    for earlier, later in itertools.pairwise(windows):
        assert earlier.ended_at <= later.ended_at


async def test_a_candidate_that_is_not_loaded_is_reported_and_answered_for(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, weight=10_000, candidate=b"no model")
    async with start() as running:
        await running.reload()
        answer = await running.predict([[7]])
        assert (answer.json()["predictions"], answer.json()["fallback"]) == ([[70.0]], True)
    windows = storage.windows()
    assert windows[0].loaded == [1]
    assert "ONNX Runtime cannot load" in windows[0].failed[2]
    assert {v: _summary(c) for v, c in _merged(windows).items()} == {1: (0, 0, 1, 0, 0), 2: (1, 1, 0, 0, 0)}


async def test_without_a_loaded_stable_version_the_candidate_speaks_for_itself(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(PICKY, b"no model")
    storage.publish(models.plan(1, *models.canary((1, b"no model"), (2, PICKY), 10_000)))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[3]])).json()["predictions"] == [[30.0]]
        assert (await running.predict([[7]])).status_code == 500
        assert (await running.predict([["no number"]])).status_code == 400
    assert {v: _summary(c) for v, c in _merged(storage.windows()).items()} == {2: (2, 1, 0, 0, 1)}


async def test_inputs_that_stable_takes_and_the_candidate_does_not_count_against_the_candidate(
    start: Start, storage: MemoryStorage
) -> None:
    _publish(storage, weight=10_000, candidate=models.scaler(2.0, name="other"))
    async with start() as running:
        await running.reload()
        answer = await running.predict({"x": [[7]]})
        assert (answer.json()["predictions"], answer.json()["fallback"]) == ([[70.0]], True)
        assert (await running.predict({"neither": [[7]]})).status_code == 400
    assert {v: _summary(c) for v, c in _merged(storage.windows()).items()} == {
        1: (0, 0, 1, 0, 0),
        2: (1, 1, 0, 0, 0),
    }


async def test_a_caller_that_leaves_does_not_change_the_counts_of_others(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, weight=10_000)
    async with start() as running:
        await running.reload()
        asking: list[asyncio.Task[Any]] = [asyncio.create_task(running.predict([[n % 8]])) for n in range(80)]
        await asyncio.sleep(0)
        for task in asking[::3]:
            task.cancel()
        answers: list[Any] = await asyncio.gather(*asking, return_exceptions=True)
        left = [n for n, answer in enumerate(answers) if not isinstance(answer, asyncio.CancelledError)]
        assert [answers[n].json()["predictions"] for n in left] == [[[n % 8 * 10.0]] for n in left]
        await eventually(lambda: running.server.engine.waiting == 0)
        assert running.server.servings["churn"].tally.in_flight == 0
    counts = _merged(storage.windows())
    assert counts[2].requests >= len(left)
    assert counts[2].errors >= sum(n % 8 >= 4 for n in left)
    assert sum(counts[2].latency_ms.values()) == counts[2].requests - counts[2].errors


async def test_the_first_window_tells_what_is_loaded_and_heartbeats_follow_only_with_a_candidate(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(STABLE)
    storage.publish(models.plan(1, models.route(1, STABLE)))
    async with start(window_s=0.05) as running:
        await running.reload()
        await eventually(lambda: len(storage.blobs) == 1)
        _publish(storage, 2)
        await running.reload()
        await eventually(lambda: len(storage.blobs) >= 5)
        storage.publish(models.plan(3, models.route(1, STABLE)))
        await running.reload()
        await eventually(lambda: storage.windows()[-1].generation == 3)
    windows = storage.windows()
    # The pod says once more what it serves when it begins to load for generation 2.
    first = [w.loaded for w in windows if w.generation == 1]
    assert first[:2] == [[1], [1]]
    assert all(loaded == [1] for loaded in first)
    assert all(w.loaded == [1, 2] and not w.versions for w in windows if w.generation == 2)
    # The last one says that the server stops.
    assert [(w.loaded, w.is_last) for w in windows if w.generation == 3] == [([1], False), ([1], True)]
    assert not any(w.is_last for w in windows[:-1])
    assert all(name.startswith("churn/") and "/pod-" in name for name in storage.blobs)


async def test_windows_wait_while_storage_is_down(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    async with start(window_s=0.05) as running:
        await running.reload()
        storage.down = True
        before = len(storage.blobs)
        for user in range(40):
            await running.predict([[1]], user_id=user)
        assert len(storage.blobs) <= before + 1
        storage.down = False
    assert sum(counts.requests for counts in _merged(storage.windows()).values()) == 40


async def test_the_metrics_tell_of_versions_outcomes_and_latency(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, weight=10_000)
    async with start() as running:
        await running.reload()
        for index in (1, 2, 9):
            await running.predict([[index]])
        answer = await running.client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = set(answer.text.splitlines())
    requests, latency = "model_prediction_requests_total", "model_prediction_latency_seconds"
    candidate, stable = '{model="churn",version="2",variant="candidate"', '{model="churn",version="1",variant="stable"'
    assert {
        f'{requests}{candidate},outcome="success"}} 2',
        f'{requests}{candidate},outcome="error"}} 1',
        f'{requests}{stable},outcome="fallback"}} 1',
        f'{latency}_bucket{candidate},outcome="success",le="+Inf"}} 2',
        f'{latency}_count{candidate},outcome="success"}} 2',
    } <= lines
    assert {'model_loaded{model="churn",version="1"} 1', 'model_loaded{model="churn",version="2"} 1'} <= lines
    assert 'model_plan_generation{model="churn"} 1' in lines


async def test_the_pod_takes_a_failing_candidate_out_of_traffic_by_itself(
    start: Start, storage: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """With the control plane gone, and for good: what tripped stays tripped through a restart, for its generation."""
    _publish(storage)
    async with start() as running:
        await running.reload()
        storage.down = True
        serving = running.server.servings["churn"]

        async def tripped() -> bool:
            answers = await asyncio.gather(*(running.predict([[7]], user_id=n) for n in range(60)))
            assert all(answer.status_code == 200 for answer in answers)
            return bool(serving.tripped)

        await eventually(tripped)
        answers = await asyncio.gather(*(running.predict([[7]], user_id=n) for n in range(200)))
        assert not any(answer.json()["fallback"] for answer in answers)
        assert "failed" in serving.tripped[2]
        told = f"endpoint churn: version 2 gets no more traffic under generation 1: {serving.tripped[2]}"
        assert caplog.messages.count(told) == 1
        storage.down = False
        await running.server.reload()
        assert running.server.servings["churn"] is serving
    reported = [window.tripped for window in storage.windows() if window.tripped]
    assert reported[-1] == serving.tripped
    async with start() as again:
        await again.reload()
        answers = await asyncio.gather(*(again.predict([[7]], user_id=n) for n in range(200)))
        assert not any(answer.json()["fallback"] for answer in answers)
        _publish(storage, 2)
        await again.reload()
        answers = await asyncio.gather(*(again.predict([[7]], user_id=n) for n in range(200)))
        assert any(answer.json()["fallback"] for answer in answers)


async def test_an_outage_of_both_versions_trips_nobody(start: Start, storage: MemoryStorage) -> None:
    _publish(storage, candidate=models.picky(limit=3))
    storage.put(PICKY)
    storage.publish(models.plan(2, *models.canary((1, PICKY), (2, models.picky(limit=3)), HALF)))
    async with start() as running:
        await running.reload()
        serving = running.server.servings["churn"]
        for _ in range(6):
            answers = await asyncio.gather(*(running.predict([[7]], user_id=n) for n in range(60)))
            assert all(answer.status_code == 500 for answer in answers)
            serving.look()
            await asyncio.sleep(0.11)
        assert not serving.tripped


async def test_a_value_that_is_no_number_is_the_candidates_failure_where_the_plan_says_so(
    start: Start, storage: MemoryStorage
) -> None:
    stable, broken = models.scaler(2.0), models.scaler(math.nan)
    storage.put(stable, broken)
    routes = models.canary((1, stable), (2, broken), 10_000)
    storage.publish(models.plan(1, *routes))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1, 2]])).json()["predictions"] == [["NaN", "NaN"]]
        storage.publish(models.plan(2, *(route.model_copy(update={"allow_nan": False}) for route in routes)))
        await running.reload()
        answers = await asyncio.gather(*(running.predict([[1, n]]) for n in range(5)))
        assert all((a.json()["fallback"], a.json()["predictions"][0][0]) == (True, 2.0) for a in answers)
    assert _merged(storage.windows())[2].errors == 5


async def test_who_comes_without_a_subject_is_given_a_cookie_and_sticks(start: Start, storage: MemoryStorage) -> None:
    stable, other = models.scaler(1.0), models.scaler(2.0)
    storage.put(stable, other)
    plan = models.plan(1, *models.canary((1, stable), (2, other), HALF))
    source = SubjectSource(header=None, body=False, cookie="visitor")
    storage.publish(plan.model_copy(update={"subject": source}))
    async with start() as running:
        await running.reload()
        versions = set()
        for _ in range(40):
            running.client.cookies.clear()
            first = await running.predict([[1, 2]])
            assert first.headers["set-cookie"].startswith("visitor=")
            versions.add(first.json()["model_version"])
            cookie = first.headers["set-cookie"].split(";")[0]
            headers = [("cookie", "other=1"), ("cookie", cookie)]
            running.client.cookies.clear()
            again = await running.client.post("/predict", json={"features": [[1, 2]]}, headers=headers)
            assert again.json()["model_version"] == first.json()["model_version"]
            assert "set-cookie" not in again.headers
        assert versions == {1, 2}
