"""The OpenAPI document says what the server does: every path, method and status of it is asked for here."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from aks_serving import openapi
from aks_serving.api import Api
from aks_serving.asgi import AsgiApp
from aks_serving.override import Pinning

from shared.routing.plan import Role
from shared.telemetry.feedback import MAX_ROWS
from tests.serving import documented, models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

DOCUMENT = documented.DOCUMENT
WRITTEN = Path(__file__).resolve().parents[2] / "docs" / "serving-openapi.json"
PICKY = models.picky(limit=4)
VERSIONS = DOCUMENT["paths"]["/v2/models/{model}/versions/{version}"]["parameters"][1]["schema"]
TENSOR = {"name": "x", "datatype": "INT64", "shape": [1, 1], "data": [1]}

type Asked = tuple[str, str, str]
"""A method, a documented path and a status."""


def _operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in ("get", "post"):
            if method in item:
                yield method, path, item[method]


def _documented() -> set[Asked]:
    return {(method, path, status) for method, path, operation in _operations() for status in operation["responses"]}


class _Client:
    """Asks, holds each answer to the document, and remembers what it saw."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.seen: set[Asked] = set()

    async def ask(self, method: str, url: str, **more: Any) -> httpx.Response:
        answer = await self.client.request(method.upper(), url, **more)
        found = documented.operation_of(answer)
        if found is None:
            assert answer.status_code == 405, f"{method} {url}"
            return answer
        self.seen.add((*found, str(answer.status_code)))
        documented.check(answer)
        return answer


def _infer(path: str) -> str:
    return f"/v2/models/{path}/infer"


async def _ask_predictions(client: _Client, storage: MemoryStorage, running: Running) -> None:
    """Every status of the three ways to predict."""
    ways: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any] | None]] = [
        ("/predict", {"features": [[1]]}, {"features": [[7]]}, {"timeout_ms": 1e-9}),
        (_infer("churn"), {"inputs": [TENSOR]}, {"inputs": [{**TENSOR, "data": [7]}]}, None),
        (_infer("churn/versions/1"), {"inputs": [TENSOR]}, {"inputs": [{**TENSOR, "data": [7]}]}, None),
    ]
    for url, good, failing, hurry in ways:
        assert (await client.ask("post", url, json=good)).status_code == 200
        assert (await client.ask("post", url, json=failing)).status_code == 500
        assert (await client.ask("post", url, content=b"{")).status_code == 400
        assert (await client.ask("get", url)).status_code == 405
        assert (await client.ask("post", url, content=b" " * 2_000_000)).status_code == 413
        assert (await client.ask("post", url, json=good, headers={"content-encoding": "br"})).status_code == 415
        assert (await client.ask("post", url, json=good, headers={"x-slipway-override": "v"})).status_code == 403
        late = good | (hurry or {"parameters": {"timeout": 1}})
        statuses = {(await client.ask("post", url, json=late)).status_code for _ in range(3)}
        assert 504 in statuses
        many = await asyncio.gather(*(client.ask("post", url, json=good) for _ in range(8)))
        assert {answer.status_code for answer in many} == {200, 429}
    assert (await client.ask("post", "/predict", json={"features": [[1]], "model": "no"})).status_code == 404
    assert (await client.ask("post", _infer("no"), json={"inputs": [TENSOR]})).status_code == 404
    assert (await client.ask("post", _infer("churn/versions/9"), json={"inputs": [TENSOR]})).status_code == 404
    storage.publish(models.plan(2, models.route(1, PICKY, role=Role.CANDIDATE, weight=0)))
    await running.reload()
    assert (await client.ask("post", "/predict", json={"features": [[1]]})).status_code == 503
    assert (await client.ask("post", _infer("churn"), json={"inputs": [TENSOR]})).status_code == 503


async def _ask_feedback(client: _Client) -> None:
    named = (await client.ask("post", "/predict", json={"features": [[1]]})).json()["prediction_id"]
    good = {"prediction_id": named, "value": 1}
    assert (await client.ask("post", "/feedback", json=good)).json() == {"accepted": 1, "repeated": 0}
    assert (await client.ask("post", "/feedback", json={"feedback": [good]})).json() == {"accepted": 0, "repeated": 1}
    assert (await client.ask("post", "/feedback", json={**good, "value": 2})).status_code == 400
    other = {"user_id": "ann", "model": "no", "value": 1}
    assert (await client.ask("post", "/feedback", json=other)).status_code == 404
    assert (await client.ask("get", "/feedback")).status_code == 405
    assert (await client.ask("post", "/feedback", content=b" " * 2_000_000)).status_code == 413
    for odd in ({"content-encoding": "br"}, {"content-type": "text/csv"}):
        assert (await client.ask("post", "/feedback", json=good, headers=odd)).status_code == 415
    many = [{"prediction_id": named.replace("churn.1.", f"churn.{n}."), "value": 1} for n in range(2, MAX_ROWS + 2)]
    assert (await client.ask("post", "/feedback", json={"feedback": many})).status_code == 503


