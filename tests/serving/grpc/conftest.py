"""A model server in the test's own process, spoken to over gRPC on a port of 127.0.0.1."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import tritonclient.grpc.aio as triton
from aks_serving.grpc.server import RunningGrpc, serve_grpc

from tests.serving.conftest import Running, Start


class Reached:
    """A started server, and tritonclient's asynchronous client to it."""

    def __init__(self, running: Running, served: RunningGrpc, client: triton.InferenceServerClient) -> None:
        self.running = running
        self.served = served
        self.client = client
        self.address = f"127.0.0.1:{served.port}"


type Reach = Any


@pytest.fixture
def reach(start: Start) -> Reach:
    """Starts a server and its gRPC side for an `async with`; the plans are applied."""

    @asynccontextmanager
    async def reached(*, max_queue: int = 1024, max_message_bytes: int = 1 << 20, **more: Any) -> AsyncIterator[Reached]:
        async with start(max_queue=max_queue) as running:
            await running.reload()
            served = await serve_grpc(
                running.server, address="127.0.0.1", port=0, max_message_bytes=max_message_bytes, **more
            )
            try:
                async with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
                    yield Reached(running, served, client)
            finally:
                await served.drain(within_s=1)

    return reached
