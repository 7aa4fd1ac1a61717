"""A candidate that ends the process that runs it: those after it tell of it, and the control plane takes it back."""

import os
import signal
from datetime import UTC, datetime

from shared.core.verdict import Outcome
from shared.registry.rollout_policy import Triggers
from shared.rollout.progress import Progress, taken
from shared.rollout.triggers import health
from shared.telemetry.window import Window
from tests.serving import models
from tests.serving.processes import Account, Launch, Server
from tests.support.waiting import eventually
from tests.unit.rollout.evidence import rollout

ONE, TWO = models.scaler(1.0), models.scaler(2.0)
ROLLOUT = "rollout-000002-0"


def told(account: Account) -> list[Window]:
    return sorted(account.windows(), key=lambda window: window.ended_at)


def end_worker(account: Account, server: Server) -> str:
    """End the process that serves, as a fault in a model's own code would, once it has told that it serves."""
    (pid,) = eventually(lambda: _new_worker(account, server), what="a worker has the candidate ready")
    pod = told(account)[-1].pod
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: pid not in server.workers(), what="it is gone")
    return pod


def _new_worker(account: Account, server: Server) -> list[int]:
    windows = told(account)
    dead = {pod for window in windows for pod in window.died}
    return server.workers() if windows and windows[-1].pod not in dead and 2 in windows[-1].loaded else []


def test_processes_that_die_are_told_of_until_the_candidate_fails_and_an_ordered_end_is_told_as_such(
    account: Account, launch: Launch
) -> None:
    account.put(ONE, TWO)
    plan = models.plan(1, *models.canary((1, ONE), (2, TWO), 1_000))
    account.publish(plan.model_copy(update={"rollout_id": ROLLOUT}))
    server = launch(account.connection)
    dead: set[str] = set()
    for _ in range(3):
        pod = end_worker(account, server)
        dead.add(pod)
        eventually(
            lambda: all(any(one in window.died for window in told(account)) for one in dead), what="it is told of"
        )
    assert told(account)[-1].died == {key: [1, 2] for key in sorted(dead)}
    progress = taken(Progress(first_generation=1), account.windows(), 1)
    found = rollout(progress=progress)
    verdict = health(found, Triggers(), datetime.now(UTC))
    assert verdict is not None
    assert (verdict.verdict.outcome, verdict.is_proof) == (Outcome.FAIL, False)
    assert "3 of them by a process that ended unbidden, and 1 report" in verdict.verdict.sentence
    assert server.stop() == 0
    assert [window.pod for window in account.windows() if window.leaves] == [told(account)[-1].pod]
    # Another server in the same place, as a container that starts again.
    launch(account.connection)
    eventually(lambda: not {window.pod for window in told(account)[-1:]} & dead, what="the next one tells")
    assert told(account)[-1].died.keys() == dead
