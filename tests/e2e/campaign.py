"""Rollouts on the real system under a seed's faults: what a seed draws, and how the faults are brought about.

The faults: SIGKILL of either host and of the model server, storage that stands still for seconds, storage that is
stopped and started again after seconds, or after a minute in which a host is killed too. They come amid a rollout.
Whatever befalls, every message reaches the two hosts twice or more, its copies up to `LATEST_S` seconds late.
"""

import os
import random
import signal
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, SERVER, Ports, System, is_port_free
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Strategy, Triggers
from shared.routing.plan import FULL_WEIGHT_BP
from tests.e2e.amplifier import Amplifier, amplified
from tests.e2e.driver import MODEL, SERVER_SETTINGS, SETTINGS, Driver
from tests.support.models import bundle, classifier

SECOND_HOST = "functions-2"
STRATEGIES = (Strategy.CANARY, Strategy.BLUE_GREEN, Strategy.ROLLING, Strategy.ALL_AT_ONCE)
STAGES = (Stage(weight_bp=2_000, duration_s=2), Stage(weight_bp=6_000, duration_s=2))
COPIES, LATEST_S = 3, 15.0
OUTAGE_S = 60.0
OUTAGE_EVERY = 6
"""One seed in so many has storage stopped for `OUTAGE_S`."""
STEPS = {"rollout_started", "stage_started", "rollout_watching", "rollout_promoted", "rollout_rolled_back"}
KINDS = ("host", SECOND_HOST, "server", "frozen", "restarted")
OUTAGE = "outage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a seed draws."""

    strategy: Strategy
    is_erring: bool = False
    faults: tuple[str, ...] = ()

    @property
    def policy(self) -> Policy:
        """Short stages, and gates that hang on errors alone: this machine may be slow, and models differ."""
        return Policy(
            validation=ValidationPolicy(noninferiority_margin=None, latency_ratio=None),
            rollout=RolloutPolicy(
                strategy=self.strategy,
                stages=STAGES,
                preview_s=2,
                watch_s=3,
                tick_s=1,
                min_requests=20,
                gates=Gates(p99_ms=3_600_000, slow_ms=3_600_000, prediction_psi=None),
                triggers=Triggers(p99_ms=None, memory_share=None, prediction_psi=None),
                max_unavailable=1,
            ),
        )

    @property
    def is_staged(self) -> bool:
        """Whether the candidate gets its traffic stage by stage."""
        return self.strategy in {Strategy.CANARY, Strategy.ROLLING}

    @property
    def ladder(self) -> list[int]:
        """The candidate's weights, in order."""
        return [0, *(stage.weight_bp for stage in STAGES if self.is_staged), FULL_WEIGHT_BP]

    @property
    def steps(self) -> list[str]:
        """The steps of its rollout to the end, where nothing is wrong with the candidate."""
        stages = len(STAGES) if self.is_staged else int(self.strategy is Strategy.BLUE_GREEN)
        return ["rollout_started", *["stage_started"] * stages, "rollout_watching", "rollout_promoted"]


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed: strategies by turns, two to four faults, each kind once at the most."""
    rng = random.Random(seed)
    faults = rng.sample(KINDS, rng.randint(2, 4))
    if seed % OUTAGE_EVERY == 0:
        faults[0] = OUTAGE
    return Scenario(
        strategy=STRATEGIES[(seed - 1) % len(STRATEGIES)], is_erring=rng.random() < 0.4, faults=tuple(faults)
    )


class Faults:
    """Brings faults about."""

    def __init__(self, system: System, seed: int) -> None:
        self._system = system
        self._rng = random.Random(f"faults {seed}")

    def bring(self, fault: str) -> None:
        """Let a moment pass, and bring one about, to its end."""
        self._pause(0.1, 2.0)
        match fault:
            case "host":
                self._kill(FUNCTIONS)
            case "server":
                self._kill(SERVER)
            case "frozen":
                self._freeze()
            case "restarted":
                self._system.stop_part(AZURITE)
                self._pause(1.0, 4.0)
                self._system.start_part(AZURITE)
            case "outage":
                self._stop_for_a_minute()
            case host:
                self._kill(host)

    def _kill(self, part: str) -> None:
        port = urlsplit(self._system.url(part)).port or 0
        self._system.kill_part(part)
        self._pause(0.0, 2.0)
        # What it had started ends by itself, a moment later.
        is_port_free(port, within_s=30.0)
        self._system.start_part(part)

    def _freeze(self) -> None:
        pid = self._system.pids()[AZURITE]
        os.kill(pid, signal.SIGSTOP)
        try:
            self._pause(3.0, 8.0)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _stop_for_a_minute(self) -> None:
        self._system.stop_part(AZURITE)
        self._pause(OUTAGE_S / 2, OUTAGE_S / 2)
        self._system.kill_part(FUNCTIONS)
        self._pause(OUTAGE_S / 2, OUTAGE_S / 2)
        self._system.start_part(AZURITE)
        self._system.start_part(FUNCTIONS)

    def _pause(self, least_s: float, most_s: float) -> None:
        threading.Event().wait(self._rng.uniform(least_s, most_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """The system of all seeds."""

    system: System
    driver: Driver
    amplifier: Amplifier
    numbers: Iterator[int]
    """Of the versions that are to come."""


@contextmanager
def standing(folder: Path) -> Generator[Stand]:
    """Two hosts behind the amplifier, a server, and version 1 stable."""
    ports, proxy = Ports.free(), Ports.free().queue
    system = System(StateDir(folder / "state"), ports=ports, settings={SERVER: SERVER_SETTINGS})
    through_proxy = system.storage_connection.replace(f":{ports.queue}/", f":{proxy}/")
    settings = SETTINGS | {"AzureWebJobsStorage": through_proxy, "SlipwayStorage": through_proxy}
    system.override(FUNCTIONS, settings)
    system.add_host(SECOND_HOST, settings=settings)
    with (
        amplified(ports.queue, port=proxy, seed=1, copies=COPIES, latest_s=LATEST_S) as amplifier,
        system,
        _closing_driver(system) as driver,
    ):
        first_policy = RolloutPolicy(watch_s=0)
        validation = ValidationPolicy(noninferiority_margin=None, latency_ratio=None)
        driver.put_policy(Policy(validation=validation, rollout=first_policy))
        first = driver.drop("first.zip", bundle(classifier(c=1.0)))
        driver.wait_for("the first version to serve", lambda: driver.settled(first))
        yield Stand(system=system, driver=driver, amplifier=amplifier, numbers=count(2))


@contextmanager
def _closing_driver(system: System) -> Generator[Driver]:
    driver = Driver(system)
    try:
        yield driver
    finally:
        driver.close()


def rollout_of(driver: Driver, version: int) -> dict[str, Any] | None:
    """The rollout of a version, as the API shows it."""
    return next((found for found in driver.rollouts() if found["version"] == version), None)


def has_begun(driver: Driver, version: int) -> bool:
    """Whether the candidate has come to its first step beyond loading, or to its end."""
    found = rollout_of(driver, version)
    return found is not None and found["state"] != "loading"


def steps_of(driver: Driver, version: int) -> list[dict[str, Any]]:
    """What is on record of a version's rollout, in order; nothing while no host answers."""
    found = driver.get(f"audit/events?stream=endpoint:{MODEL}")
    return [event for event in found["items"] if event["data"].get("version") == version] if found else []


def kinds_of(driver: Driver, version: int) -> list[str]:
    """The steps of a version's rollout that are on record, in order."""
    return [event["kind"] for event in steps_of(driver, version) if event["kind"] in STEPS]


def weights_of(events: list[dict[str, Any]], version: int) -> list[int]:
    """The version's weight in each plan of its rollout, in order."""
    plans = {event["data"]["generation"]: event["data"]["routes"] for event in events if "routes" in event["data"]}
    return [
        sum(route["weight_bp"] for route in plans[generation] if route["version"] == version)
        for generation in sorted(plans)
    ]
