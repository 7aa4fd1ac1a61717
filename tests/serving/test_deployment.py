"""Plans: which are taken, when they are applied, and what goes on meanwhile."""

import asyncio
import gc
import json
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
from aks_serving.api import Api
from aks_serving.deployment import backoff_s
from aks_serving.errors import LoadCode, LoadError
from aks_serving.exchange import Response

from shared.core.errors import SlipwayError, UnavailableError
from shared.core.ids import EndpointName
from shared.routing.plan import Role
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Asked

pytestmark = pytest.mark.anyio

ONE, TWO, THREE = models.scaler(1.0), models.scaler(2.0), models.scaler(3.0)
CHURN = EndpointName("churn")
_BREATH_S = 0.005
"""Callers leave the processor some time: what loads gives way to them, and to all else on the machine."""


def _one_case(y: float, *, width: int = 2) -> bytes:
    tensor: dict[str, Any] = {"datatype": "FP32", "shape": [1, width]}
    return models.golden([({"x": tensor | {"data": [1.0] * width}}, {"y": tensor | {"data": [y] * width}})])


def _generation(running: Running) -> int:
    return running.server.servings["churn"].plan.generation


class Awaited(Asked):
    """A request whose reply can be waited for."""

    def __init__(self, path: str, body: bytes) -> None:
        super().__init__(path, body)
        self.replied = asyncio.Event()

    def reply(self, response: Response) -> None:
        super().reply(response)
        self.replied.set()


async def test_fifty_swaps_under_load_fail_no_request(start: Start, storage: MemoryStorage) -> None:
    files = [models.scaler(float(factor)) for factor in range(1, 6)]
    storage.put(*files)
    storage.publish(models.plan(1, models.route(1, files[0])))
    seen: set[int] = set()
    failures: list[str] = []
    stop = asyncio.Event()

    async def caller(api: Api, number: int) -> None:
        body = json.dumps({"features": [[number, 1]]}).encode()
        while not stop.is_set():
            asked = Awaited("/predict", body)
            api.handle(asked)
            async with asyncio.timeout(20):
                await asked.replied.wait()
            answer = asked.json()
            factor = (answer.get("model_version", 0) - 1) % 5 + 1
            if asked.status != 200 or answer["predictions"] != [[number * factor, factor]]:
                failures.append(str(answer))
            seen.add(answer.get("generation", 0))
            await asyncio.sleep(_BREATH_S)

    async with start() as running:
        await running.reload()
        api = Api(running.server)
        callers = [asyncio.create_task(caller(api, number)) for number in range(8)]
        for generation in range(2, 52):
            storage.publish(models.plan(generation, models.route(generation, files[(generation - 1) % 5])))
            assert (await running.reload())["endpoints"]["churn"]["loaded"] == [generation]
        stop.set()
        await asyncio.gather(*callers)
    assert failures == []
    assert len(seen) > 25


async def test_an_unloaded_version_gives_its_memory_back(start: Start, storage: MemoryStorage) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start() as running:
        await running.reload()
        session = weakref.ref(running.server.servings["churn"].lanes[1])
        storage.publish(models.plan(2, models.route(2, TWO)))
        await running.reload()
        await eventually(lambda: gc.collect() >= 0 and session() is None)


@pytest.mark.parametrize(
    "published",
    [
        b"",
        b"{",
        models.plan(9, models.route(2, TWO)).model_dump_json().encode()[:-5],
        models.plan(9, models.route(2, TWO), endpoint="fraud").model_dump_json().encode(),
        models.plan(9, models.route(2, TWO)).model_dump_json().replace("10000", "9000").encode(),
        json.dumps(models.plan(9, models.route(2, TWO)).model_dump(mode="json") | {"wish": 1}).encode(),
        models.plan(4, models.route(2, TWO)).model_dump_json().encode(),
        models.plan(5, models.route(2, TWO)).model_dump_json().encode(),
    ],
    ids=["empty", "torn", "cut", "of another endpoint", "incoherent", "unknown field", "older", "same generation"],
)
async def test_a_torn_foreign_or_older_plan_is_refused_once_and_the_last_goes_on(
    start: Start, storage: MemoryStorage, published: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(5, models.route(1, ONE)))
    async with start() as running:
        await running.reload()
        storage.plans[CHURN] = published
        for _ in range(3):
            await running.reload()
        assert (await running.predict([[1, 1]])).json()["model_version"] == 1
        assert _generation(running) == 5
        assert len([record for record in caplog.records if "refused" in record.message]) == 1
        storage.publish(models.plan(6, models.route(2, TWO)))
        await running.reload()
        assert _generation(running) == 6


