"""The transport on real sockets, on both event loops."""

import asyncio
import logging
import resource
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from aks_serving.exchange import OK, Exchange, Response
from aks_serving.http.answers import DATED
from aks_serving.http.limits import Limits
from aks_serving.http.port import hold_off, take_on
from aks_serving.http.protocol import Connection
from aks_serving.http.transport import Transport, serve, within_descriptors

from tests.serving.http.conftest import Serve, until
from tests.serving.http.driven import chunked, request, told
from tests.support.plain import NO_TLS

pytestmark = pytest.mark.anyio


async def test_an_ordinary_client_is_served_over_one_connection(served: Serve) -> None:
    async with (
        served() as server,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}", verify=NO_TLS) as client,
    ):
        for number in range(20):
            answer = await client.post("/predict", json={"features": [number] * number})
            assert answer.json()["body"].count(",") == max(number - 1, 0)

        async def parts() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b"def"

        answer = await client.post("/chunks", content=parts())
        assert answer.json()["body"] == "abcdef"
        assert (await client.head("/x")).content == b""
        assert server.transport.connections == 1


async def test_a_large_body_and_a_large_answer_pass(served: Serve) -> None:
    async with served() as server, server.client() as client:
        body = b"x" * 5_000_000
        for sent in (request(body=body), chunked(*[body[:100_000]] * 50)):
            sending = asyncio.create_task(client.send(sent + request("/next")))
            assert len((await client.answer()).json()["body"]) == len(body)
            assert (await client.answer()).json()["path"] == "/next"
            await sending
        await until(lambda: server.transport._shared.buffered_bytes == 0, "no body is held")


async def test_a_thousand_pipelined_requests_are_answered_in_order(served: Serve) -> None:
    async with served(limits=Limits(max_pipelined=8)) as server, server.client() as client:
        sending = asyncio.create_task(client.send(b"".join(request(f"/{number}") for number in range(1000))))
        for number in range(1000):
            assert (await client.answer()).json()["path"] == f"/{number}"
        await sending


async def test_a_refusal_reaches_a_client_that_is_still_sending(served: Serve) -> None:
    async with served(limits=Limits(max_body_bytes=1000)) as server, server.client() as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"
        sending = asyncio.create_task(client.send(head + b"x" * 3_000_000))
        assert (await client.answer()).status == 413
        assert await client.rest() == b""
        await asyncio.gather(sending, return_exceptions=True)
        assert server.transport.refused == {413: 1}


async def test_a_client_that_never_reads_stops_being_read(served: Serve) -> None:
    body = b"x" * 100_000
    async with served(limits=Limits(progress_s=0.0)) as server, server.client() as client:
        sending = asyncio.create_task(client.send(request(body=body) * 400))
        connection = await _only_connection(server.transport)
        await until(lambda: connection._paused, "reading is paused")
        taken = len(server.seen)
        assert taken < 400
        server.transport.sweep()
        server.transport.sweep()
        await until(lambda: server.transport.connections == 0, "the client is cut off")
        assert len(server.seen) == taken
        await asyncio.gather(sending, return_exceptions=True)


async def _only_connection(transport: Transport) -> Connection:
    connections = transport._shared.connections
    await until(lambda: connections, "the connection is there")
    [connection] = connections
    return connection


async def test_connections_beyond_the_bound_are_told_so(served: Serve) -> None:
    async with served(limits=Limits(max_connections=2)) as server:
        async with server.client() as one, server.client() as two:
            for client in (one, two):
                await client.send(request())
                assert (await client.answer()).status == 200
            async with server.client() as three:
                await three.send(request())
                answer = await three.answer()
                assert (answer.status, answer.headers["retry-after"]) == (503, "1")
                assert await three.rest() == b""
        await until(lambda: server.transport.connections == 0, "all are closed")
        async with server.client() as client:
            await client.send(request())
            assert (await client.answer()).status == 200


