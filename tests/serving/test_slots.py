"""Pods of an endpoint's own: each follows what the plan has for its slot, for a while what has left it, and says where
the rest is.
"""

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
from aks_serving.api import Api
from aks_serving.lingering import HEARD_S, LINGER_S

from shared.core.slots import Slot
from tests.serving import models
from tests.serving.conftest import Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Asked, infer, plain
from tests.serving.slotted import (
    BLUE,
    GREEN,
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
from tests.serving.test_deployment import Awaited
from tests.serving.test_feedback import an_id

pytestmark = pytest.mark.anyio


@pytest.fixture
def storage() -> MemoryStorage:
    storage = MemoryStorage()
    storage.put(ONE, TWO, THREE)
    return storage


@pytest.mark.parametrize("weight", [0, 1_000, 10_000])
async def test_each_pod_gives_all_that_reaches_it_to_the_version_of_its_slot(
    start: Start, storage: MemoryStorage, tmp_path: Path, weight: int
) -> None:
    storage.publish(dedicated(1, weight))
    async with (
        start(pod="shared") as shared,
        start(pod="blue", cache=tmp_path / "blue", endpoints=("churn",), slot=BLUE) as blue,
    ):
        assert (await loaded(shared), await loaded(blue)) == ([1], [2])
        assert (await why_not_ready(shared), await why_not_ready(blue)) == ("", "")
        assert await answering(shared) == {(1, "stable")}
        assert await answering(blue) == {(2, "candidate")}
        for running, version, share in ((shared, 1, 1 - weight / 10_000), (blue, 2, weight / 10_000)):
            metrics = (await running.client.get("/metrics")).text
            shares = [line for line in metrics.splitlines() if line.startswith("model_version_weight_ratio")]
            (line,) = shares
            name, _, value = line.rpartition(" ")
            assert (name, float(value)) == (f'model_version_weight_ratio{{model="churn",version="{version}"}}', share)
        # Nothing here takes it back by itself: there is no stable version to compare with, or to fall back to.
        assert blue.server.servings["churn"].guard is None
    windows = storage.windows()
    assert {(w.pod, w.slot, *w.loaded) for w in windows} == {("shared", None, 1), ("blue", BLUE, 2)}
    requests = {(w.pod, version): counts.requests for w in windows for version, counts in w.versions.items()}
    assert requests == {("shared", 1): 40, ("blue", 2): 40}
    assert all(("slot" in json.loads(data)) == ("blue" in name) for name, data in storage.blobs.items())


async def test_two_versions_in_the_shared_pods_are_drawn_by_their_weights_as_ever(
    start: Start, storage: MemoryStorage
) -> None:
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), 5_000)))
    async with start() as shared:
        await shared.reload()
        assert await answering(shared) == {(1, "stable"), (2, "candidate")}
        served = shared.server.servings["churn"]
        assert served.elsewhere == ()
        assert served.guard is not None


async def test_a_candidate_that_is_promoted_in_its_slot_goes_on_without_a_load_or_a_failed_request(
    start: Start, storage: MemoryStorage
) -> None:
    storage.publish(dedicated(1))
    answered: set[tuple[str, int]] = set()
    failures: list[dict[str, Any]] = []
    stop = asyncio.Event()

    async def caller(api: Api, number: int) -> None:
        while not stop.is_set():
            asked = Awaited("/predict", json.dumps({"features": [[number, 1]], "user_id": f"u{number}"}).encode())
            api.handle(asked)
            async with asyncio.timeout(20):
                await asked.replied.wait()
            found = asked.json()
            if asked.status != 200 or found["predictions"] != [[2 * number, 2]]:
                failures.append(found)
            answered.add((found.get("role", ""), found.get("generation", 0)))
            await asyncio.sleep(0.002)

    async with start(endpoints=("churn",), slot=BLUE) as blue:
        assert await loaded(blue) == [2]
        reads, lane = storage.artifact_reads, blue.server.servings["churn"].lanes[2]
        api = Api(blue.server)
        callers = [asyncio.create_task(caller(api, number)) for number in range(4)]
        for generation in range(2, 12):
            moved = generation % 2 == 0
            storage.publish(models.plan(generation, stable(2, TWO, BLUE)) if moved else dedicated(generation, 5_000))
            assert await loaded(blue) == [2]
            role = "stable" if moved else "candidate"
            await eventually(lambda g=generation, r=role: (r, g) in answered)  # type: ignore[misc]
            assert blue.server.servings["churn"].lanes[2] is lane
        stop.set()
        await asyncio.gather(*callers)
        assert storage.artifact_reads == reads
    assert failures == []


