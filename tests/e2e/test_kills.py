"""The functions host is killed (SIGKILL) at random points of the job, again and again: it ends as if it had not been.

The kills go on while models are dropped one after another; each drop is made whether or not a host is there to see it.
"""

import random
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from local.state import StateDir
from local.system import FUNCTIONS, System, is_port_free
from tests.e2e.driver import MODEL, SERVER_SETTINGS, SETTINGS, Driver
from tests.e2e.drops import folder_files
from tests.support.models import bundle, classifier

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3_600)]


@pytest.fixture
def system(tmp_path: Path) -> Generator[System]:
    settings = {FUNCTIONS: SETTINGS, "server": SERVER_SETTINGS}
    with System(StateDir(tmp_path / "state"), settings=settings) as system:
        yield system


class Killer:
    """Kills the host and starts it again, after random times of life."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._rng = random.Random(seed)
        self.kills = 0

    def once(self) -> None:
        """Let the host live for a moment, kill it, start it again."""
        threading.Event().wait(self._rng.uniform(0.2, 4.0))
        self._system.kill_part(FUNCTIONS)
        # What it had just started has its port too, until it is gone or another program.
        is_port_free(self._system.ports.functions, within_s=60.0)
        self._system.start_part(FUNCTIONS)
        self.kills += 1


@contextmanager
def closing_driver(system: System) -> Generator[Driver]:
    driver = Driver(system)
    try:
        yield driver
    finally:
        driver.close()


@pytest.mark.parametrize("kills", [15, pytest.param(30, marks=pytest.mark.long)])
def test_kills_of_the_host_lose_no_drop_and_change_no_outcome(system: System, kills: int) -> None:
    killer = Killer(system, seed=2)
    drops: list[tuple[str, dict[str, bytes], str]] = [
        ("good-1.zip", {"": bundle(classifier(c=1.0))}, "validated"),
        ("garbage.onnx", {"": b"this is no model"}, "refused"),
        ("folder-2/", folder_files(classifier(c=2.0)), "validated"),
        ("worse.zip", {"": bundle(classifier(c=1e-6))}, "rejected"),
        ("good-3.zip", {"": bundle(classifier(c=3.0))}, "validated"),
    ]
    more = iter(range(4, 1_000))
    expected: dict[str, str] = {}
    with closing_driver(system) as driver, driver.traffic() as outcomes:
        driver.put_policy()
        while drops or killer.kills < kills:
            if not drops:
                number = next(more)
                drops.append((f"good-{number}.zip", {"": bundle(classifier(c=float(number)))}, "validated"))
            name, files, outcome = drops.pop(0)
            blob = f"{MODEL}/{name}"
            for file, data in files.items():
                driver.drop(name + file, data)
            expected[blob] = outcome
            while killer.kills < kills and not driver.settled(blob):
                killer.once()
            driver.wait_for(f"{blob} to be settled", partial(driver.settled, blob))
        assert killer.kills == kills
        found, versions = driver.drops(), driver.versions()
        assert {
            blob: drop["state"] if drop["state"] == "refused" else versions[drop["version"]]["state"]
            for blob, drop in found.items()
        } == expected
        # One version for each well-formed drop, in the order of the drops, none twice and none left out.
        wellformed = [blob for blob, outcome in expected.items() if outcome != "refused"]
        assert [found[blob]["version"] for blob in wellformed] == list(range(1, len(wellformed) + 1))
        good = [found[blob]["version"] for blob, outcome in expected.items() if outcome == "validated"]
        assert [(r["version"], r["state"]) for r in driver.rollouts()] == [(version, "promoted") for version in good]
        assert driver.get("endpoints/iris")["stable"] == good[-1]
        verification = driver.get("audit/verify")
        assert verification["problems"] == []
        assert verification["verified"] is True
    assert outcomes["answered"] > 100
    assert set(outcomes) == {"answered"}
