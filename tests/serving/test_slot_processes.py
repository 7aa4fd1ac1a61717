"""Server processes of a slot, over Azurite: several workers, idle, with a candidate, which is promoted under load."""

import os
import signal
import threading
from pathlib import Path

import httpx

from shared.core.slots import Slot
from shared.routing.plan import Role
from tests.serving import models
from tests.serving.processes import Account, Launch, Server
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

ONE, TWO = models.scaler(1.0), models.scaler(2.0)


def _reason(server: Server) -> str:
    """Why the server is not ready, asked on a connection of its own: each may meet another worker."""
    with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
        assert client.get("/health").status_code == 200
        reason: str = client.get("/ready").json().get("reason", "")
        return reason


def _generation(server: Server) -> int:
    """Of the plan that answers, asked as above."""
    with httpx.Client(base_url=server.url, timeout=20, verify=NO_TLS) as client:
        generation: int = client.post("/predict", json={"features": [[3, 1]]}).json()["generation"]
        return generation


class _Callers:
    """Ask without a pause, until told to stop."""

    def __init__(self, server: Server, count: int = 2) -> None:
        self.answered: set[tuple[int, str]] = set()
        self.failures: list[str] = []
        self._url = server.url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx.Client(base_url=self._url, timeout=20, verify=NO_TLS) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", json={"features": [[3, 1]]})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code != 200 or answer.json()["predictions"] != [[6, 2]]:
                    self.failures.append(answer.text)
                    return
                self.answered.add((answer.json()["generation"], answer.json()["role"]))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_workers_of_an_idle_slot_live_take_the_next_candidate_and_see_it_promoted(
    account: Account, launch: Launch, tmp_path: Path
) -> None:
    account.put(ONE, TWO)
    account.publish(models.plan(1, models.route(1, ONE)))
    server = launch(
        account.connection,
        SLIPWAY_WORKERS="2",
        SLIPWAY_POD="blue",
        SLIPWAY_ENDPOINTS="churn",
        SLIPWAY_SLOT="blue",
        SLIPWAY_CACHE_DIR=str(tmp_path / "blue"),
    )
    eventually(lambda: "generation 1" in _reason(server), what="the slot is found idle")
    killed, *_ = before = server.workers()
    os.kill(killed, signal.SIGKILL)
    # It has nothing to wait for: were it to wait to be ready, it would not listen for a minute.
    eventually(lambda: set(server.workers()) - set(before), what="another worker is there", deadline_s=30)
    eventually(lambda: all("generation 1" in _reason(server) for _ in range(8)), what="it answers", deadline_s=30)

    routes = {
        2: (
            models.route(1, ONE, weight=9_000),
            models.route(2, TWO, role=Role.CANDIDATE, weight=1_000, slot=Slot.BLUE),
        ),
        3: (models.route(2, TWO, slot=Slot.BLUE),),
        4: (models.route(1, ONE),),
    }
    account.publish(models.plan(2, *routes[2]))
    eventually(server.ready, what="both workers have the candidate")
    callers = _Callers(server)
    try:
        eventually(lambda: (2, "candidate") in callers.answered or callers.failures, what="the candidate answers")
        account.publish(models.plan(3, *routes[3]))
        eventually(lambda: (3, "stable") in callers.answered or callers.failures, what="it answers as stable")
        eventually(lambda: all(_generation(server) == 3 for _ in range(8)), what="both workers have heard")
        # Taken back, it is served on: the Gateway may not have heard.
        account.publish(models.plan(4, *routes[4]))
        eventually(lambda: "4" in (tmp_path / "server.log").read_text().rsplit("generation ", 1)[1], what="it heard")
    finally:
        callers.stop()
    assert callers.failures == []
    assert server.predict([[3, 1]]).json()["generation"] == 3
    assert server.ready()
    assert server.stop() == 0
    windows = account.windows()
    assert {window.slot for window in windows} == {Slot.BLUE}
    assert {version for window in windows for version in window.versions} == {2}
    assert {window.generation for window in windows} == {1, 2, 3}
