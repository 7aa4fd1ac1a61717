"""The pages of approval links, by the app's own functions: looking, answering, and each refusal with its status."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import azure.functions as func
import pytest

from functions import approvals
from functions._services import Services, services
from shared.approvals.links import read_link, sign_link
from shared.core.verdict import Outcome, Verdict
from shared.rollout.machine import RolloutState
from shared.store.ports import Container
from tests.world.test_approvals import awaiting
from tests.world.world import ENDPOINT, MODEL

KEY = "a5" * 32


class _Refusing(BaseHTTPRequestHandler):
    """Storage that refuses everything at once: what was to go out stays in the outbox."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = _refuse  # noqa: N815 - the base class's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The connection string of storage that refuses everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/a"
        yield f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint={url};QueueEndpoint={url}"
        server.shutdown()
        thread.join()


@pytest.fixture
def app(storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Services]:
    """The app's services over SQLite, in which a rollout awaits an approval and its gates have spoken."""
    monkeypatch.setenv("SlipwayStorage", storage)
    monkeypatch.setenv("SLIPWAY_DOCUMENTS", f"sqlite:{tmp_path}/documents.db")
    monkeypatch.setenv("SLIPWAY_APPROVAL_KEY", f"{KEY}, {'b6' * 32}")
    services.cache_clear()
    composed = services()
    for (container, _, _), stored in awaiting().documents.held.items():
        body = dict(stored.body)
        if container is Container.ENDPOINTS and body["kind"] == "endpoint":
            body["rollout"] = {**body["rollout"], "verdicts": [_VERDICT.model_dump(mode="json")]}
        composed.documents.create(container, body)
    yield composed
    composed.documents.close()  # type: ignore[attr-defined]
    services.cache_clear()


_VERDICT = Verdict(
    check="error_rate",
    outcome=Outcome.PASS,
    sentence="no harm <script>alert(1)</script> is proven",
    n=1_234,
    value=0.0021,
    limit=0.01,
    interval=(0.001, 0.0042),
)


def token(app: Services, approver: str = "Cid") -> str:
    return app.approvals.make(ENDPOINT, _rollout_id(app), approver=approver, by="ops").token


def _rollout_id(app: Services) -> str:
    rollout = app.rollouts.endpoint(ENDPOINT).rollout
    assert rollout is not None
    return rollout.rollout_id


def show(token: str) -> tuple[int, str]:
    return _said(_call("show_approval", "GET", b"", token))


def answer(token: str, decision: str = "approve", reason: str = "so", **more: str) -> tuple[int, str]:
    form = urlencode({"decision": decision, "reason": reason, **more}).encode()
    return _said(_call("answer_approval", "POST", form, token))


def _call(name: str, method: str, body: bytes, token: str) -> func.HttpResponse:
    app = func.FunctionApp()
    app.register_functions(approvals.bp)
    functions = {found.get_function_name(): found.get_user_function() for found in app.get_functions()}
    request = func.HttpRequest(method=method, url="/api/approvals/x", body=body, route_params={"token": token})
    answered: func.HttpResponse = functions[name](request)
    return answered


def _said(answered: func.HttpResponse) -> tuple[int, str]:
    assert answered.mimetype == "text/html"
    assert answered.headers["Referrer-Policy"] == "no-referrer"
    assert answered.headers["Cache-Control"] == "no-store"
    assert answered.headers["Content-Security-Policy"].startswith("default-src 'none'")
    return answered.status_code, answered.get_body().decode()


def documents(app: Services) -> list[object]:
    return [page.items for page in (app.documents.query(container, page_size=1_000) for container in Container)]


def test_the_page_tells_what_is_asked_with_the_gate_figures_and_opening_it_changes_nothing(app: Services) -> None:
    made = token(app)
    held = documents(app)
    for _ in range(2):
        status, page = show(made)
        assert status == 200
    assert documents(app) == held
    assert "<h1>Approve version 2 on digits for stage 2 of 2?</h1>" in page
    for told in ("10 %", "50 %", "Ann", "Bob", "Cid", "canary", "error_rate", "0.0021", "0.001 to 0.0042", "1234"):
        assert told in page
    assert '<form method="post">' in page


def test_nothing_of_a_page_can_be_run(app: Services) -> None:
    _, page = show(token(app, '"><img src=x onerror=alert(1)>'))
    assert "<script" not in page
    assert "<img" not in page
    assert "no harm &lt;script&gt;" in page