@pytest.mark.parametrize("endpoints", [(), ("churn",)])
async def test_a_plan_that_did_not_change_is_not_read_again(
    start: Start, storage: MemoryStorage, endpoints: tuple[str, ...]
) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(endpoints=endpoints) as running:
        for _ in range(4):
            await running.reload()
    assert storage.plan_reads == 1


async def test_a_deleted_plan_changes_nothing(start: Start, storage: MemoryStorage) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start() as running:
        await running.reload()
        storage.plans.clear()
        await running.reload()
        assert (await running.predict([[1, 1]])).status_code == 200


async def test_a_change_of_weights_loads_nothing_and_keeps_subjects(start: Start, storage: MemoryStorage) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), 1_000)))
    async with start() as running:
        await running.reload()
        reads = storage.artifact_reads

        async def on_candidate() -> set[int]:
            answers = await asyncio.gather(*(running.predict([[1, 1]], user_id=user) for user in range(300)))
            return {user for user, answer in enumerate(answers) if answer.json()["model_version"] == 2}

        early = await on_candidate()
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 5_000)))
        await running.reload()
        late = await on_candidate()
        assert early < late
        assert storage.artifact_reads == reads


async def test_a_rollback_applies_while_the_next_candidate_is_still_fetched(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    let_go = storage.held[models.digest(TWO)] = threading.Event()
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "churn" in running.server.servings)
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 5_000)))
        await eventually(lambda: storage.artifact_reads == 2)
        assert _generation(running) == 1
        storage.publish(models.plan(3, models.route(1, ONE)))
        await eventually(lambda: _generation(running) == 3)
        let_go.set()
        assert sorted(running.server.servings["churn"].lanes) == [1]


async def test_an_altered_artifact_is_named_and_never_loaded(start: Start, storage: MemoryStorage) -> None:
    storage.put(ONE)
    storage.artifacts[models.digest(TWO)] = models.scaler(99.0)[: len(TWO)].ljust(len(TWO), b"\0")
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), 10_000)))
    async with start() as running:
        state = (await running.reload())["endpoints"]["churn"]
        assert state["loaded"] == [1]
        assert state["failed"]["2"].startswith("altered: what storage has as the model is")
        answer = await running.predict([[4, 4]])
        assert answer.json()["predictions"] == [[4.0, 4.0]]
        assert answer.headers["x-slipway-fallback"] == "true"


async def test_golden_rows_that_differ_keep_a_version_out_and_show_the_difference(
    start: Start, storage: MemoryStorage
) -> None:
    right, wrong = _one_case(2.0), _one_case(2.5)
    storage.put(ONE, TWO, right, wrong)
    storage.publish(models.plan(1, models.route(2, TWO, golden=right)))
    async with start() as running:
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [2]
        storage.publish(models.plan(2, models.route(3, TWO, golden=wrong)))
        state = (await running.reload())["endpoints"]["churn"]
        assert "golden case 1 of 1: output 'y' differs in 2 of 2 values" in state["failed"]["3"]
        assert "expected 2.5, found 2.0" in state["failed"]["3"]
        assert _generation(running) == 1
        assert (await running.predict([[1, 1]])).json()["model_version"] == 2


async def test_altered_golden_rows_are_refused(start: Start, storage: MemoryStorage) -> None:
    golden = _one_case(1.0)
    storage.put(ONE)
    storage.artifacts[models.digest(golden)] = golden.replace(b"0.0001", b"1000.0")
    storage.publish(models.plan(1, models.route(1, ONE, golden=golden)))
    async with start() as running:
        failed = (await running.reload())["endpoints"]["churn"]["failed"]
        assert failed["1"].startswith("altered: what storage has as the golden rows is")
        assert (await running.client.get("/ready")).status_code == 503
        assert (await running.predict([[1, 1]])).status_code == 503


