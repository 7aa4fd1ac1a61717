"""Large tables are read beside the event loop, in their order, within bounds, and not once nobody waits for them."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from aks_serving.conversions import Conversions, Converted
from aks_serving.errors import ExpiredError, OverloadedError
from aks_serving.model import Model, Signature, TensorSpec
from aks_serving.serving import Serving
from aks_serving.tables import Form, read_query, read_request, takes_long

from shared.core.errors import InvalidInputError, NotFoundError
from tests.serving import models
from tests.serving.damaged import stream
from tests.serving.handled import Asked, HandServer, Watched

pytestmark = pytest.mark.anyio

TABLE = models.scaler(2.0)
ROWS = b"1,2\n" * 1000
SAID = read_query(b"")


class Held(Asked):
    """A request whose table is not read before the test opens its gate."""

    def __init__(self, body: bytes = ROWS) -> None:
        self.gate, self.began = threading.Event(), threading.Event()
        self.read_by = 0
        super().__init__("/predict", body, {b"content-type": b"text/csv"})

    @property
    def gone(self) -> bool:
        if threading.current_thread() is not threading.main_thread():
            self.read_by = threading.get_ident()
            self.began.set()
            assert self.gate.wait(30)
        return False

    @gone.setter
    def gone(self, value: bool) -> None:
        assert not value


class Told(bytes):
    """A body that tells whether it was read."""

    read = False

    def decode(self, *args: Any, **named: Any) -> str:
        self.read = True
        return super().decode(*args, **named)


@asynccontextmanager
async def _server() -> AsyncIterator[HandServer]:
    server = HandServer(models.plan(1, models.route(1, TABLE)), {1: Watched(TABLE)}, inline=True)
    try:
        yield server
    finally:
        server.close()


def _convert(
    conversions: Conversions, server: HandServer, exchange: Asked, timeout_s: float = 30.0
) -> asyncio.Task[Converted | None]:
    def serving_of(model: str | None) -> Serving:
        if model is not None:
            raise NotFoundError(f"model {model!r}")
        return server.serving

    return asyncio.create_task(conversions.convert(exchange, Form.CSV, exchange.body, serving_of, timeout_s=timeout_s))


async def test_a_table_is_read_on_a_thread_and_gives_what_it_gives_on_the_event_loop() -> None:
    async with _server() as server:
        held = Held()
        held.gate.set()
        found = await _convert(Conversions(), server, held)
        assert held.read_by not in (0, threading.get_ident())
        assert found is not None
        signature = server.serving.lanes[1].model.signature
        (table,) = found.feeds(signature).values()
        assert found.feeds(signature)["x"] is table, "it is read once"
        assert np.array_equal(table, read_request(Form.CSV, ROWS, b"").feeds(signature)["x"])


async def test_tables_are_read_one_after_the_other_while_the_event_loop_turns() -> None:
    async with _server() as server:
        conversions = Conversions()
        ended: list[asyncio.Task[Converted | None]] = []
        first, second = Held(), Held()
        tasks = [_convert(conversions, server, held) for held in (first, second)]
        for task in tasks:
            task.add_done_callback(ended.append)
        second.gate.set()
        assert await asyncio.to_thread(first.began.wait, 30)
        assert (conversions.waiting, second.began.is_set(), ended) == (2, False, [])
        first.gate.set()
        await asyncio.gather(*tasks)
        assert (conversions.waiting, ended) == (0, tasks)
        assert first.read_by == second.read_by


async def test_what_expired_or_was_left_before_its_turn_is_not_read() -> None:
    async with _server() as server:
        conversions = Conversions()
        first, late, left = Held(), Asked("/predict", Told(ROWS)), Asked("/predict", Told(ROWS))
        running = [_convert(conversions, server, first), _convert(conversions, server, late, timeout_s=0.0)]
        running.append(_convert(conversions, server, left))
        assert await asyncio.to_thread(first.began.wait, 30)
        left.gone = True
        first.gate.set()
        found, error, nothing = await asyncio.gather(*running, return_exceptions=True)
        assert isinstance(found, Converted)
        assert isinstance(error, ExpiredError)
        assert nothing is None
        assert [exchange.body.read for exchange in (late, left)] == [False, False]  # type: ignore[attr-defined]
        assert server.serving.tally.refused == {"expired": 1, "cancelled": 1}


async def test_a_query_names_its_own_time() -> None:
    async with _server() as server:
        exchange = Asked("/predict", ROWS)
        exchange.query = b"timeout_ms=1e-9"
        with pytest.raises(ExpiredError):
            await _convert(Conversions(), server, exchange)


@pytest.mark.parametrize("bounds", [{"max_waiting": 2}, {"max_waiting_bytes": 2 * len(ROWS)}])
async def test_what_waits_is_bounded_and_one_table_alone_always_fits(bounds: dict[str, int]) -> None:
    async with _server() as server:
        conversions = Conversions(**bounds)
        whole = Held(ROWS * 3)
        whole.gate.set()
        assert await _convert(conversions, server, whole) is not None
        first, second = Held(), Held()
        running = [_convert(conversions, server, held) for held in (first, second)]
        assert await asyncio.to_thread(first.began.wait, 30)
        with pytest.raises(OverloadedError, match="2 requests are waiting already"):
            await _convert(conversions, server, Asked("/predict", ROWS))
        assert server.serving.tally.refused == {"overloaded": 1}
        for held in (first, second):
            held.gate.set()
        await asyncio.gather(*running)
        assert await _convert(conversions, server, Asked("/predict", ROWS)) is not None


async def test_a_model_that_is_not_served_costs_no_reading() -> None:
    async with _server() as server:
        exchange = Asked("/predict", Told(ROWS))
        exchange.query = b"model=none"
        with pytest.raises(NotFoundError):
            await _convert(Conversions(), server, exchange)
        assert exchange.body.read is False  # type: ignore[attr-defined]


def test_what_is_wrong_with_a_table_is_told_to_who_asks_for_it() -> None:
    signature = Model(version=1, digest=models.digest(TABLE), data=TABLE).signature
    three = Signature(inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, 3)),), outputs=())
    whole = Converted(SAID, Form.CSV, b"1,2\n")
    whole.read([signature, three])
    assert whole.feeds(signature)["x"].tolist() == [[1, 2]]
    with pytest.raises(InvalidInputError, match="the table has 2 columns, and input 'x' 3"):
        whole.feeds(three)
    torn = Converted(SAID, Form.CSV, b"1,2\n3\n")
    torn.read([signature])
    with pytest.raises(InvalidInputError, match="line 2 of the CSV has 1 cells, wanted 2"):
        torn.feeds(signature)
    # A version that came while it was read.
    unforeseen = Converted(SAID, Form.CSV, b"1,2,3\n")
    unforeseen.read([signature])
    assert unforeseen.feeds(three)["x"].tolist() == [[1, 2, 3]]


def test_which_tables_take_long() -> None:
    for end in (b"\n", b"\r", b","):
        assert not takes_long(Form.CSV, b"1" + end + b"2" * 2000)
        assert not takes_long(Form.CSV, (b"1" + end) * 1000)
        assert takes_long(Form.CSV_BARE, (b"1" + end) * 1100)
    assert takes_long(Form.CSV, b"1" * 100_000)
    short, wide = stream({"c": [1.0]}), stream({str(number): [1.0] for number in range(100)})
    read_request(Form.ARROW, short, b"")
    assert not takes_long(Form.ARROW, short)
    assert takes_long(Form.ARROW, wide), "a column costs as much as many rows"
