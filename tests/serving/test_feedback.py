"""Feedback over HTTP: what is counted, under which prediction, and what is refused."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from aks_serving.api import Api
from aks_serving.asgi import AsgiApp
from aks_serving.feedback import MAX_AHEAD
from aks_serving.feedback_items import MAX_BODY_BYTES, MAX_ITEMS

from shared.core.ids import EndpointName
from shared.routing.plan import Role
from shared.routing.prediction import PredictionId, Reason
from shared.telemetry.feedback import BY_USER, MAX_ROWS, FeedbackCounts, hour_of, merge_feedback
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.processes import Account, Launch
from tests.support.waiting import eventually as eventually_in_time

pytestmark = pytest.mark.anyio

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


def an_id(**fields: Any) -> str:
    """An id as an answer of now would name it."""
    given: dict[str, Any] = {
        "endpoint": EndpointName("churn"),
        "version": 1,
        "generation": 1,
        "role": Role.STABLE,
        "reason": Reason.ASSIGNED,
        "pod": "k3qx7m2p4z",
        "at": datetime.now(UTC).replace(microsecond=0),
        "count": 1,
    }
    return str(PredictionId(**(given | fields)))


async def serve(running: Running, storage: MemoryStorage, *, candidate_bp: int = 5_000) -> None:
    storage.put(ONE, TWO)
    storage.publish(models.plan(1, *models.canary((1, ONE), (2, TWO), candidate_bp)))
    await running.reload()
    # The window that announces the plan closes soon after, and would split what a test counts into two.
    windows = running.server._windows
    await eventually(lambda: not windows._changed.is_set() and windows._open["churn"][-1].announced)


async def send(running: Running, *items: dict[str, Any], status: int = 200) -> dict[str, Any]:
    answer = await running.client.post("/feedback", json={"feedback": list(items)})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counted(running: Running, storage: MemoryStorage) -> list[FeedbackCounts]:
    """What all windows together have."""
    running.server._windows.close_all()
    running.server._uplink.close(within_s=5.0)
    return merge_feedback(row for window in storage.windows() for row in window.feedback)


async def test_feedback_is_counted_under_the_prediction_that_an_answer_named(
    start: Start, storage: MemoryStorage
) -> None:
    async with start() as running:
        await serve(running, storage)
        by_version: dict[int, list[str]] = {1: [], 2: []}
        for user in range(20):
            answer = (await running.predict([[1, 2]], user_id=f"user {user}")).json()
            by_version[answer["model_version"]].append(answer["prediction_id"])
        assert all(by_version.values())
        for one in by_version[1]:
            answer = await running.client.post("/feedback", json={"prediction_id": one, "value": 1})
            assert answer.json() == {"accepted": 1, "repeated": 0}
        await send(running, *({"prediction_id": one, "value": 0} for one in by_version[2]))
        rows = {row.version: row for row in counted(running, storage)}
    assert (rows[1].count, rows[1].good, rows[1].role) == (len(by_version[1]),) * 2 + ("stable",)
    assert (rows[2].count, rows[2].valued, rows[2].good, rows[2].role) == (len(by_version[2]),) * 2 + (0, "candidate")
    assert {row.generation for row in rows.values()} == {1}
    assert sum(rows[1].delay_s.values()) == len(by_version[1])


async def test_what_is_sent_twice_is_counted_once_and_a_label_may_follow_a_value(
    start: Start, storage: MemoryStorage
) -> None:
    one = an_id()
    async with start() as running:
        await serve(running, storage)
        assert await send(running, {"prediction_id": one, "value": 0}) == {"accepted": 1, "repeated": 0}
        assert await send(running, {"prediction_id": one, "value": 1}) == {"accepted": 0, "repeated": 1}
        labelled = {"prediction_id": one, "label": "cat", "prediction": "cat"}
        assert await send(running, labelled, labelled) == {"accepted": 1, "repeated": 1}
        (row,) = counted(running, storage)
    assert (row.count, row.valued, row.good, row.labelled, row.correct) == (2, 1, 0, 1, 1)


async def test_late_feedback_counts_under_the_hour_and_generation_of_its_prediction(
    start: Start, storage: MemoryStorage
) -> None:
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(days=30)
    async with start() as running:
        storage.put(ONE)
        storage.publish(models.plan(7, models.route(3, ONE)))
        await running.reload()
        await send(running, {"prediction_id": an_id(version=2, generation=4, at=at), "value": 1})
        (row,) = counted(running, storage)
    assert (row.version, row.generation, row.hour) == (2, 4, hour_of(at))


async def test_a_server_that_has_not_heard_of_the_plan_yet_counts_what_another_answered_under_it(
    start: Start, storage: MemoryStorage
) -> None:
    async with start() as running:
        await serve(running, storage)
        await send(running, {"prediction_id": an_id(generation=2), "value": 1})
        (row,) = counted(running, storage)
    assert row.generation == 2


async def test_a_users_feedback_is_of_the_version_that_the_plan_gives_the_user(
    start: Start, storage: MemoryStorage
) -> None:
    async with start() as running:
        await serve(running, storage)
        given = [(await running.predict([[1, 2]], user_id=user)).json()["model_version"] for user in range(40)]
        await send(running, *({"user_id": user, "value": 1} for user in range(40)))
        found = counted(running, storage)
    rows = {row.version: row.count for row in found}
    assert rows == {1: given.count(1), 2: given.count(2)}
    assert all(rows.values())
    # Another version may have answered them: no gate goes by it.
    assert {row.reason for row in found} == {BY_USER}


async def test_each_piece_of_a_users_has_a_coin_of_its_own(start: Start, storage: MemoryStorage) -> None:
    async with start() as running:
        await serve(running, storage)
        await send(running, *[{"user_id": "ann", "value": 0.5}] * 200)
        (row,) = counted(running, storage)
    assert (row.count, row.value_millionths) == (200, 100_000_000)
    assert 60 < row.good < 140


async def test_labels_are_classes_or_numbers(start: Start, storage: MemoryStorage) -> None:
    given = [("cat", "dog"), (3, 3), (True, True), (2.5, 2), (7, 9)]
    async with start() as running:
        await serve(running, storage)
        await send(
            running,
            *(
                {"prediction_id": an_id(count=number), "prediction": prediction, "label": label}
                for number, (prediction, label) in enumerate(given)
            ),
        )
        (row,) = counted(running, storage)
    assert row.labels == {"cat\x1fdog": 1, "3\x1f3": 1, "true\x1ftrue": 1, "7\x1f9": 1}
    assert (row.valued, row.good, row.numbers.count, row.numbers.error) == (4, 2, 3, -1_500_000)


def _bad() -> list[tuple[dict[str, Any], str]]:
    now = datetime.now(UTC).replace(microsecond=0)
    return [
        ({"prediction_id": "churn.1", "value": 1}, "is not a prediction id"),
        ({"prediction_id": an_id(version=10**9), "value": 1}, "is not a prediction id: use"),
        ({"prediction_id": an_id(generation=2 + MAX_AHEAD), "value": 1}, "this server is at 1"),
        ({"prediction_id": an_id(at=now + timedelta(days=1)), "value": 1}, "which is to come"),
        ({"prediction_id": an_id(at=now - timedelta(days=91)), "value": 1}, "for 90 days"),
        ({"prediction_id": an_id(), "user_id": "ann", "value": 1}, "leave out user_id"),
        ({"prediction_id": an_id()}, "it says nothing"),
        ({"value": 1}, "neither prediction_id nor user_id"),
        ({"prediction_id": an_id(), "value": 1.5}, "<= 1.0"),
        ({"prediction_id": an_id(), "value": -0.1}, ">= 0.0"),
        ({"prediction_id": an_id(), "label": "cat"}, "a label and no prediction"),
        ({"prediction_id": an_id(), "label": "cat", "prediction": 1}, "both as text or both as numbers"),
        ({"prediction_id": an_id(), "label": "c" * 65, "prediction": "d"}, "give 1 to 64"),
        ({"prediction_id": an_id(), "label": "c\x1fd", "prediction": "d"}, "control characters"),
        ({"prediction_id": an_id(), "label": 1e10, "prediction": 2.0}, "larger units, and classes as text"),
        ({"prediction_id": an_id(), "label": 10**400, "prediction": 2}, "feedback"),
        ({"prediction_id": an_id(), "value": 1, "score": 2}, "unknown field"),
        ({"user_id": 1.5, "value": 1}, "user_id"),
    ]


@pytest.mark.parametrize(("bad", "said"), _bad(), ids=[said for _, said in _bad()])
async def test_one_bad_piece_refuses_the_whole_body(
    start: Start, storage: MemoryStorage, bad: dict[str, Any], said: str
) -> None:
    async with start() as running:
        await serve(running, storage)
        answer = await send(running, {"prediction_id": an_id(), "value": 1}, bad, status=400)
        assert said in answer["error"]
        assert "$.feedback[1]" in answer["error"]
        assert counted(running, storage) == []


async def test_a_piece_of_a_batch_that_is_of_no_model_here_is_named_and_one_that_is_no_batch_needs_no_name(
    start: Start, storage: MemoryStorage
) -> None:
    other = {"prediction_id": an_id(endpoint=EndpointName("other")), "value": 1}
    async with start() as running:
        await serve(running, storage)
        answer = await send(running, {"prediction_id": an_id(), "value": 1}, other, status=404)
        assert answer["error"].startswith("$.feedback[1]: model 'other' does not exist")
        alone = await running.client.post("/feedback", json=other)
        assert (alone.status_code, alone.json()["error"][:13]) == (404, "model 'other'")


async def test_a_body_that_is_none_is_refused(start: Start, storage: MemoryStorage) -> None:
    async with start() as running:
        await serve(running, storage)
        await send(running, status=400)
        await send(running, *[{"prediction_id": an_id(), "value": 1}] * (MAX_ITEMS + 1), status=400)
        for body in (b"", b"{", b"[]", b"3", b'"feedback"', b"\xff", b'{"value":' + b"[" * 100_000):
            assert (await running.client.post("/feedback", content=body)).status_code == 400
        assert (await running.client.get("/feedback")).status_code == 405
        other = await send(running, {"prediction_id": an_id(endpoint=EndpointName("other")), "value": 1}, status=404)
        assert "served: churn" in other["error"]
        assert counted(running, storage) == []


async def test_of_a_rolling_rollout_a_user_says_too_little(start: Start, storage: MemoryStorage) -> None:
    async with start() as running:
        plan = models.plan(1, *models.canary((1, ONE), (2, TWO), 5_000)).model_copy(update={"pods": ("pod",)})
        storage.put(ONE, TWO)
        storage.publish(plan)
        await running.reload()
        assert "pod by pod" in (await send(running, {"user_id": "ann", "value": 1}, status=400))["error"]


async def test_a_window_that_is_full_is_said_to_be_and_the_next_one_takes_it(
    start: Start, storage: MemoryStorage
) -> None:
    async with start() as running:
        await serve(running, storage)
        await send(running, *({"prediction_id": an_id(version=n + 1), "value": 1} for n in range(MAX_ROWS)))
        late = {"prediction_id": an_id(version=MAX_ROWS + 1), "value": 1}
        assert "the next begins in seconds" in (await send(running, late, status=503))["error"]
        running.server._windows.close_all()
        await send(running, late)
        assert sum(row.count for row in counted(running, storage)) == MAX_ROWS + 1


async def test_a_body_that_no_window_could_hold_is_to_be_split(start: Start, storage: MemoryStorage) -> None:
    async with start() as running:
        await serve(running, storage)
        items = [{"prediction_id": an_id(version=n + 1), "value": 1} for n in range(MAX_ROWS + 1)]
        assert f"at most {MAX_ROWS} to each" in (await send(running, *items, status=400))["error"]
        assert counted(running, storage) == []


async def test_a_body_that_would_keep_predictions_waiting_is_too_large_packed_or_not(
    start: Start, storage: MemoryStorage
) -> None:
    import gzip

    async with start(max_body_bytes=4_000_000) as running:
        await serve(running, storage)
        fits = json.dumps({"prediction_id": an_id(), "value": 1}).encode()
        for body, status in ((fits + b" " * (MAX_BODY_BYTES - len(fits)), 200), (fits + b" " * MAX_BODY_BYTES, 413)):
            packed = await running.client.post(
                "/feedback", content=gzip.compress(body), headers={"content-encoding": "gzip"}
            )
            plain = await running.client.post("/feedback", content=body)
            assert (packed.status_code, plain.status_code) == (status, status)
        wanted = f"send at most {MAX_BODY_BYTES} bytes and 1000 pieces of feedback at a time"
        assert packed.json() == {"error": f"the body has more than {MAX_BODY_BYTES} bytes, unpacked: {wanted}"}
        assert plain.json() == {"error": f"the body has {len(body)} bytes: {wanted}"}


async def test_a_packed_body_of_several_models(start: Start, storage: MemoryStorage) -> None:
    import gzip

    async with start() as running:
        await serve(running, storage)
        storage.publish(models.plan(1, models.route(1, ONE), endpoint="fraud"))
        await running.reload()
        body = {
            "feedback": [
                {"prediction_id": an_id(endpoint=EndpointName("fraud")), "value": 1},
                {"user_id": "ann", "model": "churn", "value": 0.5},
            ]
        }
        packed = gzip.compress(json.dumps(body).encode())
        answer = await running.client.post("/feedback", content=packed, headers={"content-encoding": "gzip"})
        assert answer.json() == {"accepted": 2, "repeated": 0}
        assert "name the model" in (await send(running, {"user_id": "ann", "value": 1}, status=400))["error"]


async def test_by_user_it_is_to_be_sent_again_where_nothing_is_served_yet(start: Start) -> None:
    async with start() as running:
        assert "serves no model yet" in (await send(running, {"user_id": "ann", "value": 1}, status=503))["error"]


async def test_the_same_prediction_falls_on_the_same_side_at_every_server(start: Start, storage: MemoryStorage) -> None:
    items = [{"prediction_id": an_id(count=number), "value": 0.5} for number in range(200)]
    found = []
    async with start() as running:
        await serve(running, storage)
        app = AsgiApp(Api(running.server).handle, max_body_bytes=1_000_000)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as another:
            for client in (running.client, another):
                assert (await client.post("/feedback", json={"feedback": items})).json()["accepted"] == 200
                (row,) = running.server.servings["churn"].tally.feedback.take()
                found.append((row.good, row.value_millionths))
    assert found[0] == found[1]
    assert 60 < found[0][0] < 140


def test_by_http_it_stands_in_the_windows_in_storage(account: Account, launch: Launch) -> None:
    account.put(ONE)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(account.connection)
    eventually_in_time(lambda: server.generation() == 1, what="generation 1 is served")
    named = [server.predict([[1, 2]]).json()["prediction_id"] for _ in range(3)]
    body = {"feedback": [{"prediction_id": one, "value": 1} for one in named]}
    assert server.http.post("/feedback", json=body).json() == {"accepted": 3, "repeated": 0}
    assert server.http.post("/feedback", json=body["feedback"][0]).json() == {"accepted": 0, "repeated": 1}
    assert server.http.post("/feedback", json={"prediction_id": named[0]}).status_code == 400
    assert server.stop() == 0
    (row,) = merge_feedback(row for window in account.windows() for row in window.feedback)
    assert (row.version, row.count, row.good, row.role, row.reason) == (1, 3, 3, "stable", "assigned")
