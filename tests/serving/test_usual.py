"""What heads settle: requests with a known head are answered as those without, and nothing outlives its snapshot."""

import gzip
import json
from itertools import chain
from typing import Any

import pytest
from aks_serving import plain
from aks_serving.model import Model
from aks_serving.override import VERSION_HEADER
from aks_serving.serving import Servings
from aks_serving.usual import GENERAL

from shared.routing.plan import Role, SubjectSource
from tests.serving import models
from tests.serving.handled import Asked, HandServer, turn

pytestmark = pytest.mark.anyio

BODY = json.dumps({"features": [[1, 2]], "user_id": "ann"}).encode()
TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
V2 = json.dumps({"inputs": [TENSOR], "parameters": {"user_id": "ann"}}).encode()
BEA = {b"x-slipway-user": b"bea"}
INFER = "/v2/models/churn/infer"
REQUESTS: dict[str, tuple[str, bytes, dict[bytes, bytes], str]] = {
    "plain": ("/predict", BODY, {}, "POST"),
    "another type of JSON": ("/predict", BODY, {b"content-type": b"application/json; charset=utf-8"}, "POST"),
    "V2": (INFER, V2, {}, "POST"),
    "a subject in the header": ("/predict", BODY, BEA, "POST"),
    "a subject in the cookie": ("/predict", b'{"features":[[1,2]]}', {b"cookie": b"visitor=cleo"}, "POST"),
    "no subject": ("/predict", b'{"features":[[1,2]],"user_id":""}', {}, "POST"),
    "a version": ("/predict", b'{"features":[[1,2]],"model_version":2}', {}, "POST"),
    "no such version": ("/predict", b'{"features":[[1,2]],"model_version":9}', {}, "POST"),
    "a subject that is too long": ("/predict", BODY, {b"x-slipway-user": b"u" * 1025}, "POST"),
    "a user that is too long": ("/predict", BODY.replace(b"ann", b"u" * 1025), {}, "POST"),
    "a coding": ("/predict", gzip.compress(BODY), {b"content-encoding": b"gzip"}, "POST"),
    "a coding that is not known": ("/predict", BODY, {b"content-encoding": b"rot13"}, "POST"),
    "an answer in a coding": ("/predict", BODY, {b"accept-encoding": b"gzip"}, "POST"),
    "a query": ("/predict?model_version=2", BODY, {}, "POST"),
    "an unknown parameter": ("/predict?colour=red", BODY, {}, "POST"),
    "a query of V2": (f"{INFER}?any=1", V2, {}, "POST"),
    "a CSV": ("/predict", b"a,b\n1,2\n", BEA | {b"content-type": b"text/csv"}, "POST"),
    "a type that is not taken": ("/predict", BODY, {b"content-type": b"image/png"}, "POST"),
    "another method": ("/predict", BODY, {}, "PUT"),
    "another path": ("/nowhere", BODY, {}, "POST"),
    "a length beyond the body": (INFER, V2, {b"inference-header-content-length": b"9999"}, "POST"),
    "a length that is none": (INFER, V2, {b"inference-header-content-length": b"ten"}, "POST"),
    "a broken body": ("/predict", BODY[:-1], {}, "POST"),
}


def _server(source: SubjectSource | None = None) -> HandServer:
    data, other = models.scaler(2.0), models.scaler(3.0)
    routes = models.route(1, data, weight=5000), models.route(2, other, role=Role.CANDIDATE, weight=5000)
    plan = models.plan(1, *routes)
    if source is not None:
        plan = plan.model_copy(update={"subject": source})
    versions = {1: Model(version=1, digest="", data=data), 2: Model(version=2, digest="", data=other)}
    return HandServer(plan, versions, inline=True)


async def _answer(server: HandServer, name: str, head: object) -> tuple[int, dict[bytes, bytes], Any]:
    path, body, headers, method = REQUESTS[name]
    path, _, query = path.partition("?")
    asked = Asked(path, body, dict(headers), method=method)
    asked.query, asked.head = query.encode(), head
    server.ask(asked)
    await turn()
    told = dict(asked.told)
    told.pop(b"x-slipway-prediction-id", None)
    found = gzip.decompress(asked.response.body) if told.get(b"content-encoding") == b"gzip" else asked.response.body
    answer = json.loads(found)
    for changing in ("prediction_id", "latency_ms"):
        answer.pop(changing, None)
    return asked.status, told, answer


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_with_a_known_head_is_answered_as_one_without(name: str) -> None:
    source = SubjectSource(header="x-slipway-user", body=True, cookie="visitor" if "cookie" in name else None)
    if name == "no subject":
        source = source.model_copy(update={"header": None})
    server, head = _server(source), object()
    wanted = await _answer(server, name, None)
    for _ in range(3):
        found = await _answer(server, name, head)
        if name == "no subject":  # it is assigned at random, each one anew
            assert found[0] == wanted[0]
        else:
            assert found == wanted
    assert (server.waiting, server.serving.tally.in_flight) == (0, 0)
    server.close()


async def test_a_cookie_is_issued_to_each_that_comes_without_one() -> None:
    server, head = _server(SubjectSource(header=None, body=False, cookie="visitor")), object()
    cookies = set()
    for _ in range(4):
        asked = Asked("/predict", BODY)
        asked.head = head
        server.ask(asked)
        await turn()
        cookies.add(asked.told[b"set-cookie"])
    assert len(cookies) == 4
    server.close()


