"""A candidate that ends the process that runs it: those after it tell of it, and the control plane takes it back."""

import os
import signal
from datetime import UTC, datetime

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Triggers
from shared.rollout.progress import Progress, taken
from shared.rollout.triggers import health
from shared.telemetry.window import Deaths, Window
from tests.serving import models
from tests.serving.processes import Account, Launch, Server
from tests.support.waiting import eventually
from tests.unit.rollout.evidence import rollout

ONE, TWO = models.scaler(1.0), models.scaler(2.0)
ROLLOUT = "rollout-000002-0"


def told(account: Account) -> list[Window]:
    return sorted(account.windows(), key=lambda window: window.ended_at)


def counted(account: Account) -> int:
    """How many that held the candidate were told of in the latest window."""
    windows = told(account)
    deaths = windows[-1].deaths if windows else None
    return deaths.processes.get(2, 0) if deaths else 0


def end_worker(account: Account, server: Server, before: int) -> None:
    """End the process that serves, as a fault in a model's own code would, once it has told that it serves."""
    (pid,) = eventually(lambda: _new_worker(account, server, before), what="a worker has the candidate ready")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in server.workers(), what="it is gone")


def _new_worker(account: Account, server: Server, before: int) -> list[int]:
    windows = told(account)
    is_ready = windows and counted(account) == before and 2 in windows[-1].loaded
    return server.workers() if is_ready else []


def test_processes_that_die_are_counted_until_the_candidate_fails_and_an_ordered_end_is_none(
    account: Account, launch: Launch
) -> None:
    account.put(ONE, TWO)
    plan = models.plan(1, *models.canary((1, ONE), (2, TWO), 1_000))
    account.publish(plan.model_copy(update={"rollout_id": ROLLOUT}))
    server = launch(account.connection)
    for number in range(3):
        end_worker(account, server, number)
    eventually(lambda: counted(account) == 3, what="all three are told of")
    progress = taken(Progress(first_generation=1), account.windows(), 1)
    verdict = health(rollout(progress=progress), Triggers(), datetime.now(UTC))
    assert verdict is not None
    assert (verdict.verdict.outcome, verdict.is_proof) == (Outcome.FAIL, False)
    assert "on 1 of 1 pods 3 processes or more ended unbidden" in verdict.verdict.sentence
    last = told(account)[-1].pod
    assert server.stop() == 0
    # Another server in the same place, as a container that starts again.
    launch(account.connection)
    eventually(lambda: told(account)[-1].pod != last, what="the next one tells")
    assert told(account)[-1].deaths == Deaths(rollout_id=ROLLOUT, processes={1: 3, 2: 3})
