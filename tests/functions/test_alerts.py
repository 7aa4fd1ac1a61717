"""Alerts through the real host, worker library and Azurite: told by signed webhook, acknowledged, silenced, over."""

import base64
import json
import threading
from collections.abc import Generator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from azure.storage.queue import QueueServiceClient
from standardwebhooks import Webhook

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from shared.core.messages import Queue
from tests.e2e.driver import SETTINGS
from tests.support.waiting import eventually

pytestmark = pytest.mark.azurite

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


class Receiver(ThreadingHTTPServer):
    """Takes signed notices, each once by its id."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        super().__init__(("127.0.0.1", 0), _Taking)

    def alerts(self) -> list[tuple[str, str]]:
        """What was told of which alert, in order."""
        return [(one["news"], one["subject"]) for told in self.told.values() for one in told["data"]["alerts"]]


class _Taking(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        found = Webhook(SECRET).verify(body, {name.lower(): value for name, value in self.headers.items()})
        self.server.told[self.headers["webhook-id"]] = found
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def receiver() -> Generator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Generator[System]:
    """Azurite and a functions host, without a model server."""
    url = f"http://127.0.0.1:{receiver.server_port}/alerts"
    settings = SETTINGS | {
        "SLIPWAY_SWEEP_SCHEDULE": "* * * * * *",
        "SLIPWAY_HOST_BLOB_SCAN_S": "3600",
        "SLIPWAY_ALERT_SINKS": json.dumps([{"name": "ops", "kind": "webhook", "url": url, "secret": SECRET}]),
        "SLIPWAY_ALERT_GROUP_WAIT_S": "0",
        "SLIPWAY_PUBLIC_URL": "https://slipway.example/api",
    }
    system = System(StateDir(tmp_path_factory.mktemp("state")), settings={FUNCTIONS: settings})
    try:
        system.state.create()
        system.start_part(AZURITE)
        system.start_part(FUNCTIONS)
        yield system
    finally:
        system.stop()


def call(system: System, method: str, path: str, **request: Any) -> Any:
    headers = {"x-functions-key": system.key}
    answer = httpx.request(method, f"{system.functions_url}/api/{path}", headers=headers, timeout=30, **request)
    assert answer.status_code == 200, answer.text
    return answer.json()


def break_queue(system: System, queue: Queue) -> dict[str, Any]:
    """Send what nobody can read, and wait for its alert."""
    with closing(QueueServiceClient.from_connection_string(system.storage_connection)) as queues:
        queues.get_queue_client(queue).send_message(base64.b64encode(b"just words").decode())

    def find() -> dict[str, Any] | None:
        found = call(system, "GET", "alerts?state=firing")["items"]
        return next((one for one in found if one["subject"] == f"queue:{queue}"), None)

    found = eventually(find, what=f"an alert on {queue}")
    assert found is not None
    return found


def mend(system: System) -> None:
    """Discard what nobody can read."""
    for letter in call(system, "GET", "dead-letters")["items"]:
        call(system, "POST", f"dead-letters/{letter['letter_id']}/discard", json={"reason": "a test's"})


def test_an_alert_is_told_signed_acknowledged_and_over(system: System, receiver: Receiver) -> None:
    alert = break_queue(system, Queue.VALIDATIONS)
    subject = "queue:validations"
    eventually(lambda: ("firing", subject) in receiver.alerts(), what="the alert told")
    (told,) = receiver.told.values()
    (line,) = told["data"]["alerts"]
    assert line["link"] == f"https://slipway.example/api/alerts/{alert['alert_id']}"
    seen = call(system, "POST", f"alerts/{alert['alert_id']}/acknowledge", json={"by": "ann", "reason": "looking"})
    assert seen["acknowledged"]["by"] == "ann"
    eventually(lambda: ("acknowledged", subject) in receiver.alerts(), what="the acknowledgement told")
    mend(system)
    eventually(lambda: ("resolved", subject) in receiver.alerts(), what="the end told")
    assert receiver.alerts() == [("firing", subject), ("acknowledged", subject), ("resolved", subject)]
    assert call(system, "GET", f"alerts/{alert['alert_id']}")["state"] == "resolved"


def test_a_silenced_alert_is_told_when_its_silence_ends(system: System, receiver: Receiver) -> None:
    subject = "queue:alias-moves"
    body = {"subject": "queue:alias*", "by": "ann", "reason": "at work", "for_s": 3_600, "command_id": "once"}
    silence = call(system, "POST", "silences", json=body)
    assert call(system, "POST", "silences", json=body) == silence
    alert = break_queue(system, Queue.ALIAS_MOVES)
    path = f"alerts/{alert['alert_id']}"
    eventually(lambda: call(system, "GET", path)["silenced_by"] == silence["silence_id"], what="it is silenced")
    assert subject not in {about for _, about in receiver.alerts()}
    ended = call(system, "POST", f"silences/{silence['silence_id']}/end", json={"by": "ann"})
    assert ended["is_over"]
    assert call(system, "GET", "silences")["items"] == []
    eventually(lambda: call(system, "GET", path)["silenced_by"] is None, what="it is silenced no more")
    eventually(lambda: ("firing", subject) in receiver.alerts(), what="the alert told")
    mend(system)
    eventually(lambda: ("resolved", subject) in receiver.alerts(), what="the end told")
    verified = call(system, "GET", "audit/verify")
    assert verified["verified"], verified["problems"]