async def test_a_missing_artifact_fails_at_once_and_an_outage_is_waited_out(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.05) as running:
        await eventually(lambda: "churn" in running.server.servings)
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 0)))
        await eventually(lambda: "does not exist" in running.server.servings["churn"].failed.get(2, ""))
        storage.put(TWO)
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1, 2]


@pytest.mark.parametrize("role", ["stable", "candidate"])
@pytest.mark.parametrize(
    "fault", ["missing: the model cannot be had: ", "altered: what storage has as the model is "], ids=lambda f: f[:7]
)
async def test_an_artifact_that_is_put_back_is_loaded_without_being_asked_for(
    start: Start, storage: MemoryStorage, role: str, fault: str
) -> None:
    stable, candidate = ((1, ONE), (2, TWO)) if role == "candidate" else ((2, TWO), (1, ONE))
    storage.put(ONE)
    if fault.startswith("altered"):
        storage.artifacts[models.digest(TWO)] = ONE
    storage.publish(models.plan(1, *models.canary(stable, candidate, 5_000)))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: storage.artifact_reads >= 4)
        serving = running.server.servings["churn"]
        assert serving.failed[2].startswith(fault)
        assert serving.waiting == frozenset()
        await eventually(lambda: storage.windows()[-1].failed == serving.failed)
        storage.put(TWO)
        await eventually(lambda: sorted(running.server.servings["churn"].lanes) == [1, 2])
        assert running.server.servings["churn"].failed == {}


@pytest.mark.parametrize(
    ("error", "longest_s"),
    [
        (UnavailableError("blob storage", "it is down"), 30.0),
        (LoadError(LoadCode.MISSING, "it is not there"), 30.0),
        (LoadError(LoadCode.ALTERED, "it is another, all of which was fetched to see that"), 600.0),
    ],
)
async def test_pauses_between_loads_grow_to_what_a_try_costs(error: SlipwayError, longest_s: float) -> None:
    pauses_s = [backoff_s(error, attempt) for attempt in range(1, 2_000)]
    assert pauses_s[:3] == [0.25, 0.5, 1.0]
    assert sorted(pauses_s) == pauses_s
    assert set(pauses_s[20:]) == {longest_s}


@pytest.mark.parametrize("fault", ["missing", "out"])
async def test_what_is_to_be_tried_again_later_is_tried_at_once_by_a_reload_and_with_the_next_plan(
    start: Start, storage: MemoryStorage, fault: str
) -> None:
    routes = models.canary((1, ONE), (2, TWO), 5_000)
    storage.put(ONE)
    storage.outages[models.digest(TWO)] = 1_000 if fault == "out" else 0
    storage.publish(models.plan(1, *routes))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: 2 in running.server.servings["churn"].failed if running.server.servings else False)
        async with asyncio.timeout(30):  # the pauses between so many attempts are minutes
            for _ in range(10):
                reads = storage.artifact_reads
                assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1]
                assert storage.artifact_reads > reads
            for generation in range(2, 8):
                reads = storage.artifact_reads
                storage.publish(models.plan(generation, *routes))
                await eventually(lambda reads=reads: storage.artifact_reads > reads)  # type: ignore[misc]
        storage.put(TWO)
        storage.outages.clear()
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1, 2]


@pytest.mark.parametrize("outages", [2, 4])  # fewer than what a plan waits for, and more
async def test_a_load_that_storage_interrupts_is_tried_again_and_never_reported_as_failed(
    start: Start, storage: MemoryStorage, outages: int
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "churn" in running.server.servings)
        storage.outages[models.digest(TWO)] = outages
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 0)))
        await eventually(lambda: 2 in running.server.servings["churn"].lanes)
        running.server.stop_soon()
    windows = [window for window in storage.windows() if window.generation == 2]
    assert windows[-1].loaded == [1, 2]
    assert not any(window.failed for window in windows)


async def test_a_plan_is_applied_without_the_version_that_a_lasting_outage_keeps_away(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "churn" in running.server.servings)
        storage.outages[models.digest(TWO)] = 1_000
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 0)))
        await eventually(lambda: running.server.servings["churn"].plan.generation == 2)
        serving = running.server.servings["churn"]
        assert sorted(serving.lanes) == [1]
        assert "trying again" in serving.failed[2]
        assert serving.waiting == {2}