async def _ask_the_rest(client: _Client) -> None:
    for path in ("/health", "/ready", "/ab-test/stats", "/metrics", "/openapi.json", "/v2", "/v2/health/live"):
        assert (await client.ask("get", path)).status_code == 200
        assert (await client.ask("delete", path)).status_code == 405
    for path in ("/v2/health/ready", "/v2/models/stats"):
        assert (await client.ask("get", path)).status_code == 200
        assert (await client.ask("post", path)).status_code == 405
    for body in (None, b'{"ready": true}'):
        assert (await client.ask("post", "/v2/repository/index", content=body)).status_code == 200
    assert (await client.ask("post", "/v2/repository/index", content=b"{")).status_code == 400
    assert (await client.ask("get", "/v2/repository/index")).status_code == 405
    assert (await client.ask("post", "/v2/repository/index", content=b" " * 2_000_000)).status_code == 413
    packed = {"headers": {"content-encoding": "br"}, "content": b"{}"}
    assert (await client.ask("post", "/v2/repository/index", **packed)).status_code == 415
    assert (await client.ask("get", "/models/reload")).status_code == 405
    for tail in ("", "/ready", "/config", "/stats"):
        for model in ("churn", "churn/versions/1"):
            assert (await client.ask("get", f"/v2/models/{model}{tail}")).status_code == 200
            assert (await client.ask("post", f"/v2/models/{model}{tail}")).status_code == 405
        assert (await client.ask("get", f"/v2/models/%01{tail}")).status_code == 400
        assert (await client.ask("get", f"/v2/models/no{tail}")).status_code == 404
        assert (await client.ask("get", f"/v2/models/no/versions/1{tail}")).status_code == 404
        for version, status in (("one", 400), (VERSIONS["maximum"], 404), (VERSIONS["maximum"] + 1, 400)):
            assert (await client.ask("get", f"/v2/models/churn/versions/{version}{tail}")).status_code == status
        assert (await client.ask("get", f"/v2/models/churn/versions/9{tail}")).status_code == 404


async def test_everything_that_is_documented_is_so(start: Start, storage: MemoryStorage) -> None:
    storage.put(PICKY)
    shadow = models.route(2, PICKY, role=Role.SHADOW, weight=0).model_copy(update={"mirror_bp": 10_000})
    storage.publish(models.plan(1, models.route(1, PICKY), shadow))
    async with AsyncExitStack() as stack:
        running: Running = await stack.enter_async_context(start(max_queue=2, endpoints=("churn",)))
        client = _Client(running.client)
        assert (await client.ask("get", "/ready")).status_code == 503
        assert (await client.ask("get", "/v2/health/ready")).status_code == 503
        assert (await client.ask("post", "/models/reload")).status_code == 200
        assert (await client.ask("post", "/predict", json={"features": [[1]]})).status_code == 200
        await eventually(lambda: getattr(running.server.totals()["churn"][2].shadow, "mirrored", 0) == 1)
        await _ask_the_rest(client)
        await _ask_feedback(client)
        await _ask_predictions(client, storage, running)
        storage.publish(models.plan(3, models.route(4, b"not in storage")))
        await running.reload()
        for tail in ("", "/ready", "/config", "/stats"):
            assert (await client.ask("get", f"/v2/models/churn/versions/4{tail}")).status_code == 503
        for tail in ("", "/ready", "/config"):
            assert (await client.ask("get", f"/v2/models/churn{tail}")).status_code == 503
        infer = await client.ask("post", _infer("churn/versions/4"), json={"inputs": [TENSOR]})
        assert infer.status_code == 503
        storage.down = True
        assert (await client.ask("post", "/models/reload")).status_code == 503
        storage.down = False
    missing = _documented() - client.seen
    assert not missing


async def test_a_server_that_wants_signatures_refuses_as_documented(start: Start, storage: MemoryStorage) -> None:
    storage.put(PICKY)
    storage.publish(models.plan(1, models.route(1, PICKY)))
    async with start() as running:
        await running.reload()
        app = AsgiApp(Api(running.server, pinning=Pinning.SIGNED).handle, max_body_bytes=1024)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as plain:
            answer = await _Client(plain).ask("post", "/predict", json={"features": [[1]], "model_version": 1})
            assert answer.status_code == 403


def test_the_document_is_whole() -> None:
    assert DOCUMENT["openapi"] == "3.1.0"
    text = openapi.document().decode()
    for reference in set(re.findall(r'"#/components/(\w+)/([^"]+)"', text)):
        assert reference[1] in DOCUMENT["components"][reference[0]], reference
    names = [operation["operationId"] for _, _, operation in _operations()]
    assert len(set(names)) == len(names)
    for path, item in DOCUMENT["paths"].items():
        declared = {parameter["name"] for parameter in item.get("parameters", [])}
        assert declared == set(re.findall(r"\{(\w+)\}", path))
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_the_written_document_is_this_one() -> None:
    found = WRITTEN.read_bytes() if WRITTEN.exists() else b""
    assert found == openapi.document(), (
        "docs/serving-openapi.json is stale: `python -m aks_serving.openapi > docs/serving-openapi.json`"
    )
