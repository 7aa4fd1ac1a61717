"""Has a version answer before it serves, by the way that requests will take: the first one then finds all of it warm.

Requests of every usual form go over a connection of the process with itself, through the HTTP transport and the API, to
the version, alone and several at once, and their answers come back and are dropped. All that would count them is made
for them alone: no window, no metric and no guard hears of them. Whatever goes wrong is logged, and holds nothing up.

It is done beside the traffic, on the same event loop: what comes at a time is so little that nobody waits for longer
than a millisecond for it, and a model that runs long is run once a form, on a thread that gives way to requests.
"""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from time import perf_counter
from typing import Any

import msgspec

from aks_serving.api import Api
from aks_serving.batches import LoadedModel
from aks_serving.engine import Engine
from aks_serving.http.limits import Limits
from aks_serving.http.protocol import Connection
from aks_serving.http.state import Shared
from aks_serving.lanes import Lane
from aks_serving.model import Signature
from aks_serving.priority import give_way
from aks_serving.prometheus import Facts
from aks_serving.serving import Serving, Servings
from aks_serving.tensors import Feeds, flat, nested, to_bytes
from shared.core.errors import UnavailableError
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan

log = logging.getLogger(__name__)

ROUNDS = 24
"""How often each form is asked for: the interpreter specialises what ran some ten times."""
NEW_HEADS = 8
"""How many of them have a head of their own, as the first request of a connection has."""
AT_ONCE = 8
_ENOUGH_S = 0.3
_WITHIN_S = 5.0
_LONG_RUN_S = 0.005
"""Processor time of a run beside which what is around it does not show."""
_MAX_BYTES = 32 * 1024
"""Bodies that come at once, together: reading or writing that much JSON takes about half a millisecond. A larger
request is not sent, and none after an answer that is larger.
"""
_JSON_BYTES = 8
"""What a number takes of JSON, about."""

_HOST = "host: rehearsal"
_encode = msgspec.json.Encoder().encode


async def rehearse(plan: RoutePlan, route: Route, loaded: LoadedModel, *, rounds: int = ROUNDS) -> Counter[int]:
    """Have a version answer its sample in each form; how many answers of each status it gave.

    Never raises. Runs beside what is being answered, a request a turn of the event loop; ends where cancelled.
    """
    what = f"endpoint {plan.endpoint}: version {route.version}"
    statuses: Counter[int] = Counter()
    stage = None
    try:
        if loaded.sample is not None:
            stage = _Stage(plan, route, loaded)
            await asyncio.sleep(0)
            requests = _requests(plan.endpoint, loaded.model.signature, loaded.sample)
            async with asyncio.timeout(_WITHIN_S):
                await stage.play(requests, statuses, rounds)
            log.info("%s is rehearsed, answers by status: %s", what, dict(statuses))
    except TimeoutError:
        log.info("%s is slow: it was rehearsed for %g s, answers by status: %s", what, _WITHIN_S, dict(statuses))
    except Exception:
        log.exception("%s: its rehearsal went wrong; it serves all the same", what)
    finally:
        if stage is not None:
            stage.close()
    return statuses


