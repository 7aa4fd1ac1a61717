"""A model server in the test's own process, spoken to over gRPC on a port of 127.0.0.1."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest
import tritonclient.grpc.aio as triton
from aks_serving.grpc.server import RunningGrpc, serve_grpc

from shared.core.slots import Slot
from tests.serving.conftest import Running, Start


class Reached:
    """A started server, tritonclient's asynchronous client to it, and a bare channel."""

    def __init__(
        self, running: Running, served: RunningGrpc, client: triton.InferenceServerClient, channel: grpc.aio.Channel
    ) -> None:
        self.running = running
        self.served = served
        self.client = client
        self.channel = channel
        self.address = f"127.0.0.1:{served.port}"


type Reach = Any


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def reach(start: Start) -> Reach:
    """Starts a server and its gRPC side for an `async with`; the plans are applied."""

    @asynccontextmanager
    async def reached(
        *, endpoints: tuple[str, ...] = (), slot: Slot | None = None, max_message_bytes: int = 2**20, **more: Any
    ) -> AsyncIterator[Reached]:
        async with start(endpoints=endpoints, slot=slot) as running:
            await running.reload()
            served = await serve_grpc(
                running.server, address="127.0.0.1", max_message_bytes=max_message_bytes, **({"port": 0} | more)
            )
            try:
                address = f"127.0.0.1:{served.port}"
                client, channel = triton.InferenceServerClient(address), grpc.aio.insecure_channel(address)
                async with client, channel:
                    yield Reached(running, served, client, channel)
            finally:
                await served.drain(within_s=1)

    return reached


async def refused(call: Awaitable[Any]) -> tuple[str, str]:
    """The status and the details with which a call is refused; fails the test where it is answered."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code: str = caught.value.code().name
    return code, caught.value.details() or ""