async def test_what_the_plan_takes_from_a_slot_is_served_on_for_ten_minutes_and_then_let_go(
    start: Start, storage: MemoryStorage
) -> None:
    time = Time()
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, now_s=time) as blue:
        assert await loaded(blue) == [2]
        memory = weakref.ref(blue.server.servings["churn"].lanes[2])
        storage.publish(models.plan(2, stable(1, ONE)))
        assert await loaded(blue) == [2]
        # A later plan that has nothing for it either buys it no more time.
        time.now_s += LINGER_S / 2
        storage.publish(models.plan(3, stable(1, ONE)))
        assert await loaded(blue) == [2]
        time.now_s += LINGER_S / 2 - 0.001
        assert await loaded(blue) == [2]
        assert await why_not_ready(blue) == ""
        time.now_s += 0.001
        await eventually(lambda: blue.server.servings["churn"].plan.generation == 3)
        await eventually(lambda: gc.collect() >= 0 and memory() is None)
        assert await why_not_ready(blue) == (
            "generation 3 of the plan of endpoint 'churn' has no version for slot blue, of which this pod is: "
            "it is served by the shared pods"
        )
        assert await refusal(blue) == (
            "endpoint 'churn' is served by the shared pods, and this is none of them: ask the Gateway, for "
            "/v2/models/churn or with the header x-slipway-endpoint: churn"
        )
        # It goes on following: the next candidate may come here.
        storage.publish(models.plan(4, stable(1, ONE, weight=9_000), candidate(3, THREE, BLUE, 1_000)))
        assert await loaded(blue) == [3]
        assert await why_not_ready(blue) == ""
        assert await answering(blue) == {(3, "candidate")}


async def test_what_comes_back_to_its_slot_in_time_never_left(start: Start, storage: MemoryStorage) -> None:
    time = Time()
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, now_s=time) as blue:
        await blue.reload()
        lane = blue.server.servings["churn"].lanes[2]
        storage.publish(models.plan(2, stable(1, ONE)))
        await blue.reload()
        time.now_s += LINGER_S - 1
        storage.publish(dedicated(3))
        await blue.reload()
        assert blue.server.servings["churn"].lanes[2] is lane
        assert blue.server.servings["churn"].plan.generation == 3
        time.now_s += 2
        storage.publish(models.plan(4, stable(1, ONE)))
        assert await loaded(blue) == [2]
        time.now_s += LINGER_S - 1
        assert await loaded(blue) == [2]


async def test_the_next_candidate_is_loaded_beside_what_lingers_which_goes_on_until_then(
    start: Start, storage: MemoryStorage
) -> None:
    time = Time()
    storage.publish(dedicated(1))
    async with start(endpoints=("churn",), slot=BLUE, now_s=time) as blue:
        await blue.reload()
        storage.publish(models.plan(2, stable(1, ONE)))
        await blue.reload()
        # Before the Gateway has heard, nothing makes room of it; afterwards it may, where memory is short.
        time.now_s += HEARD_S - 1
        assert await blue.server._deployments.evict_one() is None
        storage.outages[models.digest(THREE)] = 1
        storage.publish(models.plan(3, stable(1, ONE, weight=9_000), candidate(3, THREE, BLUE, 1_000)))
        await blue.server._poller.poll()
        assert await answering(blue) == {(2, "candidate")}
        time.now_s += LINGER_S
        for deployment in blue.server._deployments.values():
            deployment.look()
        assert await answering(blue) == {(2, "candidate")}
        assert await blue.server._deployments.evict_one() is not None
        assert "the plan has it elsewhere" in await refusal(blue, 503)
        assert await loaded(blue) == [3]


async def test_where_nothing_is_served_any_more_no_pod_lingers(start: Start, storage: MemoryStorage) -> None:
    storage.publish(models.plan(1, candidate(2, TWO, BLUE, 10_000)))
    async with start(endpoints=("churn",), slot=BLUE) as blue:
        assert await loaded(blue) == [2]
        storage.publish(models.plan(2))
        assert await loaded(blue) == []
        assert "no version serves it yet" in await refusal(blue, 503)
        assert await why_not_ready(blue) == "endpoint 'churn' has no version that answers yet"


