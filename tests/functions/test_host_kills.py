"""Hosts killed (SIGKILL) at random moments, two at once over one storage: nothing that arrived is lost."""

import contextlib
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from local.azurite import Azurite
from local.host.blobs import trigger_queue
from local.system import Ports
from tests.functions.host_case import HOST_ID, SampleCase, sample_case
from tests.support.waiting import eventually

_SETTINGS = {
    "SLIPWAY_HOST_MESSAGE_LEASE_S": "2",
    "SLIPWAY_HOST_BLOB_RECEIPT_S": "1",
    "SLIPWAY_HOST_TIMER_LEASE_S": "1",
    "TICK_SCHEDULE": "* * * * * *",
    # A kill counts as a delivery: with few allowed, a message that was often unlucky would be poison.
    "AzureFunctionsJobHost__extensions__queues__maxDequeueCount": "100",
    "AzureFunctionsJobHost__extensions__blobs__poisonBlobThreshold": "100",
}


@pytest.fixture
def case(storage: str, tmp_path: Path) -> Iterator[SampleCase]:
    yield from sample_case(storage, tmp_path)


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])])
def test_what_arrives_while_hosts_are_killed_is_worked_off(case: SampleCase, kills: int) -> None:
    seeded = random.Random(kills)
    case.start_host("steady", **_SETTINGS)
    messages, blobs = set[str](), set[str]()
    for turn in range(kills):
        host = case.start_host(f"victim-{turn}", **_SETTINGS)
        for number in range(4):
            messages.add(f'{{"sleep_s": 0.2, "number": "{turn}-{number}"}}')
            blobs.add(f"{turn}/{number}")
            case.send(f'{{"sleep_s": 0.2, "number": "{turn}-{number}"}}')
            case.upload("incoming", f"{turn}/{number}", "x")
            time.sleep(seeded.uniform(0.0, 0.1))
        host.child.kill()
    eventually(lambda: {note["text"] for note in case.seen("work")} >= messages, what="every message worked off")
    eventually(lambda: {note["name"] for note in case.seen("arrived")} >= blobs, what="every blob told of")
    for queue in ("work", trigger_queue(HOST_ID)):
        eventually(partial(case.is_empty, queue), what=f"{queue} empty")
    assert {note["text"] for note in case.seen("work")} == messages
    assert {note["name"] for note in case.seen("arrived")} == blobs
    assert case.messages("work-poison") == []
    before = len(case.seen("tick"))
    case.wait_for("tick", before + 1)


def test_a_storage_outage_is_outlived(tmp_path: Path) -> None:
    ports = Ports.free()
    azurite = Azurite(
        log_path=tmp_path / "azurite.log",
        location=tmp_path / "state",
        blob_port=ports.blob,
        queue_port=ports.queue,
        table_port=ports.table,
    )
    with contextlib.ExitStack() as ends:
        with azurite:
            case = ends.enter_context(contextlib.closing(SampleCase(azurite.connection_string, tmp_path)))
            host = case.start_host(**_SETTINGS)
            case.send("before")
            case.upload("incoming", "before", "x")
            case.wait_for("work")
            case.wait_for("arrived")
        eventually(lambda: "cannot be read, trying on" in host.log(), what="the host to notice")
        with azurite:
            ticks = len(case.seen("tick"))
            case.send("after")
            case.upload("incoming", "after", "x")
            # What the outage kept from being deleted comes once more.
            eventually(lambda: "after" in {note["text"] for note in case.seen("work")}, what="the message after it")
            eventually(lambda: "after" in {note["name"] for note in case.seen("arrived")}, what="the blob after it")
            case.wait_for("tick", ticks + 1)
            assert host.child.stop(20.0) == 0
