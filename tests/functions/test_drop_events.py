"""Drops by the queue that Event Grid fills, through the real host, worker library and Azurite."""

import base64
import json
from collections.abc import Generator
from contextlib import closing
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from shared.core.messages import Queue
from tests.e2e.driver import SETTINGS
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually
from tests.unit.registration.test_dropevents import ACCOUNT, event

pytestmark = pytest.mark.azurite

# Neither the blob trigger nor the sweep finds a drop here: what is registered came by the queue.
QUIET = {"SLIPWAY_SWEEP_SCHEDULE": "0 0 0 1 1 *", "SLIPWAY_HOST_BLOB_SCAN_S": "3600"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Generator[System]:
    """Azurite and a functions host, without a model server."""
    system = System(StateDir(tmp_path_factory.mktemp("state")), settings={FUNCTIONS: SETTINGS | QUIET})
    try:
        system.state.create()
        system.start_part(AZURITE)
        system.start_part(FUNCTIONS)
        yield system
    finally:
        system.stop()


def told(system: System, queue: str, body: bytes) -> None:
    """Put an event on a queue, as base64, which the queue carries."""
    with closing(QueueServiceClient.from_connection_string(system.storage_connection)) as queues:
        queues.get_queue_client(queue).send_message(base64.b64encode(body).decode())


def dropped(system: System, blob: str) -> bytes:
    """Drop bytes that are no model, and say what Event Grid says of it."""
    with closing(BlobServiceClient.from_connection_string(system.storage_connection)) as blobs:
        blobs.get_blob_client("incoming", blob).upload_blob(b"no model at all")
    # Azurite's own addresses have the account in their path, where Azure has it in the host.
    return event(f"{ACCOUNT}/incoming/{quote(blob)}")


def items(system: System, path: str) -> list[dict[str, Any]]:
    answer = httpx.get(
        f"{system.functions_url}/api/{path}", headers={"x-functions-key": system.key}, timeout=30, verify=NO_TLS
    ).raise_for_status()
    return list(answer.json()["items"])


def test_a_drop_is_looked_at_when_its_event_comes_however_often(system: System) -> None:
    body = dropped(system, "iris/a b%.onnx")
    for _ in range(3):
        told(system, Queue.DROP_EVENTS, body)
    told(system, Queue.DROP_EVENTS, event("https://x.blob.core.windows.net/telemetry/iris/1.json"))
    drops = eventually(
        lambda: [drop for drop in items(system, "models/iris/drops") if drop["state"] == "refused"],
        what="the drop looked at",
    )
    assert drops is not None
    assert [drop["blob"] for drop in drops] == ["iris/a b%.onnx"]
    assert items(system, "dead-letters") == []


def test_an_event_that_cannot_be_read_is_kept_at_the_first_try(system: System) -> None:
    told(system, Queue.DROP_EVENTS, b'{"specversion": "0.3", "id": "old"}')
    (letter,) = eventually(lambda: items(system, "dead-letters"), what="a dead letter")
    assert (letter["queue"], letter["attempts"], letter["count"]) == ("drop-events", 1, 1)
    assert letter["reason"].startswith("it is no event of storage: ")


def test_a_drop_whose_event_failed_for_the_last_time_is_kept_as_what_registers_it(system: System) -> None:
    told(system, f"{Queue.DROP_EVENTS}-poison", dropped(system, "iris/late.onnx"))
    found = eventually(
        lambda: [letter for letter in items(system, "dead-letters") if letter["queue"] == "registrations"],
        what="the letter of the drop",
    )
    assert [json.loads(letter["body"]["content"]) for letter in found] == [{"blob": "iris/late.onnx"}]