async def test_usual_heads_are_known_once_they_came_and_others_are_for_the_general_way() -> None:
    server = _server()
    usual, other = object(), object()
    await _answer(server, "plain", usual)
    await _answer(server, "a coding", other)
    known = server.servings.usual
    assert known[usual] is not GENERAL
    assert known[other] is GENERAL
    for _ in range(1100):
        await _answer(server, "another path", object())
    assert len(known) <= 1024
    server.close()


async def test_what_was_found_out_goes_with_its_snapshot() -> None:
    server, head = _server(), object()
    for _ in range(3):
        await _answer(server, "plain", head)
    first = server.servings
    server.servings = Servings(first)
    for _ in range(3):
        assert (await _answer(server, "plain", head))[0] == 200
    assert server.servings.usual[head] is not first.usual[head]
    assert server.servings.usual is not first.usual
    server.close()


async def test_calls_of_a_batch_that_are_told_together_each_get_their_own_answer() -> None:
    server = _server()
    asked = []
    for number in range(40):
        rows = [[number, row] for row in range(1 + number % 3)]
        user = f"user-{number}"
        one = Asked("/predict", json.dumps({"features": rows, "user_id": user}).encode())
        if number % 5 == 0:
            tensor = {"name": "x", "datatype": "FP32", "shape": [len(rows), 2], "data": list(chain(*rows))}
            body = {"inputs": [tensor], "parameters": {"user_id": user}}
            one = Asked(INFER, json.dumps(body).encode())
        server.ask(one)
        asked.append((one, rows))
    await turn()
    ids = set()
    for one, rows in asked:
        factor = {"1": 2.0, "2": 3.0}[one.told[b"x-slipway-version"].decode()]
        answer = one.json()
        wanted = [[value * factor for value in row] for row in rows]
        assert answer.get("predictions", wanted) == wanted
        if "outputs" in answer:
            assert answer["outputs"][0]["data"] == list(chain(*wanted))
        ids.add(one.told[b"x-slipway-prediction-id"])
    assert len(ids) == len(asked)
    versions = server.serving.tally.versions
    assert sum(tally.requests for tally in versions.values()) == len(asked)
    assert sum(sum(tally.latency_ms.values()) for tally in versions.values()) == len(asked)
    assert sum(server.serving.seen) == len(asked)
    assert (server.waiting, server.serving.tally.in_flight) == (0, 0)
    server.close()


DEEP = b'{"features":[[1,2]],"colour":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b'{"model":"churn","features":[[1,2]]}', 200, [[2.0, 4.0]]),
        (b'{"features":[[1,2]],"model":"fraud"}', 200, [[3.0, 6.0]]),
        (b'{"features":{"x":[[1,2]]},"model":"fraud"}', 200, [[3.0, 6.0]]),
        (b'{"features":[[1,2,3]],"model":"fraud"}', 400, "[1, 3]"),
        (b'{"features":[[1,2]],"model":"spam"}', 404, "spam"),
        (b'{"features":[[1,2]],"model":7}', 400, "model"),
        (b'{"features":[[1,2]]}', 400, "name the model"),
        (b'{"features":[[1,2]],"model":"fraud"', 400, "the body is not a request"),
        (b'{"features":[[1,2]],"model":"\xff"}', 400, "the body is not a request"),
        (DEEP, 400, "the body is not a request"),
    ],
)
async def test_of_several_endpoints_each_body_names_its_own(body: bytes, status: int, told: object) -> None:
    data = models.scaler(3.0)
    fraud = models.plan(1, models.route(1, data), endpoint="fraud")
    first, second = _server(), HandServer(fraud, {1: Model(version=1, digest="", data=data)}, inline=True)
    first.servings = Servings({"churn": first.serving, "fraud": second.serving})
    asked = Asked("/predict", body, {VERSION_HEADER: b"1"})
    first.ask(asked)
    await turn()
    assert asked.status == status, asked.response.body
    answer = asked.json()
    if status == 200:
        assert answer["predictions"] == told
    else:
        assert str(told) in answer["error"]
    first.close()
    second.close()


async def test_of_several_endpoints_a_usual_body_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = _server()
    server.servings = Servings({"churn": server.serving, "fraud": server.serving})
    monkeypatch.setattr(plain, "read_request", lambda *_: pytest.fail("it went the general way"))
    asked = Asked("/predict", b'{"features":[[1,2]],"model":"churn","model_version":1}')
    server.ask(asked)
    await turn()
    assert asked.json()["predictions"] == [[2.0, 4.0]]
    server.close()


class _Breaking(Asked):
    """An exchange whose answer cannot be sent the first time."""

    broken = False

    def reply_named(self, *_: object) -> None:
        self.broken = True
        raise OSError("says the test")


async def test_an_answer_that_goes_wrong_is_its_callers_alone() -> None:
    server = _server()
    asked: list[Asked] = [(_Breaking if number == 7 else Asked)("/predict", BODY) for number in range(12)]
    for one in asked:
        server.ask(one)
    await turn()
    assert [one.status for one in asked] == [500 if number == 7 else 200 for number in range(12)]
    assert (server.waiting, server.serving.tally.in_flight) == (0, 0)
    server.close()
