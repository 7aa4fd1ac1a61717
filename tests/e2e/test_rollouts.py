"""Rollouts on the real system, with two hosts, while a seed's faults befall it: each ends where it would have.

The seeds share one system, and so each goes on from the last. What a rollout without faults does is a scenario's
`steps` and `ladder`, to which rollouts without faults are held too.
"""

from collections.abc import Callable, Generator
from functools import partial
from itertools import pairwise
from typing import Any

import httpx
import pytest

from local.system import AZURITE, FUNCTIONS, SERVER
from shared.registry.rollout_policy import RolloutPolicy, Stage
from tests.e2e.campaign import (
    SECOND_HOST,
    STRATEGIES,
    Faults,
    Scenario,
    Stand,
    has_begun,
    kinds_of,
    rollout_of,
    scenario_of,
    standing,
    steps_of,
    weights_of,
)
from tests.e2e.driver import MODEL, Driver
from tests.e2e.erring import erring
from tests.support.models import bundle, classifier
from tests.support.plain import NO_TLS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3_600)]

SHORT, LONG = (1,), range(2, 101)
LARGE_SHARE = 0.4
"""Of the requests to a candidate that fails."""


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stand]:
    with standing(tmp_path_factory.mktemp("rollouts")) as stand:
        yield stand


def check(stand: Stand, scenario: Scenario, bring: Callable[[str], None]) -> None:
    driver, version = stand.driver, next(stand.numbers)
    before, repeated = driver.get(f"endpoints/{MODEL}")["stable"], stand.amplifier.repeated
    driver.put_policy(scenario.policy)
    model = classifier(c=1.0 + version)
    with driver.traffic() as outcomes:
        driver.large_share = LARGE_SHARE if scenario.is_erring else 0.0
        driver.wait_for("answers", lambda: outcomes["answered"])
        blob = driver.drop(f"{version}.zip", bundle(erring(model) if scenario.is_erring else model))
        driver.wait_for(f"the rollout of version {version}", partial(has_begun, driver, version))
        for fault in scenario.faults:
            bring(fault)
        driver.wait_for(f"version {version} to be settled", partial(driver.settled, blob))
        answered = outcomes["answered"]
        driver.wait_for("answers at the end", lambda: outcomes["answered"] > answered + 10)
    rollout = rollout_of(driver, version)
    assert rollout is not None
    assert rollout["state"] == ("rolled_back" if scenario.is_erring else "promoted"), rollout["reason"]
    assert driver.get(f"endpoints/{MODEL}")["stable"] == (before if scenario.is_erring else version)
    check_steps(driver, scenario, version)
    verification = driver.get("audit/verify")
    assert verification["problems"] == []
    assert stand.amplifier.repeated > repeated
    if SERVER not in scenario.faults:
        assert set(outcomes) == {"answered"}


def check_steps(driver: Driver, scenario: Scenario, version: int) -> None:
    """A candidate that is fine takes each step once; one that fails takes the first of them, and goes back once."""

    def has_ended() -> bool:
        steps = kinds_of(driver, version)
        if not scenario.is_erring:
            return steps == scenario.steps
        return steps[-1:] == ["rollout_rolled_back"] and steps[:-1] == scenario.steps[: len(steps) - 1]

    driver.wait_for(f"the steps {scenario.steps}", has_ended)
    weights = weights_of(steps_of(driver, version), version)
    for was, now in pairwise(weights):
        assert now in {0, was} or scenario.ladder.index(now) == scenario.ladder.index(was) + 1, weights
    if not scenario.is_erring:
        assert sorted(set(weights)) == scenario.ladder


@pytest.mark.parametrize("seed", SHORT)
def test_a_rollout_ends_where_it_would_have_while_hosts_servers_and_storage_fail(seed: int, stand: Stand) -> None:
    check(stand, scenario_of(seed), Faults(stand.system, seed).bring)


def test_a_candidate_that_fails_has_no_traffic_though_control_plane_and_storage_are_down(stand: Stand) -> None:
    """Its pod's guard takes it out by itself; the hosts roll it back once they are there again."""
    driver, system, version = stand.driver, stand.system, next(stand.numbers)
    policy = scenario_of(1).policy
    stages = (Stage(weight_bp=5_000, duration_s=3_000),)
    fields = policy.rollout.model_dump() | {"stages": stages, "max_stage_s": 3_000, "strategy": "canary"}
    driver.put_policy(policy.model_copy(update={"rollout": RolloutPolicy.model_validate(fields)}))
    driver.large_share = 0.0
    with driver.traffic() as outcomes:
        driver.drop(f"{version}.zip", bundle(erring(classifier(c=1.0 + version))))
        driver.wait_for("its stage", lambda: state_of(driver, version) == "progressing")
        driver.wait_for("its traffic", lambda: counted(stand, version)["requests"] > 20)
        for host in (FUNCTIONS, SECOND_HOST):
            system.kill_part(host)
        system.stop_part(AZURITE)
        try:
            assert served(stand)["tripped"] == {}
            driver.large_share = LARGE_SHARE
            driver.wait_for("the guard", lambda: served(stand)["tripped"].get(str(version)))
            requests, errors = counted(stand, version)["requests"], counted(stand, version)["errors"]
            answered = outcomes["answered"]
            driver.wait_for("more answers", lambda: outcomes["answered"] > answered + 200)
            # What was under way when the guard tripped is counted when it ends.
            assert counted(stand, version)["requests"] <= requests + 5
            assert 0 < errors <= 60
        finally:
            for part in (AZURITE, FUNCTIONS, SECOND_HOST):
                system.start_part(part)
        driver.wait_for("the rollback", lambda: state_of(driver, version) == "rolled_back")
    found = driver.wait_for("its confirmation", partial(confirmed, driver, version))
    assert (found["trigger"], found["by"]) == ("guard", "slipway")
    assert driver.get("audit/verify")["problems"] == []
    assert set(outcomes) == {"answered"}


def confirmed(driver: Driver, version: int) -> dict[str, Any] | None:
    """The rollback of a version, once the pods have applied it."""
    found = driver.get(f"endpoints/{MODEL}/rollbacks")
    latest: dict[str, Any] = found["items"][-1] if found else {}
    return latest if latest.get("from_version") == version and latest["zero_traffic_at"] else None


def state_of(driver: Driver, version: int) -> str:
    found = rollout_of(driver, version)
    return found["state"] if found else ""


def served(stand: Stand) -> dict[str, Any]:
    """What the server has served, by version, and which versions its guard took out."""
    found: dict[str, Any] = httpx.get(f"{stand.system.server_url}/ab-test/stats", timeout=30, verify=NO_TLS).json()[
        "endpoints"
    ][MODEL]
    return found


def counted(stand: Stand, version: int) -> dict[str, Any]:
    counts: dict[str, Any] = served(stand)["versions"].get(str(version), {"requests": 0, "errors": 0})
    return counts


@pytest.mark.long
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_faults_rollouts_take_those_very_steps(strategy: Any, stand: Stand) -> None:
    check(stand, Scenario(strategy=strategy), lambda _: None)


@pytest.mark.long
@pytest.mark.parametrize("seed", LONG)
def test_rollouts_end_where_they_would_have_while_hosts_servers_and_storage_fail(seed: int, stand: Stand) -> None:
    check(stand, scenario_of(seed), Faults(stand.system, seed).bring)
