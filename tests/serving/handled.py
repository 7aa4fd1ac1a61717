"""Requests handed to the API without a transport, and a server of models that the test makes and watches."""

import asyncio
import json
import math
import threading
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import pytest
from aks_serving.api import Api
from aks_serving.batches import LoadedModel, layout_of
from aks_serving.engine import Engine
from aks_serving.exchange import Exchange, Response
from aks_serving.lanes import Lane
from aks_serving.model import Model
from aks_serving.prometheus import Facts
from aks_serving.serving import Serving, Servings
from aks_serving.tensors import Feeds

from shared.routing.plan import RoutePlan
from tests.serving import models
from tests.serving.conftest import eventually

_LONG_S, _SHORT_S = 1e9, 1e-9
"""Run times that keep a version on the engine's thread, and on the event loop, whatever its next runs take."""


class Asked(Exchange):
    """A request, and what was replied to it."""

    def __init__(
        self, path: str, body: bytes = b"", headers: dict[bytes, bytes] | None = None, *, method: str = "POST"
    ) -> None:
        self.method, self.path, self.query = method, path, b""
        self.headers = headers or {}
        self.body = body
        self.received_s = perf_counter()
        self.gone = False
        self.replies: list[Response] = []

    def reply(self, response: Response) -> None:
        self.replies.append(response)

    @property
    def response(self) -> Response:
        """The only reply."""
        (response,) = self.replies
        return response

    @property
    def status(self) -> int:
        return self.response.head.status

    @property
    def told(self) -> dict[bytes, bytes]:
        """The response's headers."""
        return dict((*self.response.head.headers, *self.response.extra))

    def json(self) -> dict[str, Any]:
        """The response's body, or the JSON part of it."""
        length = self.told.get(b"inference-header-content-length")
        found: dict[str, Any] = json.loads(self.response.body[: int(length)] if length else self.response.body)
        return found


def plain(features: Any, **fields: Any) -> Asked:
    return Asked("/predict", json.dumps({"features": features} | fields).encode())


def infer(datatype: str, shape: list[int], data: list[Any], *, endpoint: str = "churn", **fields: Any) -> Asked:
    tensor = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return Asked(f"/v2/models/{endpoint}/infer", json.dumps({"inputs": [tensor]} | fields).encode())


class Watched(Model):
    """A real model that remembers its runs' inputs. While `open` is not set, a run hangs."""

    def __init__(self, data: bytes, *, version: int = 1) -> None:
        super().__init__(version=version, digest=models.digest(data), data=data)
        self.ran: list[list[Any]] = []
        self.began = threading.Event()
        self.open = threading.Event()
        self.open.set()

    def run(self, feeds: Feeds) -> Any:
        self.ran.append(next(iter(feeds.values())).tolist())
        self.began.set()
        assert self.open.wait(30)
        return super().run(feeds)


class Jump:
    """The clock by which work is late, which jumps `by_s` seconds ahead when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_s = 0.0
        monkeypatch.setattr("aks_serving.lanes.perf_counter", lambda: perf_counter() + self.by_s)


class Slow(Watched):
    """A model whose runs take a minute by that clock."""

    def __init__(self, data: bytes, clock: Jump, *, version: int = 1) -> None:
        super().__init__(data, version=version)
        self._clock = clock

    def run(self, feeds: Feeds) -> Any:
        self._clock.by_s = 60.0
        return super().run(feeds)


class HandServer:
    """Models behind the API: one endpoint under one plan. Made on a running event loop."""

    def __init__(
        self,
        plan: RoutePlan,
        versions: Mapping[int, Model],
        *,
        max_queue: int = 1024,
        max_queue_bytes: int = 2**30,
        timeout_s: float = math.inf,
        inline: bool = False,
    ) -> None:
        self.engine = Engine(max_queue=max_queue, max_queue_bytes=max_queue_bytes)
        lanes = {number: self._lane(model) for number, model in versions.items()}
        for lane in lanes.values():
            keep(lane, inline=inline)
        self.serving = Serving(plan=plan, lanes=lanes, failed={})
        self.servings = Servings({plan.endpoint: self.serving})
        self.api = Api(self, timeout_s=timeout_s)

    @property
    def waiting(self) -> int:
        return self.engine.waiting

    def not_ready(self) -> str:
        return ""

    def totals(self) -> dict[str, Any]:
        return {self.serving.plan.endpoint: dict(self.serving.tally.versions)}

    def refused(self) -> dict[str, dict[str, int]]:
        return {self.serving.plan.endpoint: dict(self.serving.tally.refused)}

    def tripped(self) -> dict[str, dict[int, str]]:
        return {self.serving.plan.endpoint: self.serving.tripped}

    def facts(self) -> Facts:
        return Facts(totals={}, servings=self.servings)

    async def reload(self) -> None:
        """Nothing to load."""

    def ask(self, *asked: Asked) -> None:
        """Have requests handled, all in one turn of the event loop."""
        for one in asked:
            self.api.handle(one)

    async def idle(self) -> None:
        """Wait until nothing waits or runs."""
        await eventually(lambda: self.engine.waiting == 0 and self.serving.tally.in_flight == 0)

    def close(self) -> None:
        self.engine.close()

    def _lane(self, model: Model) -> Lane:
        return Lane(LoadedModel(model=model, batchable=True, layout=layout_of(model.signature)), self.engine)


def keep(lane: Lane, *, inline: bool) -> None:
    """Keep a version's runs on the event loop, or off it."""
    for power in range(12):
        lane.times.add(2**power, _SHORT_S if inline else _LONG_S)


async def turn() -> None:
    """Let the event loop turn: what was asked before is run, where it runs on the loop."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)
