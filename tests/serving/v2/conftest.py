"""A model server of many synthetic models on a port of 127.0.0.1, and tritonclient to it, as it is published.

The server runs on an event loop of its own, in a thread: tritonclient blocks, on gevent's loop.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import tritonclient.http as triton
from aks_serving.api import Api
from aks_serving.http.limits import Limits
from aks_serving.http.transport import serve
from aks_serving.server import ModelServer
from aks_serving.settings import Settings

from tests.serving.fakes import MemoryStorage
from tests.serving.v2 import zoo
from tests.support.plain import NO_TLS

MAX_BODY_BYTES = 1 << 20
_START_S = 60.0


class Served:
    """A server that runs. `url` is as tritonclient takes it."""

    def __init__(self, port: int) -> None:
        self.url = f"127.0.0.1:{port}"


class _Thread(threading.Thread):
    def __init__(self, cache: Path) -> None:
        super().__init__(name="server", daemon=True)
        self._cache = cache
        self._listening = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped: asyncio.Event | None = None
        self._port = 0
        self.failed = ""

    def served(self) -> Served:
        self.start()
        assert self._listening.wait(_START_S)
        assert not self.failed, self.failed
        return Served(self._port)

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:
            self.failed = repr(error)
            self._listening.set()
            raise

    def stop(self) -> None:
        if self._loop is not None and self._stopped is not None:
            self._loop.call_soon_threadsafe(self._stopped.set)
        self.join(_START_S)
        assert not self.is_alive()

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        storage = MemoryStorage()
        zoo.publish(storage)
        settings = Settings(
            storage_connection="unused",
            blob_url=None,
            cache_dir=self._cache,
            pod="pod",
            poll_s=3600.0,
            window_s=3600.0,
            max_body_bytes=MAX_BODY_BYTES,
        )
        server = ModelServer(settings, storage)
        await server.start()
        await server.reload()
        api = Api(server, max_body_bytes=MAX_BODY_BYTES)
        sock = socket.create_server(("127.0.0.1", 0))
        transport = await serve(api.handle, [sock], limits=Limits(max_body_bytes=MAX_BODY_BYTES))
        self._port = sock.getsockname()[1]
        self._listening.set()
        await self._stopped.wait()
        await transport.drain(5.0)
        await server.stop()


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    thread = _Thread(tmp_path_factory.mktemp("cache"))
    yield thread.served()
    thread.stop()


@pytest.fixture(scope="session")
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(served.url, concurrency=4)
    yield client
    client.close()


@pytest.fixture(scope="session")
def plain(served: Served) -> Iterator[httpx.Client]:
    """A client that sends any bytes, for what tritonclient would not."""
    with httpx.Client(base_url=f"http://{served.url}", verify=NO_TLS) as client:
        yield client