class _Stage:
    """A server of one version, which counts for itself alone. Both of its routes lead to that version."""

    def __init__(self, plan: RoutePlan, route: Route, loaded: LoadedModel) -> None:
        self._engine = Engine(max_queue=4 * AT_ONCE, begin=give_way)
        half = {"weight_bp": FULL_WEIGHT_BP // 2, "mirror_bp": 0}
        other = route.model_copy(update=half | {"version": route.version + 1, "role": Role.CANDIDATE})
        routes = (route.model_copy(update=half | {"role": Role.STABLE}), other)
        serving = Serving(
            plan=plan.model_copy(update={"routes": routes}),
            lanes={one.version: Lane(loaded, self._engine) for one in routes},
            failed={},
        )
        self.servings = Servings({plan.endpoint: serving})
        self._lanes = tuple(serving.lanes.values())
        self._api = Api(self)

    async def play(self, requests: Mapping[str, bytes], statuses: Counter[int], rounds: int) -> None:
        """Send each request again and again, then several at once."""
        here, there = socket.socketpair()
        with there:
            there.setblocking(False)
            shared = Shared(self._api.handle, Limits(), None, perf_counter)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.connect_accepted_socket(lambda: Connection(shared), here)
            try:
                begun_s = perf_counter()
                for number in range(rounds):
                    before_s = self._ran_s()
                    for request in requests.values():
                        asked = _with_another_head(request, number) if number < NEW_HEADS else request
                        if await self._exchange(there, asked, 1, statuses) > _MAX_BYTES:
                            return
                    if self._ran_s() - before_s > _LONG_RUN_S * len(requests):
                        return
                    if perf_counter() - begun_s > _ENOUGH_S:
                        break
                for request in requests.values():
                    at_once = min(AT_ONCE, _MAX_BYTES // len(request))
                    await self._exchange(there, request * at_once, at_once, statuses)
            finally:
                transport.abort()

    def _ran_s(self) -> float:
        """Processor time of the runs so far."""
        return sum(lane.runs.took_s for lane in self._lanes)

    async def _exchange(self, connection: socket.socket, data: bytes, answers: int, statuses: Counter[int]) -> int:
        """How many bytes came back."""
        loop = asyncio.get_running_loop()
        sending = asyncio.ensure_future(loop.sock_sendall(connection, data))
        received = bytearray()
        size_bytes = 0
        try:
            while answers:
                part = await loop.sock_recv(connection, 1 << 18)
                if not part:
                    raise ConnectionResetError("the transport closed the rehearsal's connection")
                received += part
                size_bytes += len(part)
                for status in _taken(received):
                    statuses[status] += 1
                    answers -= 1
        finally:
            await sending
        return size_bytes

    def close(self) -> None:
        """Let its threads go, and the version: the stage itself stays in memory until a garbage collection."""
        self._engine.close()
        self._lanes = ()
        self.servings = Servings({})

    # -- what the API asks of a server

    def not_ready(self) -> str:
        return ""

    def totals(self) -> dict[str, Any]:
        return {}

    def tripped(self) -> Mapping[str, Mapping[int, str]]:
        return {}

    def facts(self) -> Facts:
        return Facts(totals={}, servings={})

    async def reload(self) -> None:
        raise UnavailableError("a rehearsal", "it reloads nothing")


def _requests(endpoint: str, signature: Signature, sample: Feeds) -> dict[str, bytes]:
    """A request in each form that clients usually send, but for those that are too large."""
    count = sum(array.size for array in sample.values())
    if count > _MAX_BYTES:
        return {}  # a value takes a byte at least
    arrays = [sample[spec.name] for spec in signature.inputs]
    described = [
        {"name": spec.name, "datatype": spec.datatype, "shape": list(array.shape)}
        for spec, array in zip(signature.inputs, arrays, strict=True)
    ]
    raw = [to_bytes(array) for array in arrays]
    sized = [
        tensor | {"parameters": {"binary_data_size": len(data)}} for tensor, data in zip(described, raw, strict=True)
    ]
    subject = {"user_id": "a rehearsal"}
    start = _encode({"inputs": sized, "parameters": subject | {"binary_data_output": True}})
    infer = f"/v2/models/{endpoint}/infer"
    # The first, since of what is too large it is the least.
    found = {"binary": _request(infer, b"".join((start, *raw)), f"inference-header-content-length: {len(start)}\r\n")}
    if count * _JSON_BYTES <= _MAX_BYTES:
        named = {spec.name: nested(array) for spec, array in zip(signature.inputs, arrays, strict=True)}
        features: Any = named if len(named) != 1 else next(iter(named.values()))
        whole = [tensor | {"data": flat(array)} for tensor, array in zip(described, arrays, strict=True)]
        found["plain"] = _request("/predict", _encode({"features": features} | subject))
        found["v2"] = _request(infer, _encode({"inputs": whole, "parameters": subject}))
    return {form: request for form, request in found.items() if len(request) <= _MAX_BYTES}


def _request(path: str, body: bytes, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\n{_HOST}\r\ncontent-type: application/json\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def _with_another_head(request: bytes, number: int) -> bytes:
    return request.replace(_HOST.encode(), b"%b-%d" % (_HOST.encode(), number), 1)


def _taken(received: bytearray) -> Iterator[int]:
    """Take the answers that are whole from what came: their statuses."""
    while (end := received.find(b"\r\n\r\n")) >= 0:
        lines = bytes(received[:end]).lower().split(b"\r\n")
        size = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(received) < end + 4 + size:
            return
        del received[: end + 4 + size]
        yield int(lines[0].split(b" ")[1])
