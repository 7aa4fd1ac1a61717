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
from shared.registry.documents import Model
from shared.rollout.documents import Target
from shared.rollout.endpoint import Endpoint
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer, Container
from shared.store.sqlite import SqliteDocuments
from shared.watching.documents import Alarm, DriftRecord, Episode, drift_report_id
from tests.e2e.driver import SETTINGS
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually
from tests.unit.observing.test_metrics import NOW, report

pytestmark = pytest.mark.azurite

PUBLIC_URL = "https://slipway.example/api"
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
        "SLIPWAY_PUBLIC_URL": PUBLIC_URL,
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
    answer = httpx.request(
        method, f"{system.functions_url}/api/{path}", headers=headers, timeout=30, verify=NO_TLS, **request
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


def call_text(system: System, path: str) -> str:
    answer = httpx.get(
        f"{system.functions_url}/api/{path}", headers={"x-functions-key": system.key}, timeout=30, verify=NO_TLS
    )
    assert answer.status_code == 200, answer.text
    return answer.text


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


def opened(system: System, link: str) -> httpx.Response:
    """What a link in a notice leads to, its public address being this host's."""
    assert link.startswith(f"{PUBLIC_URL}/")
    url = f"{system.functions_url}/api{link.removeprefix(PUBLIC_URL)}"
    return httpx.get(url, headers={"x-functions-key": system.key}, timeout=30, verify=NO_TLS)


def test_an_alert_is_told_signed_acknowledged_and_over(system: System, receiver: Receiver) -> None:
    alert = break_queue(system, Queue.VALIDATIONS)
    subject = "queue:validations"
    eventually(lambda: ("firing", subject) in receiver.alerts(), what="the alert told")
    (told,) = receiver.told.values()
    (line,) = told["data"]["alerts"]
    assert opened(system, line["link"]).json()["alert_id"] == alert["alert_id"]
    metrics = call_text(system, "metrics")
    assert 'slipway_sink_notices_dropped_total{sink="ops"} 0' in metrics
    assert 'slipway_sink_age_seconds{sink="ops"}' in metrics
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
    ended = call(system, "POST", f"silences/{silence['silence_id']}/expire", json={"by": "ann"})
    assert ended["is_over"]
    assert call(system, "GET", "silences")["items"] == []
    eventually(lambda: call(system, "GET", path)["silenced_by"] is None, what="it is silenced no more")
    eventually(lambda: ("firing", subject) in receiver.alerts(), what="the alert told")
    mend(system)
    eventually(lambda: ("resolved", subject) in receiver.alerts(), what="the end told")
    verified = call(system, "GET", "audit/verify")
    assert verified["verified"], verified["problems"]


def drift(system: System) -> str:
    """Version 3 of a model serves, and its latest report, whose id this is, found that it drifts."""
    report_id = "drift-000000003-stable-20261121T0900-0123456789ab"
    one = report(id=drift_report_id(3, "stable"), model="m", endpoint="m", version=3, hourly_until=NOW)
    assert one.latest is not None
    latest = one.latest.model_copy(
        update={"report_id": report_id, "report_blob": "m/drift/r.json", "page_blob": "m/drift/r.html"}
    )
    episode = Episode(since=NOW, seen=NOW, sentence="1 of 2 features drifted", features=("age",), report_id=report_id)
    standing = one.model_copy(update={"latest": latest, "alarms": {Alarm.DATA_DRIFT: episode}, "is_alarming": True})
    record = DriftRecord(id=report_id, model="m", endpoint="m", version=3, role="stable", report=latest)
    stable = Target(version=3, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)
    with closing(AzureBlobs.from_connection_string(system.storage_connection)) as blobs:
        blobs.create(BlobContainer.REPORTS, latest.page_blob, b"<!doctype html><title>age drifted</title>")
        blobs.create(BlobContainer.REPORTS, latest.report_blob, b'{"features": []}')
    with closing(SqliteDocuments(system.state.documents)) as documents:
        documents.create(Container.MODELS, Model(model="m").to_body())
        documents.create(Container.REPORTS, record.model_dump(mode="json"))
        documents.create(Container.REPORTS, standing.to_body())
        documents.create(Container.ENDPOINTS, Endpoint(endpoint="m", stable=stable, generation=1).to_body())
    return report_id


def test_the_link_of_an_alert_on_drift_opens_the_page_of_the_report_that_raised_it(
    system: System, receiver: Receiver
) -> None:
    report_id = drift(system)
    subject = "version:m:3:stable"
    eventually(lambda: ("firing", subject) in receiver.alerts(), what="the alert told")
    lines = [line for told in list(receiver.told.values()) for line in told["data"]["alerts"]]
    (link,) = {line["link"] for line in lines if line["subject"] == subject}
    answer = opened(system, link)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "<title>age drifted</title>" in answer.text
    (alert,) = [one for one in call(system, "GET", "alerts?state=firing")["items"] if one["subject"] == subject]
    assert alert["evidence"]["report_id"] == report_id
    assert call(system, "GET", alert["evidence"]["report"].removeprefix("/api/"))["details"] == {"features": []}
