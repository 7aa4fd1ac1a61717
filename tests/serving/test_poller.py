"""Polling: one plan that cannot be had keeps no other's away, and nothing ends it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aks_serving.poller import Poller
from aks_serving.ports import StoredPlan

from shared.core.errors import UnavailableError
from shared.core.ids import EndpointName
from tests.serving import models
from tests.serving.conftest import eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

ONE = models.scaler(1.0)


class _Partly(MemoryStorage):
    """Storage that has some plans that cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable: set[str] = set()

    def plan(self, endpoint: EndpointName, *, unless_etag: str | None) -> StoredPlan | None:
        if endpoint in self.unreadable:
            raise UnavailableError("blob storage", f"{endpoint} cannot be read, says the test")
        return super().plan(endpoint, unless_etag=unless_etag)


class _Polled:
    def __init__(self, *endpoints: str) -> None:
        self.storage = _Partly()
        self.heard: list[str] = []
        self.poller = Poller(
            self.storage,
            endpoints=tuple(EndpointName(name) for name in endpoints),
            changed=lambda endpoint, _: self.heard.append(endpoint),
        )

    def publish(self, generation: int, *endpoints: str) -> None:
        for endpoint in endpoints:
            self.storage.publish(models.plan(generation, models.route(1, ONE), endpoint=endpoint))


@pytest.fixture(params=[(), ("a", "b", "c")])
async def polled(request: pytest.FixtureRequest) -> AsyncIterator[_Polled]:
    made = _Polled(*request.param)
    yield made
    made.poller.close()


async def test_a_plan_that_cannot_be_read_keeps_no_other_away_also_after_an_outage(polled: _Polled) -> None:
    polled.storage.down = True
    for _ in range(3):
        with pytest.raises(UnavailableError):
            await polled.poller.poll()
    polled.storage.down = False
    polled.storage.unreadable = {"a"}
    for generation in range(1, 4):
        polled.publish(generation, "a", "b", "c")
        with pytest.raises(UnavailableError, match="a cannot be read"):
            await polled.poller.poll()
    assert polled.heard == ["b", "c"] * 3
    polled.storage.unreadable = set()
    await polled.poller.poll()
    assert polled.heard == ["b", "c"] * 3 + ["a"]


async def test_polling_goes_on_where_what_follows_it_goes_wrong(caplog: pytest.LogCaptureFixture) -> None:
    polled, calls = _Polled(), list[int]()

    def follows() -> None:
        calls.append(1)
        raise LookupError("says the test")

    running = asyncio.create_task(polled.poller.run(every_s=0.001, polled=follows))
    polled.publish(1, "a")
    await eventually(lambda: len(calls) > 3 and polled.heard == ["a"])
    assert not running.done()
    assert "polling goes on" in caplog.text
    running.cancel()
    polled.poller.close()
