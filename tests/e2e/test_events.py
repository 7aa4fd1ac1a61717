"""Every event delivered ten times, shuffled, to two hosts at once over one Azurite: its effect happens once."""

from collections.abc import Generator
from pathlib import Path

import pytest

from local.state import StateDir
from local.system import Ports, System
from tests.e2e.amplifier import COPIES, amplified
from tests.e2e.driver import SERVER_SETTINGS, SETTINGS, Driver
from tests.e2e.drops import folder_files
from tests.support.models import bundle, classifier

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3_600)]


@pytest.fixture
def system(tmp_path: Path) -> Generator[System]:
    ports, proxy = Ports.free(), Ports.free().queue
    system = System(
        StateDir(tmp_path / "state"),
        ports=ports,
        settings={"server": SERVER_SETTINGS},
    )
    through_proxy = system.storage_connection.replace(f":{ports.queue}/", f":{proxy}/")
    settings = SETTINGS | {"AzureWebJobsStorage": through_proxy, "SlipwayStorage": through_proxy}
    system.override("functions", settings)
    system.add_host("functions-2", settings=settings)
    with amplified(ports.queue, port=proxy, seed=1) as amplifier, system:
        yield system
    assert amplifier.repeated * (COPIES - 1) > 100


def kinds(driver: Driver, stream: str) -> list[str]:
    """The kinds of a stream's events, in their order."""
    return [event["kind"] for event in driver.get(f"audit/events?stream={stream}")["items"]]


def test_ten_deliveries_of_every_event_to_two_hosts_lead_to_one_version_and_one_rollout(system: System) -> None:
    driver = Driver(system)
    bundles = [bundle(classifier(c=c)) for c in (1.0, 10.0)]
    folder = folder_files(classifier(c=20.0))
    try:
        driver.put_policy()
        with driver.traffic() as outcomes:
            first = driver.drop("first.zip", bundles[0])
            assert driver.wait_for("the first version to be rolled out", lambda: driver.settled(first))["version"] == 1
            driver.wait_for("answers", lambda: outcomes["answered"])
            second = driver.drop("second.zip", bundles[1])
            assert (
                driver.wait_for("the second version to be rolled out", lambda: driver.settled(second))["version"] == 2
            )
            for name, data in folder.items():
                driver.drop(f"third/{name}", data)
            third = driver.wait_for("the third version to be rolled out", lambda: driver.settled("iris/third/"))
            assert (third["state"], third["version"]) == ("registered", 3)
        assert sorted(driver.versions()) == [1, 2, 3]
        assert sorted(driver.drops()) == [first, second, "iris/third/"]
        assert [(rollout["version"], rollout["state"]) for rollout in driver.rollouts()] == [
            (1, "promoted"),
            (2, "promoted"),
            (3, "promoted"),
        ]
        assert driver.get("endpoints/iris")["stable"] == 3
        assert sorted(driver.predictions) == [1, 2, 3]
        for version, prediction_id in driver.predictions.items():
            lineage = driver.get(f"predictions/{prediction_id}")
            assert lineage["version"]["artifact_digest"] == driver.versions()[version]["artifact_digest"]
            assert (lineage["version"]["version"], lineage["audit"]["verified"]) == (version, True)
        # What an event tells of stands before the event does: it is delivered afterwards.
        driver.wait_for("the last event", lambda: kinds(driver, "endpoint:iris").count("rollout_promoted") >= 3)
        verification = driver.get("audit/verify")
        assert verification["problems"] == []
        for stream, kind in [
            ("version:iris:1", "version_registered"),
            ("version:iris:1", "version_validated"),
            ("version:iris:2", "version_registered"),
            ("version:iris:2", "version_validated"),
            ("version:iris:3", "version_registered"),
            (f"drop:{third['drop_id'].removeprefix('drop-')}", "drop_registered"),
        ]:
            assert kinds(driver, stream).count(kind) == 1
        assert kinds(driver, "endpoint:iris").count("rollout_started") == 3
        assert kinds(driver, "endpoint:iris").count("rollout_promoted") == 3
        assert set(outcomes) == {"answered"}
    finally:
        driver.close()