async def test_a_pod_of_an_idle_slot_starts_lives_and_is_not_ready(start: Start, storage: MemoryStorage) -> None:
    storage.publish(models.plan(7, stable(2, TWO, GREEN)))
    async with start(endpoints=("churn",), slot=BLUE) as blue:
        assert await loaded(blue) == []
        reason = await why_not_ready(blue)
        assert "generation 7" in reason
        assert "it is served by pods of its own (slot green)" in reason
        assert storage.artifact_reads == 0
        found = (await blue.client.get("/ab-test/stats")).json()["endpoints"]["churn"]
        assert (found["loaded"], found["routes"]) == ([], [])
        assert found["elsewhere"] == [{"version": 2, "role": "stable", "slot": "green"}]
        assert (await blue.client.get("/v2/models/churn/ready")).status_code == 503
        for path in ("/v2/models/churn", "/v2/models/churn/config", "/v2/models/churn/versions/2"):
            answer = await blue.client.get(path)
            assert (answer.status_code, "pods of its own (slot green)" in answer.text) == (404, True), path
        assert (await blue.client.post("/v2/repository/index", json={})).json() == []
        assert (await blue.client.get("/metrics")).status_code == 200


async def test_a_shared_pod_goes_on_with_other_endpoints_when_one_gets_pods_of_its_own(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    time = Time()
    storage.publish(models.plan(1, stable(1, ONE)))
    storage.publish(models.plan(1, stable(5, TWO), endpoint="fraud"))
    async with (
        start(now_s=time) as every,
        start(pod="both", cache=tmp_path / "both", endpoints=("churn", "fraud"), now_s=time) as both,
        start(pod="one", cache=tmp_path / "one", endpoints=("churn",), now_s=time) as one,
    ):
        pods = (every, both, one)
        for running in pods:
            assert await loaded(running) == [1]
        storage.publish(models.plan(2, stable(2, TWO, GREEN)))
        for running in pods:
            assert await loaded(running) == [1]
        time.now_s += LINGER_S
        for running in pods:
            await eventually(lambda r=running: not r.server.servings["churn"].lanes)  # type: ignore[misc]
            assert "endpoint 'churn' is served by pods of its own (slot green)" in await refusal(running)
        for running in (every, both):
            assert await why_not_ready(running) == ""
            assert (await running.predict(ROWS, model="fraud")).json()["model_version"] == 5
        assert "no version for the shared pods, of which this is one" in await why_not_ready(one)
        # Back in the shared pods.
        storage.publish(models.plan(3, stable(2, TWO)))
        for running in pods:
            assert await loaded(running) == [2]
            assert await why_not_ready(running) == ""


@pytest.mark.parametrize("pod", [None, BLUE])
async def test_a_version_that_other_pods_have_is_named_with_how_to_reach_it(
    start: Start, storage: MemoryStorage, pod: Slot | None
) -> None:
    storage.publish(dedicated(1))
    mine, other, where = (1, 2, "pods of its own (slot blue)") if pod is None else (2, 1, "the shared pods")
    text = (
        f"version {other} of endpoint 'churn' is served by {where}, and this is none of them: ask the Gateway, "
        f"for /v2/models/churn/versions/{other} or with the headers x-slipway-endpoint: churn and "
        f"x-slipway-version: {other}"
    )
    async with start(endpoints=("churn",), slot=pod) as running:
        await running.reload()
        assert await refusal(running, model_version=other) == text
        infer = await running.infer(
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 1]}, path=f"churn/versions/{other}"
        )
        assert (infer.status_code, infer.json()) == (404, {"error": text})
        assert "does not exist: loaded: " in await refusal(running, model_version=9)
        assert (await running.predict(ROWS, model_version=mine)).json()["model_version"] == mine


