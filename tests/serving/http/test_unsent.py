"""The bound over answers that are made and not sent, over real sockets and on both event loops."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aks_serving.exchange import OK, Response
from aks_serving.http.limits import Limits
from aks_serving.http.tls import ReloadingContext

from tests.serving.http.conftest import Client, Serve, Served, certificate, until
from tests.serving.http.driven import Driven, request

pytestmark = pytest.mark.anyio

_MIB = 1 << 20
_LARGE = Response(OK, b"x" * (12 * _MIB))
"""More than sockets take by themselves."""
_SMALL = Response(OK, b"small")


class _Way:
    """Plain or over TLS."""

    def __init__(self, served: Serve, tls: tuple[Path, Path] | None) -> None:
        self._served, self._tls = served, tls

    @asynccontextmanager
    async def served(self, **options: Any) -> AsyncIterator[Served]:
        """A server that is told what to answer."""
        tls = ReloadingContext(*self._tls) if self._tls else None
        async with self._served(later=True, tls=tls, **options) as server:
            yield server

    @asynccontextmanager
    async def client(self, server: Served) -> AsyncIterator[Client]:
        tls = ssl.create_default_context(cafile=self._tls[0]) if self._tls else None
        async with server.client(tls) as client:
            # Left to itself the system takes ever more of an answer that nobody reads, up to all of it.
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MIB)
            yield client


@pytest.fixture(params=["plain", "tls"])
def way(request: pytest.FixtureRequest, served: Serve, tmp_path: Path) -> _Way:
    return _Way(served, certificate(tmp_path, "one") if request.param == "tls" else None)


async def _asked(server: Served, client: Client, answer: Response) -> None:
    """Ask, and have it answered; nobody reads."""
    number = len(server.seen)
    await client.send(request())
    await until(lambda: len(server.seen) > number, "the request came")
    server.seen[number].reply(answer)


async def test_many_that_do_not_read_hold_no_more_than_the_bound(way: _Way, caplog: pytest.LogCaptureFixture) -> None:
    bound = 30 * _MIB
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(way.served(limits=Limits(max_unsent_bytes=bound)))
        unsent = server.transport._shared.unsent
        usual = await stack.enter_async_context(way.client(server))
        for _ in range(8):
            await _asked(server, await stack.enter_async_context(way.client(server)), _LARGE)
            await _asked(server, usual, _SMALL)
            assert (await usual.answer()).body == b"small"
            held = sum(connection.held_bytes for connection in server.transport._shared.connections)
            assert held <= bound
        assert 0 < unsent.total_bytes <= bound
        await until(lambda: server.transport.connections < 8, "some are cut off")
        assert server.transport.connections > 2
        assert "unsent answers were cut off" in caplog.text
    assert unsent.total_bytes == 0


async def test_a_client_that_reads_has_its_large_answer_and_holds_nothing_after(way: _Way) -> None:
    async with way.served(limits=Limits(max_unsent_bytes=30 * _MIB)) as server, way.client(server) as client:
        for _ in range(4):
            await _asked(server, client, _LARGE)
            assert server.transport._shared.unsent.total_bytes > 0
            assert len((await client.answer()).body) == 12 * _MIB
            await until(lambda: server.transport._shared.unsent.total_bytes == 0, "all is sent")


async def test_what_a_client_does_not_read_of_its_answers_counts_until_it_does(way: _Way) -> None:
    async with way.served() as server, way.client(server) as client:
        unsent, numbers = server.transport._shared.unsent, range(1, 5)
        await client.send(request() * len(numbers))
        await until(lambda: len(server.seen) == len(numbers), "the requests came")
        bodies = [bytes([number]) * (6 * _MIB + number) for number in numbers]
        for exchange, body in zip(server.seen, bodies, strict=True):
            exchange.reply(Response(OK, body))
        for left, body in zip((3, 2, 1, 0), bodies, strict=True):
            assert (await client.answer()).body == body
            server.transport.sweep()
            assert unsent.total_bytes <= left * (6 * _MIB + 100)
            assert left < 3 or unsent.total_bytes > _MIB, "sockets take some by themselves"


async def test_answers_that_wait_behind_an_earlier_one_count(served: Serve) -> None:
    async with (
        served(later=True, limits=Limits(max_unsent_bytes=_MIB)) as server,
        server.client() as client,
        server.client() as usual,
    ):
        await client.send(request() * 4)
        await until(lambda: len(server.seen) == 4, "the requests came")
        waiting = Response(OK, b"x" * 600_000)
        server.seen[1].reply(waiting)
        assert server.transport._shared.unsent.total_bytes > 600_000
        await asyncio.sleep(0)
        assert not server.seen[0].gone
        server.seen[3].reply(waiting)
        await until(lambda: server.seen[0].gone, "the client is cut off")
        await until(lambda: server.transport.connections == 1, "the other stays")
        assert server.transport._shared.unsent.total_bytes == 0
        await _asked(server, usual, _SMALL)
        assert (await usual.answer()).body == b"small"


async def test_the_largest_is_cut_off_and_among_equals_who_holds_for_the_longest() -> None:
    limits = Limits(max_unsent_bytes=1000)
    driven = [Driven(limits=limits, later=True) for _ in range(4)]
    unsent = driven[0].shared.unsent
    for one in driven:
        one.shared.unsent = unsent
        one.transport.taken = 0
    for one, size_bytes in zip(driven, (100, 400, 400, 200), strict=True):
        one.transport.write(b"x" * size_bytes)
        one.connection.pause_writing()
    assert not any(one.transport.aborted for one in driven), "not in the midst of a write"
    await asyncio.sleep(0)
    assert [one.transport.aborted for one in driven] == [False, True, False, False]
    assert unsent.total_bytes == 700


async def test_answers_behind_one_another_count_until_they_are_written() -> None:
    driven = Driven(later=True)
    driven.send(request("/1") + request("/2") + request("/3"))
    driven.reply(2)
    one = driven.shared.unsent.total_bytes
    driven.reply(1)
    assert driven.shared.unsent.total_bytes == 2 * one > 0
    driven.reply(0)
    assert driven.shared.unsent.total_bytes == 0
    assert [answer.json()["path"] for answer in driven.answers] == ["/1", "/2", "/3"]
