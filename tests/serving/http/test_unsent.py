"""The bound over answers that are made and not sent, over real sockets and on both event loops."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from aks_serving.exchange import OK, Response
from aks_serving.http.limits import Limits

from tests.serving.http.conftest import Client, Serve, Served, until
from tests.serving.http.driven import Driven, request

pytestmark = pytest.mark.anyio

_MIB = 1 << 20
_LARGE = Response(OK, b"x" * (12 * _MIB))
"""More than sockets take by themselves."""
_SMALL = Response(OK, b"small")


async def _asked(server: Served, client: Client, answer: Response) -> None:
    """Ask, and have it answered; nobody reads."""
    number = len(server.seen)
    await client.send(request())
    await until(lambda: len(server.seen) > number, "the request came")
    server.seen[number].reply(answer)


async def test_many_that_do_not_read_hold_no_more_than_the_bound(
    served: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    bound = 30 * _MIB
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(served(later=True, limits=Limits(max_unsent_bytes=bound)))
        unsent = server.transport._shared.unsent
        usual = await stack.enter_async_context(server.client())
        for _ in range(8):
            await _asked(server, await stack.enter_async_context(server.client()), _LARGE)
            await _asked(server, usual, _SMALL)
            assert (await usual.answer()).body == b"small"
            held = sum(connection.held_bytes for connection in server.transport._shared.connections)
            assert held <= bound
        assert 0 < unsent.total_bytes <= bound
        await until(lambda: server.transport.connections < 8, "some are cut off")
        assert server.transport.connections > 2
        assert "unsent answers were cut off" in caplog.text
    assert unsent.total_bytes == 0


async def test_a_client_that_reads_has_its_large_answer_and_holds_nothing_after(served: Serve) -> None:
    async with served(later=True, limits=Limits(max_unsent_bytes=30 * _MIB)) as server, server.client() as client:
        for _ in range(4):
            await _asked(server, client, _LARGE)
            assert server.transport._shared.unsent.total_bytes > 0
            assert len((await client.answer()).body) == 12 * _MIB
            await until(lambda: server.transport._shared.unsent.total_bytes == 0, "all is sent")


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
