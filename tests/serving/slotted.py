"""Plans of endpoints with pods of their own, a clock for what lingers, and what is asked of such pods."""

import asyncio
from typing import Any

from shared.core.slots import Slot
from shared.routing.plan import Role, Route, RoutePlan
from tests.serving import models
from tests.serving.conftest import Running

BLUE, GREEN = Slot.BLUE, Slot.GREEN
ONE, TWO, THREE = models.scaler(1.0), models.scaler(2.0), models.scaler(3.0)
ROWS = [[1.0, 1.0]]


class Time:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def stable(version: int, data: bytes, slot: Slot | None = None, weight: int = 10_000) -> Route:
    return models.route(version, data, slot=slot, weight=weight)


def candidate(version: int, data: bytes, slot: Slot | None, weight: int) -> Route:
    return models.route(version, data, role=Role.CANDIDATE, slot=slot, weight=weight)


def dedicated(generation: int, weight: int = 1_000) -> RoutePlan:
    """Stable in the shared pods, and a candidate in blue."""
    return models.plan(generation, stable(1, ONE, weight=10_000 - weight), candidate(2, TWO, BLUE, weight))


async def answering(running: Running) -> set[tuple[int, str]]:
    """The versions that answer, and as what, with a subject and without."""
    asked = [running.predict(ROWS, model="churn", **({"user_id": f"u{n}"} if n % 2 else {})) for n in range(40)]
    answers = [answer.json() for answer in await asyncio.gather(*asked)]
    return {(answer["model_version"], answer["role"]) for answer in answers}


async def loaded(running: Running) -> list[int]:
    loaded: list[int] = (await running.reload())["endpoints"]["churn"]["loaded"]
    return loaded


async def refusal(running: Running, status: int = 404, **fields: Any) -> str:
    answer = await running.predict(ROWS, model="churn", **fields)
    assert answer.status_code == status, answer.text
    text: str = answer.json()["error"]
    return text


async def why_not_ready(running: Running) -> str:
    """Why the server is not ready; empty where it is. That it lives is never in doubt."""
    assert (await running.client.get("/health")).status_code == 200
    answer = await running.client.get("/ready")
    assert answer.status_code == (503 if "reason" in answer.json() else 200)
    reason: str = answer.json().get("reason", "")
    return reason
