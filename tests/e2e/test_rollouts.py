"""Rollouts on the real system, with two hosts, while a seed's faults befall it: each ends where it should.

The faults: SIGKILL of either host and of the model server, storage that stands still for seconds, storage that is
stopped and started again. They come amid a rollout. The seeds share one system, and so each goes on from the last.
"""

import os
import random
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from typing import Any

import pytest

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, SERVER, System
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Strategy, Triggers
from shared.routing.plan import FULL_WEIGHT_BP
from tests.e2e.driver import MODEL, SERVER_SETTINGS, SETTINGS, Driver
from tests.e2e.erring import erring
from tests.support.models import bundle, classifier

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SECOND_HOST = "functions-2"
STRATEGIES = (Strategy.CANARY, Strategy.BLUE_GREEN, Strategy.ROLLING, Strategy.ALL_AT_ONCE)
STAGES = (Stage(weight_bp=2_000, duration_s=2), Stage(weight_bp=6_000, duration_s=2))
STEPS = ("stage_started", "rollout_watching", "rollout_promoted")
SHORT, LONG = (1,), range(2, 26)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a seed draws."""

    seed: int
    strategy: Strategy
    is_erring: bool
    faults: tuple[str, ...]

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
    def ladder(self) -> list[int]:
        """The candidate's weights, in order."""
        is_staged = self.strategy in {Strategy.CANARY, Strategy.ROLLING}
        return [0, *(stage.weight_bp for stage in STAGES if is_staged), FULL_WEIGHT_BP]


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed: strategies by turns, two to four faults, each kind once at the most."""
    rng = random.Random(seed)
    faults = rng.sample(["host", SECOND_HOST, "server", "frozen", "restarted"], rng.randint(2, 4))
    return Scenario(
        seed=seed,
        strategy=STRATEGIES[(seed - 1) % len(STRATEGIES)],
        is_erring=rng.random() < 0.4,
        faults=tuple(faults),
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
            case host:
                self._kill(host)

    def _kill(self, part: str) -> None:
        self._system.kill_part(part)
        self._pause(0.0, 2.0)
        self._system.start_part(part)

    def _freeze(self) -> None:
        pid = self._system.pids()[AZURITE]
        os.kill(pid, signal.SIGSTOP)
        try:
            self._pause(3.0, 8.0)
        finally:
            os.kill(pid, signal.SIGCONT)

    def _pause(self, least_s: float, most_s: float) -> None:
        threading.Event().wait(self._rng.uniform(least_s, most_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """The system of all seeds."""

    system: System
    driver: Driver
    numbers: Iterator[int]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stand]:
    """Two hosts, a server, and version 1 stable."""
    settings = {FUNCTIONS: SETTINGS, "server": SERVER_SETTINGS}
    system = System(StateDir(tmp_path_factory.mktemp("rollouts") / "state"), settings=settings)
    system.add_host(SECOND_HOST, settings=SETTINGS)
    with system, closing_driver(system) as driver:
        driver.put_policy(Policy(validation=scenario_of(0).policy.validation, rollout=RolloutPolicy(watch_s=0)))
        first = driver.drop("first.zip", bundle(classifier(c=1.0)))
        driver.wait_for("the first version to serve", lambda: driver.settled(first))
        yield Stand(system=system, driver=driver, numbers=count(2))


@contextmanager
def closing_driver(system: System) -> Generator[Driver]:
    driver = Driver(system)
    try:
        yield driver
    finally:
        driver.close()


def rollout_of(driver: Driver, version: int) -> dict[str, Any] | None:
    return next((found for found in driver.rollouts() if found["version"] == version), None)


def begun(driver: Driver, version: int) -> bool:
    """Whether the candidate has come to its first step beyond loading, or to its end."""
    found = rollout_of(driver, version)
    return found is not None and found["state"] != "loading"


def steps_of(driver: Driver, version: int) -> list[dict[str, Any]]:
    """What is on record of a version's rollout, in order."""
    events, continuation = [], ""
    while True:
        page = driver.get(f"audit/events?stream=endpoint:{MODEL}&limit=100{continuation}")
        events += page["items"]
        if not page.get("next"):
            return [event for event in events if event["data"].get("version") == version]
        continuation = f"&continuation={page['next']}"


def weights_of(events: list[dict[str, Any]], version: int) -> list[int]:
    """The version's weight in each plan of its rollout, in order."""
    plans = {event["data"]["generation"]: event["data"]["routes"] for event in events if "routes" in event["data"]}
    return [
        sum(route["weight_bp"] for route in plans[generation] if route["version"] == version)
        for generation in sorted(plans)
    ]


def check(stand: Stand, scenario: Scenario, bring: Callable[[str], None]) -> None:
    driver, version = stand.driver, next(stand.numbers)
    before = driver.get(f"endpoints/{MODEL}")["stable"]
    driver.put_policy(scenario.policy)
    model = classifier(c=1.0 + version)
    with driver.traffic() as outcomes:
        driver.large_share = 0.4 if scenario.is_erring else 0.0
        driver.wait_for("answers", lambda: outcomes["answered"])
        blob = driver.drop(f"{version}.zip", bundle(erring(model) if scenario.is_erring else model))
        driver.wait_for(f"the rollout of version {version}", partial(begun, driver, version))
        for fault in scenario.faults:
            bring(fault)
        driver.wait_for(f"version {version} to be settled", partial(driver.settled, blob))
        answered = outcomes["answered"]
        driver.wait_for("answers at the end", lambda: outcomes["answered"] > answered + 10)
    rollout = rollout_of(driver, version)
    assert rollout is not None
    assert rollout["state"] == ("rolled_back" if scenario.is_erring else "promoted"), rollout["reason"]
    assert driver.get(f"endpoints/{MODEL}")["stable"] == (before if scenario.is_erring else version)
    ended = f"rollout_{rollout['state']}"
    driver.wait_for(
        "the last event", lambda: ended in [event["kind"] for event in steps_of(driver, version)], deadline_s=60
    )
    events = steps_of(driver, version)
    weights = weights_of(events, version)
    for was, now in pairwise(weights):
        assert now in {0, was} or scenario.ladder.index(now) == scenario.ladder.index(was) + 1, weights
    if not scenario.is_erring:
        assert [event["kind"] for event in events if event["kind"] in STEPS].count("rollout_promoted") == 1
        assert weights[-1] == FULL_WEIGHT_BP
    verification = driver.get("audit/verify")
    assert verification["problems"] == []
    if SERVER not in scenario.faults:
        assert set(outcomes) == {"answered"}


@pytest.mark.parametrize("seed", SHORT)
def test_a_rollout_ends_where_it_should_while_hosts_servers_and_storage_fail(seed: int, stand: Stand) -> None:
    scenario = scenario_of(seed)
    check(stand, scenario, Faults(stand.system, seed).bring)


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG)
def test_rollouts_end_where_they_should_while_hosts_servers_and_storage_fail(seed: int, stand: Stand) -> None:
    scenario = scenario_of(seed)
    check(stand, scenario, Faults(stand.system, seed).bring)
