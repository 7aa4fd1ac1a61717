"""Which version answers a request, and what happens when it cannot.

A subject's version is decided by the plan and the subject alone, so every pod decides alike. Where the candidate fails
a request (it raises, is not loaded, or does not take inputs that stable takes), stable answers it, and the error counts
against the candidate. A version that the caller named answers or fails by itself.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aks_serving.counts import Kind
from aks_serving.deployment import Serving
from aks_serving.engine import Lane
from aks_serving.errors import ModelRunError, NotServingError
from aks_serving.model import Signature
from aks_serving.tensors import Array, Feeds
from shared.core.errors import InvalidInputError, NotFoundError
from shared.routing.assignment import bucket, route_for
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route

type Read = Callable[[Signature], Feeds]
"""Reads a request's inputs as a signature wants them, in its order. Raises InvalidInputError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """An answer: the outputs of `signature`, in its order, and who gave them under which generation of the plan."""

    version: int
    role: Role
    generation: int
    fallback: bool
    signature: Signature
    outputs: Sequence[Array]


async def predict(
    serving: Serving, read: Read, *, version: int | None, subject: str | None, started_s: float
) -> Prediction:
    """Answer a request that came at `started_s` (perf_counter). Without a subject, its version is drawn at random.

    Raises InvalidInputError, NotFoundError for a named version that is not loaded, NotServingError, OverloadedError or
    ModelRunError.
    """
    # Held until a fallback is done too, so that the snapshot's window is not closed for good between the two runs.
    serving.tally.in_flight += 1
    try:
        if version is not None:
            return await _named(serving, read, version, started_s)
        salt = serving.plan.salt
        place = random.randrange(FULL_WEIGHT_BP) if subject is None else bucket(salt, subject)  # noqa: S311
        route = route_for(serving.plan, place)
        if route is None:
            raise NotServingError(f"endpoint {serving.plan.endpoint!r}", "no version serves it yet")
        if route.role is Role.CANDIDATE and serving.plan.stable is not None:
            return await _candidate(serving, read, route, serving.plan.stable, started_s)
        return await _answer(serving, read, route, Kind.ASSIGNED, started_s)
    finally:
        serving.tally.in_flight -= 1


async def _named(serving: Serving, read: Read, version: int, started_s: float) -> Prediction:
    route = next((route for route in serving.plan.routes if route.version == version), None)
    if route is None or version not in serving.lanes:
        loaded = ", ".join(str(number) for number in sorted(serving.lanes)) or "none"
        raise NotFoundError(f"version {version} of endpoint {serving.plan.endpoint!r}", hint=f"loaded: {loaded}")
    return await _answer(serving, read, route, Kind.PINNED, started_s)


async def _candidate(serving: Serving, read: Read, candidate: Route, stable: Route, started_s: float) -> Prediction:
    lane, fallback = serving.lanes.get(candidate.version), serving.lanes.get(stable.version)
    if lane is not None:
        try:
            return await _run(serving, lane, read(lane.model.signature), candidate, Kind.ASSIGNED, started_s)
        except ModelRunError:
            if fallback is None:
                raise
            return await _answer(serving, read, stable, Kind.FALLBACK, started_s)
        except InvalidInputError:
            if fallback is None:
                raise
    if fallback is None:
        raise _not_loaded(serving, candidate)
    # What stable refuses too is the caller's error, and is raised here; what it takes is the candidate's error.
    feeds = read(fallback.model.signature)
    serving.tally.failed(candidate.version, Kind.ASSIGNED)
    return await _run(serving, fallback, feeds, stable, Kind.FALLBACK, started_s)


async def _answer(serving: Serving, read: Read, route: Route, kind: Kind, started_s: float) -> Prediction:
    lane = serving.lanes.get(route.version)
    if lane is None:
        raise _not_loaded(serving, route)
    return await _run(serving, lane, read(lane.model.signature), route, kind, started_s)


async def _run(serving: Serving, lane: Lane, feeds: Feeds, route: Route, kind: Kind, started_s: float) -> Prediction:
    outputs = await lane.run(feeds, kind=kind, tally=serving.tally, started_s=started_s)
    return Prediction(
        version=route.version,
        role=route.role,
        generation=serving.plan.generation,
        fallback=kind is Kind.FALLBACK,
        signature=lane.model.signature,
        outputs=outputs,
    )


def _not_loaded(serving: Serving, route: Route) -> NotServingError:
    reason = serving.failed.get(route.version, "it is not loaded")
    return NotServingError(f"version {route.version} of endpoint {serving.plan.endpoint!r}", reason)