def test_an_approval_is_carried_out_once(app: Services) -> None:
    made = token(app)
    status, page = answer(made, reason="looks\r\ngood")
    assert (status, "Approved" in page, "50 %" in page) == (200, True, True)
    rollout = app.rollouts.endpoint(ENDPOINT).rollout
    assert rollout is not None
    assert [(approval.stage, approval.by) for approval in rollout.approvals] == [(1, "Cid")]
    held = documents(app)
    for again in (answer(made), answer(made, "reject"), show(made)):
        assert (again[0], "This link was used" in again[1], "Cid approved with it" in again[1]) == (409, True, True)
    assert documents(app) == held


def test_a_rejection_is_carried_out_once(app: Services) -> None:
    made = token(app)
    assert answer(made, "reject", reason=" ")[0] == 400
    status, page = answer(made, "reject", reason="not today")
    assert (status, "was taken back" in page) == (200, True)
    rollout = app.rollouts.endpoint(ENDPOINT).rollout
    assert rollout is not None
    assert (rollout.state, rollout.reason) == (RolloutState.ABORTED, "not today")
    status, page = answer(made, "reject")
    assert (status, "rejected with it (not today)" in page) == (409, True)


def test_each_refusal_has_its_own_message_and_status(app: Services) -> None:
    made = token(app)
    link = read_link(made, [bytes.fromhex(KEY)])
    held = documents(app)

    def signed(**changes: object) -> str:
        return sign_link(link.model_copy(update=changes), [bytes.fromhex(KEY)])

    cases = {
        made[:-4] + "AAAA": (403, "This link is not good"),
        "x": (403, "This link is not good"),
        signed(expires_at=datetime(2026, 1, 1, tzinfo=UTC)): (410, "This link has expired"),
        signed(stage=0): (412, "Nothing waits for this answer any more"),
        signed(rollout_id="rollout-000001-0"): (404, "not the latest any more"),
    }
    for bad, (status, said) in cases.items():
        for found in (show(bad), answer(bad)):
            assert (found[0], said in found[1]) == (status, True), said
    author = signed(approver="ann")
    assert answer(author)[0] == 422
    assert "is the author of version 2" in answer(author)[1]
    assert documents(app) == held


def test_a_form_that_is_none_is_refused_and_changes_nothing(app: Services) -> None:
    made = token(app)
    held = documents(app)
    too_long = b"decision=approve&reason=" + b"x" * 501
    for form in (b"", b"decision=maybe", b"\xff\xfe", b"decision", b"a=1&" * 50, too_long, b"x" * 10_001):
        status, page = _said(_call("answer_approval", "POST", form, made))
        assert (status, "Not understood" in page) == (400, True), form[:20]
    assert documents(app) == held


def test_a_link_is_made_by_the_call_and_names_its_address(app: Services) -> None:
    made = func.FunctionApp()
    made.register_functions(approvals.bp)
    functions = {found.get_function_name(): found.get_user_function() for found in made.get_functions()}
    route = {"endpoint": MODEL, "rollout_id": _rollout_id(app)}

    def call(body: dict[str, str]) -> tuple[int, dict[str, Any]]:
        request = func.HttpRequest(
            method="POST",
            url="https://slipway.example/api/endpoints/digits/rollouts/r/approval-links",
            body=json.dumps(body).encode(),
            route_params=route,
        )
        answered = functions["make_approval_link"](request)
        return answered.status_code, json.loads(answered.get_body())

    status, found = call({"approver": " Cid ", "by": "ops"})
    assert (status, found["approver"], found["stage"]) == (200, "Cid", 1)
    assert found["url"] == "https://slipway.example" + found["path"]
    assert show(found["path"].removeprefix("/api/approvals/"))[0] == 200
    assert call({"approver": "ann"})[0] == 409
    assert call({"approver": " "})[0] == 400
    status, found = call({"approver": "\U0001f600" * 200})
    assert (status, show(found["path"].removeprefix("/api/approvals/"))[0]) == (200, 200)
    assert call({"approver": "x" * 201})[0] == 400
    assert call({})[0] == 400


def test_without_a_key_there_are_no_links(app: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    made = token(app)
    monkeypatch.setenv("SLIPWAY_APPROVAL_KEY", "")
    services.cache_clear()
    status, page = show(made)
    assert (status, "set SLIPWAY_APPROVAL_KEY" in page) == (422, True)
    services().documents.close()  # type: ignore[attr-defined]
