"""A model server in the test's own process, spoken to through its ASGI application."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import httpx
import pytest
from aks_serving.api import Api
from aks_serving.asgi import AsgiApp
from aks_serving.reports import Siblings
from aks_serving.server import ModelServer
from aks_serving.settings import Settings

from shared.core.ids import endpoint_name
from shared.core.slots import Slot
from tests.serving import documented
from tests.serving.fakes import MemoryStorage
from tests.serving.processes import account as account  # noqa: PLC0414 - a fixture, for all tests here
from tests.serving.processes import launch as launch  # noqa: PLC0414 - likewise

_FLUSH_S = 0.2
"""Where storage is down, each stop waits for so long."""


class Running:
    """A started server, and an HTTP client to it."""

    def __init__(self, server: ModelServer, client: httpx.AsyncClient, storage: MemoryStorage) -> None:
        self.server = server
        self.client = client
        self.storage = storage

    async def reload(self) -> dict[str, Any]:
        """Have the server look at the plans now, and apply what it finds."""
        answer = await self.client.post("/models/reload")
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def predict(self, features: Any, **fields: Any) -> httpx.Response:
        return await self.client.post("/predict", json={"features": features, **fields})

    async def infer(self, *inputs: dict[str, Any], path: str = "churn", **fields: Any) -> httpx.Response:
        return await self.client.post(f"/v2/models/{path}/infer", json={"inputs": list(inputs), **fields})


type Start = Callable[..., Any]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def storage() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def start(storage: MemoryStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts a server for an `async with`. It polls and closes windows when the test asks, by default."""
    # What loads gives way to all else that a machine does: on one that is busy with other tests a large version would
    # take minutes, and a reload waits for half of one.
    for module in ("rehearsal", "server"):
        monkeypatch.setattr(f"aks_serving.{module}.give_way", lambda: None)

    @asynccontextmanager
    async def started(
        *,
        pod: str = "pod",
        cache: Path = tmp_path / "cache",
        endpoints: tuple[str, ...] = (),
        poll_s: float = 3600.0,
        window_s: float = 3600.0,
        max_queue: int = 1024,
        max_body_bytes: int = 1024 * 1024,
        trusted_keys: tuple[str, ...] = (),
        rehearsal_rounds: int = 1,
        feature_window_s: float = 3600.0,
        feature_share: float = 1.0,
        slot: Slot | None = None,
        now_s: Callable[[], float] = monotonic,
        siblings: Siblings | None = None,
    ) -> AsyncIterator[Running]:
        settings = Settings(
            storage_connection="unused",
            blob_url=None,
            cache_dir=cache,
            endpoints=tuple(endpoint_name(name) for name in endpoints),
            slot=slot,
            pod=pod,
            poll_s=poll_s,
            window_s=window_s,
            max_queue=max_queue,
            max_body_bytes=max_body_bytes,
            trusted_keys=trusted_keys,
            feature_window_s=feature_window_s,
            feature_share=feature_share,
        )
        server = ModelServer(
            settings,
            storage,
            siblings=siblings,
            rehearsal_rounds=rehearsal_rounds,
            flush_s=_FLUSH_S,
            now_s=now_s,
        )
        app = AsgiApp(Api(server).handle, max_body_bytes=max_body_bytes)
        await server.start()
        try:
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://server", event_hooks={"response": [_documented]}
            ) as client:
                yield Running(server, client, storage)
        finally:
            await server.stop()

    return started


async def _documented(answer: httpx.Response) -> None:
    """Whatever any test is answered with is a status that the document has."""
    documented.check_status(answer)


async def eventually(holds: Callable[[], bool | Awaitable[bool]], *, within_s: float = 20.0) -> None:
    """Wait until something holds; fails the test where it does not come to hold."""
    async with asyncio.timeout(within_s):
        while True:
            found = holds()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)
