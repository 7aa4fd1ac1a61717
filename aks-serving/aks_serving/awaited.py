"""Predictions that a coroutine waits for, as gRPC's calls do; what HTTP asks is answered by a call (aks_serving.asks).

Which version answers, and what happens when it cannot, is said in aks_serving.predictor.
"""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from aks_serving.batches import Results
from aks_serving.calls import NORMAL
from aks_serving.model import Signature
from aks_serving.predictor import Ask, Read
from aks_serving.serving import Serving
from aks_serving.tensors import Array
from shared.core.errors import SlipwayError
from shared.core.tracing import Span
from shared.routing.plan import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """An answer: the outputs of `signature`, in its order, and who gave them under which generation of the plan."""

    version: int
    role: Role
    generation: int
    fallback: bool
    prediction_id: str
    signature: Signature
    outputs: Sequence[Array]


class _Awaited(Ask):
    """An ask that a coroutine waits for."""

    __slots__ = ("future", "span")

    future: asyncio.Future[Prediction]
    span: Span | None

    @property
    def gone(self) -> bool:
        return self.future.done()

    def give(self, results: Results, start: int, stop: int, now_s: float) -> None:  # noqa: ARG002 - as Ask has it
        if not self.future.done():
            self.future.set_result(prediction_of(self, results, start, stop))

    def refuse(self, error: SlipwayError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def prediction_of(ask: Ask, results: Results, start: int, stop: int) -> Prediction:
    """What answers an ask."""
    serving, route = ask.serving, ask.route
    face = serving.face(route.version, ask.kind)
    return Prediction(
        version=route.version,
        role=route.role,
        generation=serving.plan.generation,
        fallback=face.fallback,
        prediction_id=(face.id_prefix + serving.numbering.next()).decode(),
        signature=serving.lanes[route.version].model.signature,
        outputs=results.of(start, stop),
    )


async def predict(
    serving: Serving,
    read: Read,
    *,
    version: int | None,
    subject: str | None,
    started_s: float,
    held_bytes: int = 0,
    deadline_s: float = math.inf,
    priority: int = NORMAL,
    span: Span | None = None,
) -> Prediction:
    """Answer a request that came at `started_s` (perf_counter). Without a subject, its version is drawn at random.
    `held_bytes` is the size of what `read` reads from, `span` the request's.

    Raises InvalidInputError, NotFoundError for a named version that is not loaded, NotServingError, OverloadedError,
    ExpiredError or ModelRunError. Where the caller is cancelled, what has not begun to run does not.
    """
    ask = _Awaited(
        serving, started_s=started_s, read=read, held_bytes=held_bytes, deadline_s=deadline_s, priority=priority
    )
    ask.future = asyncio.get_running_loop().create_future()
    ask.span = span
    ask.begin(version=version, subject=subject)
    return await ask.future