async def test_an_idle_pod_that_is_loading_reports_so_that_the_rollout_waits_for_it(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "churn" in running.server.servings)
        await eventually(lambda: len(storage.windows()) == 1)
        storage.outages[models.digest(TWO)] = 2
        storage.publish(models.plan(2, *models.canary((1, ONE), (2, TWO), 0)))
        await eventually(lambda: 2 in running.server.servings["churn"].lanes)
        await eventually(lambda: storage.windows()[-1].generation == 2)
    assert [(window.generation, window.loaded) for window in storage.windows()][:3] == [(1, [1]), (1, [1]), (2, [1, 2])]


async def test_a_stable_version_that_cannot_load_leaves_the_older_one_serving(
    start: Start, storage: MemoryStorage
) -> None:
    broken = b"this is no model"
    storage.put(ONE, broken)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start() as running:
        await running.reload()
        storage.publish(models.plan(2, models.route(2, broken)))
        state = (await running.reload())["endpoints"]["churn"]
        assert (state["generation"], state["loaded"]) == (1, [1])
        assert "ONNX Runtime cannot load" in state["failed"]["2"]
        assert (await running.predict([[1, 1]])).json()["model_version"] == 1


async def test_a_restart_with_storage_down_serves_from_the_cache(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    golden = _one_case(2.0)
    storage.put(ONE, TWO, golden)
    storage.publish(models.plan(7, models.route(2, TWO, golden=golden)))
    async with start() as running:
        await running.reload()
        await eventually((tmp_path / "cache" / "plans" / "churn.json").exists)
    storage.down = True
    async with start() as running:
        await eventually(lambda: running.server.not_ready() == "")
        answer = await running.predict([[1, 2]])
        assert (answer.json()["predictions"], answer.json()["generation"]) == ([[2.0, 4.0]], 7)
        storage.down = False
        storage.publish(models.plan(6, models.route(1, ONE)))
        await running.reload()
        assert _generation(running) == 7


async def test_artifacts_that_no_plan_needs_leave_the_disk(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    golden = _one_case(2.0)
    storage.put(ONE, TWO, THREE, golden)
    storage.publish(models.plan(1, models.route(1, ONE)))
    storage.publish(models.plan(1, models.route(1, THREE), endpoint="fraud"))
    async with start() as running:
        await running.reload()
        storage.publish(models.plan(2, models.route(2, TWO, golden=golden)))
        await running.reload()
    kept = {path.name for path in (tmp_path / "cache" / "artifacts").iterdir()}
    assert kept == {models.digest(data) for data in (TWO, THREE, golden)}


async def test_a_cache_that_cannot_be_written_stops_nothing(
    start: Start, storage: MemoryStorage, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file stands where the directory should be")
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start() as running:
        await running.reload()
        assert (await running.predict([[1, 1]])).status_code == 200


async def test_ready_waits_for_every_configured_endpoint(start: Start, storage: MemoryStorage) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(endpoints=("churn", "fraud")) as running:
        await running.reload()
        answer = await running.client.get("/ready")
        assert (answer.status_code, "'fraud'" in answer.json()["reason"]) == (503, True)
        storage.publish(models.plan(1, models.route(1, ONE), endpoint="fraud"))
        storage.publish(models.plan(1, models.route(1, ONE), endpoint="other"))
        assert sorted((await running.reload())["endpoints"]) == ["churn", "fraud"]
        assert (await running.client.get("/ready")).status_code == 200


async def test_ready_without_configured_endpoints_needs_plans_to_have_been_looked_for(
    start: Start, storage: MemoryStorage
) -> None:
    storage.down = True
    async with start(poll_s=0.02) as running:
        answer = await running.client.get("/ready")
        assert (answer.status_code, "no plan was found" in answer.json()["reason"]) == (503, True)
        assert (await running.client.post("/models/reload")).status_code == 503
        storage.down = False
        await eventually(lambda: running.server.not_ready() == "")
        running.server.stop_soon()
        assert (await running.client.get("/v2/health/ready")).status_code == 503


@pytest.mark.parametrize("fault", ["golden", "missing", "blob storage"])
async def test_a_pod_of_no_certain_endpoints_that_can_answer_none_is_not_ready_and_says_why(
    start: Start, storage: MemoryStorage, fault: str
) -> None:
    golden = _one_case(2.0 if fault == "golden" else 1.0)
    storage.put(golden, TWO, *(() if fault == "missing" else (ONE,)))
    storage.outages[models.digest(ONE)] = 1_000 if fault == "blob storage" else 0
    storage.publish(models.plan(1, models.route(1, ONE, golden=golden)))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "churn" in running.server.servings)
        answer = await running.client.get("/ready")
        reason = "no endpoint has a version that answers: version 1 of endpoint 'churn': "
        assert (answer.status_code, answer.json()["reason"][: len(reason + fault)]) == (503, reason + fault)
        assert (await running.predict([[1, 1]])).status_code == 503
        # One that answers is enough: what ails an endpoint takes no other out of service.
        storage.publish(models.plan(1, models.route(1, TWO), endpoint="fraud"))
        await eventually(lambda: running.server.not_ready() == "")
        assert (await running.predict([[1, 1]], model="fraud")).status_code == 200
        assert (await running.predict([[1, 1]], model="churn")).status_code == 503


async def test_a_pod_that_could_answer_nothing_is_ready_once_it_can(start: Start, storage: MemoryStorage) -> None:
    storage.publish(models.plan(1, models.route(1, ONE)))
    async with start(poll_s=0.02) as running:
        await eventually(lambda: "missing: " in running.server.not_ready())
        storage.put(ONE)
        await eventually(lambda: running.server.not_ready() == "")
        assert (await running.predict([[1, 1]])).status_code == 200


async def test_a_pod_that_was_ready_once_stays_so_whatever_plans_bring(start: Start, storage: MemoryStorage) -> None:
    (_, first), (_, second) = models.canary((9, ONE), (1, ONE), 10_000), models.canary((9, ONE), (2, TWO), 10_000)
    storage.put(ONE)
    storage.publish(models.plan(1, first))
    async with start() as running:
        await running.reload()
        assert (await running.client.get("/ready")).status_code == 200
        storage.publish(models.plan(2, second))
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == []
        assert (await running.predict([[1, 1]])).status_code == 503
        assert (await running.client.get("/ready")).status_code == 200


async def test_a_pod_is_ready_whose_plans_have_no_traffic_for_it(start: Start, storage: MemoryStorage) -> None:
    (_, candidate) = models.canary((9, TWO), (1, ONE), 0)
    storage.publish(models.plan(1, candidate))
    async with start() as running:
        assert (await running.reload())["endpoints"]["churn"]["failed"]
        assert (await running.client.get("/ready")).status_code == 200


async def test_a_plan_that_serves_nothing_yet_answers_503(start: Start, storage: MemoryStorage) -> None:
    storage.put(ONE)
    storage.publish(models.plan(1, models.route(1, ONE, role=Role.CANDIDATE, weight=0)))
    async with start() as running:
        await running.reload()
        answer = await running.predict([[1, 1]])
        assert (answer.status_code, "no version serves it yet" in answer.json()["error"]) == (503, True)
        assert (await running.predict([[1, 1]], model_version=1)).status_code == 200


async def test_a_first_version_without_traffic_yet_makes_neither_its_endpoint_nor_the_server_ready(
    start: Start, storage: MemoryStorage
) -> None:
    storage.put(ONE)
    (_, candidate) = models.canary((9, TWO), (1, ONE), 0)
    storage.publish(models.plan(1, candidate))
    async with start(endpoints=("churn",)) as running:
        assert (await running.reload())["endpoints"]["churn"]["loaded"] == [1]
        assert (await running.client.get("/v2/models/churn/ready")).status_code == 503
        assert (await running.client.get("/ready")).status_code == 503
        assert (await running.predict([[1, 1]])).status_code == 503
        storage.publish(models.plan(2, models.route(1, ONE)))
        await running.reload()
        assert (await running.client.get("/v2/models/churn/ready")).status_code == 200
        assert (await running.predict([[1, 1]])).status_code == 200
