"""Dead letters through the real host, worker library and Azurite: from a failing message to its replay."""

import base64
import json
from collections.abc import Generator
from contextlib import closing
from typing import Any

import httpx
import pytest
from azure.storage.blob import BlobServiceClient
from azure.storage.queue import QueueServiceClient

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from shared.core.messages import Queue
from shared.deadletters.documents import UNRECORDED
from tests.e2e.driver import SETTINGS
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

pytestmark = pytest.mark.azurite

# Two tries at once, where the app waits between five, and none for a lease that ended while the machine was busy; and
# no event of a drop, which the tests send themselves.
HASTE = {
    "AzureFunctionsJobHost__extensions__queues__maxDequeueCount": "2",
    "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:00",
    "SLIPWAY_HOST_MESSAGE_LEASE_S": "600",
    "SLIPWAY_SWEEP_SCHEDULE": "0 0 0 1 1 *",
    "SLIPWAY_HOST_BLOB_SCAN_S": "3600",
}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Generator[System]:
    """Azurite and a functions host, without a model server."""
    system = System(StateDir(tmp_path_factory.mktemp("state")), settings={FUNCTIONS: SETTINGS | HASTE})
    try:
        system.state.create()
        system.start_part(AZURITE)
        # The host looks for drops once, when it starts: that look is over when it has found this one.
        dropped(system, "first/look.onnx")
        system.start_part(FUNCTIONS)
        eventually(lambda: call(system, "GET", "models/first/drops").json()["items"], what="the first look at drops")
        yield system
    finally:
        system.stop()


def call(system: System, method: str, path: str, **request: Any) -> httpx.Response:
    headers = {"x-functions-key": system.key}
    return httpx.request(
        method, f"{system.functions_url}/api/{path}", headers=headers, timeout=30, verify=NO_TLS, **request
    )


def send(system: System, queue: str, body: bytes) -> None:
    with closing(QueueServiceClient.from_connection_string(system.storage_connection)) as queues:
        queues.get_queue_client(queue).send_message(base64.b64encode(body).decode())


def dropped(system: System, blob: str) -> None:
    with closing(BlobServiceClient.from_connection_string(system.storage_connection)) as blobs:
        blobs.get_blob_client("incoming", blob).upload_blob(b"no model at all")


def letters(system: System, state: str = "kept") -> list[dict[str, Any]]:
    found = call(system, "GET", f"dead-letters?state={state}")
    assert found.status_code == 200, found.text
    return list(found.json()["items"])


def kept(system: System, content: str, *, count: int = 1) -> dict[str, Any]:
    """The letter with this in its body, once it was kept that often."""

    def find() -> dict[str, Any] | None:
        for letter in letters(system):
            if content in letter["body"]["content"] and letter["count"] >= count:
                return letter
        return None

    found = eventually(find, what=f"a dead letter with {content!r}")
    assert found is not None
    return found


def test_a_message_that_fails_each_time_is_kept_explained_and_replayed(system: System) -> None:
    # The name has a character that no document's key may have: it reads, and fails when it is looked up.
    body = json.dumps({"model": "poison\u0001", "version": 1})
    send(system, Queue.VALIDATIONS, body.encode())
    letter = kept(system, "poison")
    assert (letter["queue"], letter["attempts"], letter["body"]) == (
        "validations",
        2,
        {"encoding": "text", "content": body},
    )
    assert "no control characters" in letter["reason"]
    eventually(lambda: firing(system) == ["queue:validations"], what="the alert, which comes after the letter")
    replayed = call(system, "POST", f"dead-letters/{letter['letter_id']}/replay", json={"reason": "look again"})
    assert (replayed.status_code, replayed.json()["state"]) == (200, "replayed")
    again = kept(system, "poison", count=2)
    assert (again["letter_id"], again["attempts"]) == (letter["letter_id"], 4)
    path = f"dead-letters/{letter['letter_id']}"
    assert call(system, "POST", f"{path}/discard", json={"reason": "a test's"}).json()["state"] == "discarded"
    refused = call(system, "POST", f"{path}/replay")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")
    kinds = [event["kind"] for event in call(system, "GET", f"audit/events?stream={stream(letter)}").json()["items"]]
    assert kinds == ["letter_kept", "letter_replayed", "letter_kept", "letter_discarded"]


def firing(system: System) -> list[str]:
    """What alerts fire about."""
    return [alert["subject"] for alert in call(system, "GET", "alerts?state=firing").json()["items"]]


def stream(letter: dict[str, Any]) -> str:
    return f"dead_letter:-:{letter['letter_id'].removeprefix('letter-')}"


@pytest.mark.parametrize(
    ("body", "held"),
    [
        (b"\xff\xfe\xfd", {"encoding": "base64", "content": base64.b64encode(b"\xff\xfe\xfd").decode()}),
        (b"just words", {"encoding": "text", "content": "just words"}),
        (b'{"blob": 5}', {"encoding": "text", "content": '{"blob": 5}'}),
    ],
    ids=["bytes", "text", "another form"],
)
def test_a_message_that_cannot_be_read_is_kept_at_the_first_try(
    system: System, body: bytes, held: dict[str, str]
) -> None:
    send(system, Queue.REGISTRATIONS, body)
    letter = kept(system, held["content"])
    assert (letter["body"], letter["attempts"], letter["count"]) == (held, 1, 1)
    assert letter["reason"].startswith("it is no RegisterDrop, which registrations carries: ")


def test_a_drop_whose_events_failed_is_looked_at_by_its_replay(system: System) -> None:
    blob = "iris/lost.onnx"
    dropped(system, blob)
    event = {"Type": "BlobTrigger", "ContainerName": "incoming", "BlobName": blob, "ETag": '"x"'}
    send(system, "webjobs-blobtrigger-poison", json.dumps(event).encode())
    letter = kept(system, blob)
    assert (letter["queue"], letter["reason"]) == ("registrations", UNRECORDED)
    assert call(system, "GET", "models/iris/drops").json()["items"] == []
    call(system, "POST", f"dead-letters/{letter['letter_id']}/replay")
    eventually(lambda: letters(system, "settled"), what="the letter settled by success")
    drops = call(system, "GET", "models/iris/drops").json()["items"]
    assert [(drop["blob"], drop["state"]) for drop in drops] == [(blob, "refused")]


def test_what_does_not_exist_is_named(system: System) -> None:
    missing = call(system, "GET", "dead-letters/letter-nothing")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = call(system, "GET", "dead-letters?state=dead")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "invalid_input")