async def test_the_gateways_header_names_the_version_that_answers(start: Start, storage: MemoryStorage) -> None:
    """The Gateway sends such a request to the pods of that version, which may have another one too."""
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), 0)))

    def named(asked: Asked, version: str) -> Asked:
        asked.headers = {b"x-slipway-version": version.encode()}
        return asked

    async with start() as shared:
        await shared.reload()
        api = Api(shared.server)

        async def ask(asked: Asked) -> tuple[int, Any]:
            api.handle(asked)
            await eventually(lambda: bool(asked.replies))
            return asked.status, asked.told.get(b"x-slipway-version", asked.response.body)

        assert await ask(named(plain(ROWS), "2")) == (200, b"2")
        assert await ask(named(plain(ROWS), "1")) == (200, b"1")
        assert await ask(named(plain(ROWS, model_version=2), "2")) == (200, b"2")
        assert await ask(named(infer("FP32", [1, 2], [1, 1]), "2")) == (200, b"2")
        status, said = await ask(named(plain(ROWS, model_version=1), "2"))
        assert (status, b"names version 1, and its header x-slipway-version version 2: name one" in said) == (400, True)
        assert (await ask(named(plain(ROWS), "two")))[0] == 400
        assert (await ask(named(plain(ROWS), "3")))[0] == 404
        totals = shared.server.totals()["churn"]
        assert {version: (found.requests, found.pinned) for version, found in totals.items()} == {1: (0, 1), 2: (0, 3)}


async def test_feedback_on_any_version_is_taken_wherever_the_endpoint_is_followed(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    storage.publish(dedicated(1))
    async with (
        start(pod="shared") as shared,
        start(pod="green", cache=tmp_path / "green", endpoints=("churn",), slot=GREEN) as green,
    ):
        items = [{"prediction_id": an_id(version=version, count=version), "value": 1.0} for version in (1, 2)]
        for running in (shared, green):
            await running.reload()
            answer = await running.client.post("/feedback", json={"feedback": items})
            assert (answer.status_code, answer.json()) == (200, {"accepted": 2, "repeated": 0}), answer.text
        by_user = {"feedback": [{"user_id": "ann", "value": 1.0}]}
        refused = await shared.client.post("/feedback", json=by_user)
        assert refused.status_code == 400
        assert "a user has no version: send the prediction_id" in refused.json()["error"]
        refused = await green.client.post("/feedback", json=by_user)
        assert refused.status_code == 404
        assert "served by the shared pods and pods of its own (slot blue)" in refused.json()["error"]
    taken = {(w.pod, w.slot, found.version) for w in storage.windows() for found in w.feedback}
    assert taken == {("shared", None, 1), ("shared", None, 2), ("green", GREEN, 1), ("green", GREEN, 2)}


async def test_a_pod_that_starts_while_storage_is_down_has_the_version_of_its_slot_from_its_cache(
    start: Start, storage: MemoryStorage
) -> None:
    time = Time()
    storage.publish(dedicated(1))

    def blue() -> Any:
        return start(endpoints=("churn",), slot=BLUE, now_s=time)

    async with blue() as running:
        await running.reload()
        storage.publish(models.plan(2, stable(1, ONE)))
        await running.reload()
    # What lingers goes on after a restart: the Gateway may not have heard yet.
    storage.down = True
    async with blue() as running:
        await eventually(lambda: bool(running.server.servings))
        assert await answering(running) == {(2, "candidate")}
        storage.down = False
        assert await loaded(running) == [2]
        time.now_s += LINGER_S
        await eventually(lambda: not running.server.servings["churn"].lanes)
    # What it let go it does not take up again.
    storage.down = True
    async with blue() as running:
        await eventually(lambda: bool(running.server.servings))
        assert "has no version for slot blue" in await why_not_ready(running)


async def test_an_idle_pod_says_once_a_minute_that_it_is_there_also_during_a_rollout(
    start: Start, storage: MemoryStorage
) -> None:
    plan = models.plan(3, stable(1, ONE, GREEN, weight=5_000), candidate(2, TWO, None, 5_000))
    storage.publish(plan.model_copy(update={"rollout_id": "rollout"}))
    async with start(endpoints=("churn",), slot=BLUE) as blue:
        await blue.reload()
        await eventually(lambda: len(storage.windows()) == 1)
        blue.server._windows.close_all()
        assert len(storage.windows()) == 1
    first, last = storage.windows()
    assert [(w.slot, w.generation, w.loaded, w.failed) for w in (first, last)] == [(BLUE, 3, [], {})] * 2
    assert (first.is_last, last.is_last) == (False, True)
