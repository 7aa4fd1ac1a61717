"""What the guard is told of: each assigned request that was tried once, in its arm, answered with others or alone."""

import pytest

from shared.routing.assignment import bucket
from tests.serving import models
from tests.serving.handled import HandServer, Watched, plain

pytestmark = pytest.mark.anyio

HALF = 5_000
GOOD, CANDIDATE_FAILS, BOTH_FAIL = 1, 3, 9
STABLE, CANDIDATE = models.picky(limit=4), models.picky(limit=3)


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
async def test_the_guard_is_told_of_both_arms(*, together: bool) -> None:
    plan = models.plan(1, *models.canary((1, STABLE), (2, CANDIDATE), HALF))
    server = HandServer(plan, {1: Watched(STABLE), 2: Watched(CANDIDATE, version=2)}, inline=True)
    told = [0, 0, 0, 0]
    asked = []
    for user in range(40):
        on_candidate = bucket("salt", str(user)) < HALF
        for number in (GOOD, CANDIDATE_FAILS, BOTH_FAIL):
            asked.append(plain([[number]], user_id=user))
            if not on_candidate:
                told[3 if number == BOTH_FAIL else 2] += 1
            elif number != BOTH_FAIL:
                told[0 if number == GOOD else 1] += 1
    assert all(told)
    for one in asked:
        server.ask(one)
        if not together:
            await server.idle()
    await server.idle()
    server.close()
    assert server.serving.seen == told