async def test_beyond_the_bound_of_connections_a_few_may_ask_how_the_server_is_once(served: Serve) -> None:
    async with served(limits=Limits(max_connections=20)) as server, AsyncExitStack() as stack:
        taken = [await stack.enter_async_context(server.client()) for _ in range(20)]
        for client in taken:
            await client.send(request())
            assert (await client.answer()).status == 200
        silent = [await stack.enter_async_context(server.client()) for _ in range(15)]
        await until(lambda: server.transport.connections == 35, "they are open")
        for _ in range(3):  # each gives its place back
            for path in ("/health", "/ready", "/v2/health/live"):
                async with server.client() as probe:
                    await probe.send(request(path) + request(path))
                    answer = await probe.answer()
                    assert (answer.status, answer.headers["connection"]) == (200, "close")
                    assert await probe.rest() == b""
            for other in (request(), request("/health", body=b"long")):
                async with server.client() as client:
                    await client.send(other)
                    assert (await client.answer()).status == 503
        async with server.client() as last, server.client() as beyond:
            assert (await beyond.answer()).status == 503  # unasked
            await last.send(request("/health"))
            assert (await last.answer()).status == 200
        for client in silent:
            await client.send(request("/health"))
            assert (await client.answer()).status == 200


async def test_a_client_that_goes_away_is_known_to_be_gone(served: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async with served(later=True) as server:
        async with server.client() as client:
            await client.send(request("/1") + request("/2"))
            await until(lambda: len(server.seen) == 2, "the requests came")
            assert server.transport.in_flight == 2
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes by a reset
        await until(lambda: server.transport.connections == 0, "the connection is closed")
        assert [exchange.gone for exchange in server.seen] == [True, True]
        assert server.transport.in_flight == 0
        for exchange in server.seen:
            exchange.reply(told(exchange))
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_draining_closes_what_idles_answers_what_waits_and_takes_nothing_new(served: Serve) -> None:
    async with (
        served(later=True) as server,
        server.client() as idle,
        server.client() as waiting,
        server.client() as half,
    ):
        await idle.send(request("/idle"))
        await until(lambda: len(server.seen) == 1, "the first came")
        server.seen[0].reply(told(server.seen[0]))
        assert (await idle.answer()).status == 200
        await waiting.send(request("/1") + request("/2"))
        await half.send(request("/half", body=b"abc")[:-1])
        await until(lambda: len(server.seen) == 3, "the others came")
        await until(lambda: server.transport._shared.buffered_bytes == 2, "half a body came")
        draining = asyncio.create_task(server.transport.drain(30))
        assert await idle.rest() == b""
        with pytest.raises(OSError):  # noqa: PT011 - which one is the kernel's matter
            async with server.client():
                pass
        for number in (1, 2):
            server.seen[number].reply(told(server.seen[number]))
        assert [(await waiting.answer()).headers.get("connection") for _ in range(2)] == [None, "close"]
        assert await waiting.rest() == b""
        await waiting.close()
        await half.send(b"c")
        await until(lambda: len(server.seen) == 4, "the half is whole")
        server.seen[3].reply(told(server.seen[3]))
        answer = await half.answer()
        assert (answer.json()["path"], answer.headers["connection"]) == ("/half", "close")
        assert await half.rest() == b""
        await half.close()
        assert await draining == 0
        assert server.transport.connections == 0


async def test_once_it_retires_each_answer_says_that_it_closes_and_does(served: Serve) -> None:
    async with (
        served(later=True) as server,
        server.client() as idle,
        server.client() as waiting,
    ):
        await idle.send(request("/1"))
        await until(lambda: len(server.seen) == 1, "the first came")
        server.seen[0].reply(told(server.seen[0]))
        assert "connection" not in (await idle.answer()).headers
        await waiting.send(request("/2"))
        await until(lambda: len(server.seen) == 2, "the second came")
        server.transport.retire()
        server.seen[1].reply(told(server.seen[1]))
        assert (await waiting.answer()).headers["connection"] == "close"
        assert await waiting.rest() == b""
        await idle.send(request("/1"))  # by a head that was seen before
        await until(lambda: len(server.seen) == 3, "the third came")
        server.seen[2].reply(told(server.seen[2]))
        assert (await idle.answer()).headers["connection"] == "close"
        assert await idle.rest() == b""
        async with server.client() as late:
            await late.send(request("/3"))
            await until(lambda: len(server.seen) == 4, "the fourth came")
            server.seen[3].reply(told(server.seen[3]))
            assert (await late.answer()).headers["connection"] == "close"


async def test_a_connection_made_just_before_the_port_closes_is_answered(served: Serve) -> None:
    async with served() as server, server.client() as fresh:
        await until(lambda: server.transport.connections == 1, "it is accepted")
        draining = asyncio.create_task(server.transport.drain(30))
        await until(lambda: server.transport._shared.draining, "the port is closed")
        await fresh.send(request("/1"))
        answer = await fresh.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        await fresh.close()
        assert await draining == 0


async def test_a_port_that_holds_off_accepts_what_came_before_and_resets_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as port, socket.create_connection(port.getsockname()) as early:
        assert hold_off(port)
        with socket.socket() as late:
            late.setblocking(False)
            assert late.connect_ex(port.getsockname()) != 0
            accepted, _ = port.accept()
            with accepted:
                early.sendall(b"a")
                assert accepted.recv(1) == b"a"
            port.setblocking(False)
            with pytest.raises(BlockingIOError):
                port.accept()
            take_on(port)
        port.setblocking(True)
        with socket.create_connection(port.getsockname()):
            port.accept()[0].close()


async def test_draining_cuts_off_what_is_not_done_in_time(served: Serve) -> None:
    async with served(later=True) as server, server.client() as client:
        await client.send(request("/1"))
        await until(lambda: server.seen, "it came")
        assert await server.transport.drain(0.01) == 1
        assert server.seen[0].gone
        assert server.transport.connections == 0


async def test_answers_given_at_the_end_of_the_turn_are_answered() -> None:
    loop = asyncio.get_running_loop()
    waiting: list[Exchange] = []

    def handle(exchange: Exchange) -> None:
        if not waiting:
            loop.call_soon(answer_all)
        waiting.append(exchange)

    def answer_all() -> None:
        batch = waiting.copy()
        waiting.clear()
        for exchange in reversed(batch):
            exchange.reply(Response(OK, exchange.path.encode()))

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    transport = await serve(handle, [sock])
    async with httpx.AsyncClient(base_url=url, verify=NO_TLS) as client:
        answers = await asyncio.gather(*[client.get(f"/{number}") for number in range(60)])
    assert [answer.text for answer in answers] == [f"/{number}" for number in range(60)]
    assert await transport.drain(10) == 0


def test_connections_are_bounded_by_the_files_that_may_be_open(caplog: pytest.LogCaptureFixture) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, hard = before
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
        assert within_descriptors(Limits(max_connections=100)).max_connections == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 600
        assert within_descriptors(Limits(max_connections=500)).max_connections == 500
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 1256
        assert caplog.records == []
        beyond = Limits(max_connections=hard if hard != resource.RLIM_INFINITY else 1)
        bounded = within_descriptors(beyond)
        assert 2 * bounded.max_connections + 256 <= hard or hard == resource.RLIM_INFINITY
        assert bounded == beyond or "leave room" in caplog.text
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def test_the_sweep_runs_by_itself() -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    address = sock.getsockname()
    transport = await serve(lambda _: None, [sock], limits=Limits(head_s=0.0), sweep_s=0.01)
    DATED.tell(0.0)
    reader, writer = await asyncio.open_connection(*address)
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    line = DATED.line
    writer.close()
    await writer.wait_closed()
    await transport.drain(0)
    assert b"1970" not in line
