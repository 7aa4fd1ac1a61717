"""Approval by signed link, an error budget and lifecycle events through the real host, over Azurite and SQLite."""

import itertools
import json
import threading
from collections.abc import Generator
from contextlib import closing
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from local.state import StateDir
from local.system import AZURITE, FUNCTIONS, System
from shared.routing.plan import RoutePlan, plan_blob_name
from shared.telemetry.window import VersionCounts, Window, window_blob_name
from tests.e2e.driver import SETTINGS
from tests.support.models import bundle, classifier
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

pytestmark = pytest.mark.azurite

MODEL = "iris"
POLICY: dict[str, Any] = {
    "rollout": {
        "stages": [{"weight_bp": 5_000, "duration_s": 3_600, "approval": True}],
        "tick_s": 1,
        "watch_s": 0,
        "automatic": False,
        "max_stage_s": 3_600,
    },
    "validation": {"noninferiority_margin": None},
}
ALL_AT_ONCE = {**POLICY, "rollout": {"strategy": "all-at-once", "automatic": False, "watch_s": 0, "tick_s": 1}}


class Sink(ThreadingHTTPServer):
    """Keeps the events that it is sent, and refuses the first, as one that is just starting would."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.asked = 0
        super().__init__(("127.0.0.1", 0), _Taking)


class _Taking(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        is_taken = self.server.asked > 1 and self.headers["Authorization"] == "Bearer sesame"
        if is_taken:
            self.server.told.append(json.loads(body))
        self.send_response(204 if is_taken else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def sink() -> Generator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Generator[System]:
    """Azurite and a functions host, without a model server: the test reports in its place."""
    url = f"http://127.0.0.1:{sink.server_port}/events"
    settings = SETTINGS | {
        "SLIPWAY_SWEEP_SCHEDULE": "* * * * * *",
        "SLIPWAY_APPROVAL_KEY": "a5" * 32,
        "SLIPWAY_EVENT_SINKS": json.dumps([{"name": "ops", "url": url, "token": "sesame"}]),
        "SLIPWAY_EVENT_SOURCE": "/slipway/test",
    }
    system = System(StateDir(tmp_path_factory.mktemp("state")), settings={FUNCTIONS: settings})
    try:
        system.state.create()
        system.start_part(AZURITE)
        system.start_part(FUNCTIONS)
        yield system
    finally:
        system.stop()


class Reporter:
    """Follows the plan as a model server would: each `report` is a window of traffic under it."""

    def __init__(self, blobs: BlobServiceClient) -> None:
        self._blobs = blobs
        self._sequence = 0
        self.errors = 0

    def report(self) -> None:
        """Write a window under the plan that is published, if there is one."""
        try:
            plan = self._blobs.get_blob_client("routes", plan_blob_name(MODEL)).download_blob().readall()
        except ResourceNotFoundError:
            return
        routes = RoutePlan.model_validate_json(plan)
        now = datetime.now(UTC)
        window = Window(
            endpoint=MODEL,
            pod="pod-1",
            sequence=self._sequence,
            generation=routes.generation,
            started_at=now,
            ended_at=now,
            loaded=[route.version for route in routes.routes],
            versions={r.version: VersionCounts(requests=100, errors=self.errors) for r in routes.routes if r.weight_bp},
        )
        name = window_blob_name(MODEL, now, window.pod, window.sequence)
        self._blobs.get_blob_client("telemetry", name).upload_blob(window.model_dump_json())
        self._sequence += 1


def call(system: System, method: str, path: str, **request: Any) -> Any:
    headers = {"x-functions-key": system.key}
    answer = httpx.request(
        method, f"{system.functions_url}/api/{path}", headers=headers, timeout=60, verify=NO_TLS, **request
    )
    return answer.json() | {"status": answer.status_code}


def validated(system: System, blobs: BlobServiceClient, *, c: float, name: str) -> int:
    """Drop a model, and wait for its validated version."""
    blobs.get_blob_client("incoming", f"{MODEL}/{name}").upload_blob(bundle(classifier(c=c)))

    def find() -> int | None:
        versions = call(system, "GET", f"models/{MODEL}/versions").get("items", [])
        return next((v["version"] for v in versions if v["drop"].endswith(name) and v["state"] == "validated"), None)

    found = eventually(find, what=f"the version of {name}", deadline_s=120)
    assert found is not None
    return found


def rolled_to(system: System, reporter: Reporter, state: str) -> dict[str, Any]:
    def reached() -> Any:
        reporter.report()
        rollout = call(system, "GET", f"endpoints/{MODEL}")["rollout"]
        return rollout if rollout["state"] == state else None

    found: dict[str, Any] = eventually(reached, what=f"a rollout that is {state}", deadline_s=120)
    return found


def test_a_stage_is_approved_by_its_link_once_a_spent_budget_blocks_and_all_of_it_is_told(
    system: System, sink: Sink
) -> None:
    with closing(BlobServiceClient.from_connection_string(system.storage_connection)) as blobs:
        reporter = Reporter(blobs)
        call(system, "PUT", f"models/{MODEL}/policy", json=ALL_AT_ONCE)
        first = validated(system, blobs, c=1.0, name="one.zip")
        assert call(system, "POST", f"endpoints/{MODEL}/rollouts", json={"version": first})["status"] == 200
        rolled_to(system, reporter, "promoted")
        call(system, "PUT", f"models/{MODEL}/policy", json=POLICY)
        second = validated(system, blobs, c=0.5, name="two.zip")
        nobody = call(system, "POST", f"endpoints/{MODEL}/rollouts", json={"version": second})
        assert (nobody["status"], "does not say who asks" in str(nobody)) == (409, True)
        start = {"version": second, "by": "cid"}
        assert call(system, "POST", f"endpoints/{MODEL}/rollouts", json=start)["status"] == 200
        waiting = rolled_to(system, reporter, "awaiting")

        links = f"endpoints/{MODEL}/rollouts/{waiting['rollout_id']}/approval-links"
        made = call(system, "POST", links, json={"approver": "Zoë", "by": "ops"})
        assert (made["status"], made["stage"]) == (200, 0)
        address = system.functions_url + made["path"]
        assert made["url"] == address
        # Without any key.
        for _ in range(2):
            page = httpx.get(address, timeout=60, verify=NO_TLS)
            assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert f"Approve version {second} on {MODEL} for stage 1 of 1?" in page.text
        assert call(system, "GET", f"endpoints/{MODEL}")["rollout"]["state"] == "awaiting"
        assert httpx.get(address[:-2] + "xx", timeout=60, verify=NO_TLS).status_code == 403
        answered = httpx.post(address, data={"decision": "approve", "reason": "it is fine"}, timeout=60, verify=NO_TLS)
        assert (answered.status_code, "Approved" in answered.text) == (200, True)
        assert (
            httpx.post(address, data={"decision": "reject", "reason": "no"}, timeout=60, verify=NO_TLS).status_code
            == 409
        )
        rollout = call(system, "GET", f"endpoints/{MODEL}")["rollout"]
        assert (rollout["state"], rollout["weight_bp"]) == ("progressing", 5_000)

        blocked(system, reporter)
        ended = call(system, "POST", f"endpoints/{MODEL}/rollouts/{waiting['rollout_id']}/abort")
        assert ended["state"] == "aborted"
        told_whole(system, sink)
        assert call(system, "GET", "audit/verify")["verified"] is True
        assert call(system, "GET", "dead-letters")["items"] == []


def blocked(system: System, reporter: Reporter) -> None:
    """Spend an error budget, and hold that it lowers and does not raise a weight."""
    policy = {**POLICY, "rollout": {**POLICY["rollout"], "error_budget": {"objective": 0.99, "hours": 1}}}
    call(system, "PUT", f"models/{MODEL}/policy", json=policy)
    # Under the proof of harm: both versions fail alike, and the gates say nothing of it.
    reporter.errors = 3
    path = f"endpoints/{MODEL}/rollouts/{call(system, 'GET', f'endpoints/{MODEL}')['rollout']['rollout_id']}/set-weight"

    weights = itertools.count(5_001)

    def spent() -> Any:
        reporter.report()
        answer = call(system, "POST", path, json={"weight_bp": next(weights), "by": "ann"})
        return answer if answer["status"] == 409 and "the error budget is spent" in str(answer) else None

    eventually(spent, what="a spent error budget", deadline_s=120)
    assert call(system, "POST", path, json={"weight_bp": 4_000, "by": "ann"})["weight_bp"] == 4_000


def told_whole(system: System, sink: Sink) -> None:
    """Hold that the sink has every event of the endpoint's audit, and the first one too, which it refused."""
    events = call(system, "GET", f"audit/events?stream=endpoint:{MODEL}")["items"]
    wanted = {event["hash"]: event["data"] for event in events if event["kind"] != "check_failed"}

    def told() -> bool:
        return wanted.keys() <= {event["id"] for event in sink.told}

    eventually(told, what="every event", deadline_s=120)
    found = {event["id"]: event for event in sink.told}
    assert {identity: found[identity]["data"] for identity in wanted} == wanted
    kinds = {event["type"] for event in sink.told}
    assert {
        f"com.slipway.endpoint.{kind}" for kind in ("approval_awaited", "approval_link_made", "rollout_aborted")
    } <= (kinds)
    policies = [event for event in sink.told if event["type"] == "com.slipway.model.policy_set"]
    assert policies[0]["source"] == f"/slipway/test/model/{MODEL}"
