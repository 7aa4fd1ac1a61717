"""The calls for rollouts in this process: each command reaches the machine, and what people may not leave out."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from functions._services import Services, services
from shared.core.ids import ModelName
from shared.core.verdict import Outcome, Verdict
from shared.registry.documents import ModelVersion, ValidationSummary, VersionState, version_id
from shared.registry.manifest import Manifest
from shared.registry.policy import Policy
from shared.registry.rollout_policy import RolloutPolicy, Stage, Strategy, WhenBusy
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.rollbacks import Quarantine
from shared.store.ports import Container
from tests.unit.functions.conftest import Call

E = {"endpoint": "m"}
R = E | {"rollout_id": "rollout-1"}
POLICY = RolloutPolicy(
    strategy=Strategy.CANARY,
    stages=(
        Stage(weight_bp=1_000, duration_s=300),
        Stage(weight_bp=5_000, duration_s=600, approval=True),
        Stage(weight_bp=9_000, duration_s=60),
    ),
    when_busy=WhenBusy.QUEUE,
)


def target(version: int) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


def endpoint(state: RolloutState = RolloutState.PROGRESSING, **fields: Any) -> Endpoint:
    """Endpoint m with a rollout of version 2 beside version 1, in its first stage since 100 s."""
    now = datetime.now(UTC)
    began = now - timedelta(seconds=100)
    seen = {
        "pod-1": PodSeen(sequence=1, generation=4, at=now, loaded=(1, 2)),
        "pod-2": PodSeen(sequence=1, generation=4, at=now, loaded=(1,), failed={2: "no memory"}),
        "pod-3": PodSeen(sequence=1, generation=4, at=now - timedelta(seconds=90), loaded=(1, 2)),
    }
    sentence = "the candidate fails 2.0 % of 512 requests, stable 1.0 %"
    verdict = Verdict(
        check="error_rate",
        outcome=Outcome.PASS,
        sentence=sentence,
        n=512,
        value=0.01,
        limit=0.0,
        interval=(-0.01, 0.03),
    )
    rollout = Rollout(
        rollout_id="rollout-1",
        command_id="start",
        candidate=target(2),
        stable=target(1),
        policy=POLICY,
        state=state,
        stage=0,
        started_at=began,
        published_at=began,
        stage_started_at=began,
        halted_at=now if state.is_halted else None,
        ended_at=now if state.is_over else None,
        next_tick_at=now,
        progress=Progress(generation=4, pods=seen),
        verdicts=[verdict],
        requested_by="ann",
    )
    return Endpoint(endpoint="m", stable=target(1), good=[target(1)], rollout=rollout, generation=4, **fields)


class _Refusing(BaseHTTPRequestHandler):
    """Storage that refuses whatever it is asked, at once: what leaves by the outbox waits there."""

    def _refuse(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.send_response(403)
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_POST = do_PUT = _refuse  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def storage() -> Iterator[str]:
    """The connection string of storage that refuses everything."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/a"
        yield f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=a2V5;BlobEndpoint={url};QueueEndpoint={url}"
        server.shutdown()
        thread.join()


@pytest.fixture
def app(_composed_anew: None, storage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Services]:
    """The app's services over documents in SQLite and storage that refuses everything."""
    monkeypatch.setenv("SlipwayStorage", storage)
    monkeypatch.setenv("SLIPWAY_DOCUMENTS", f"sqlite:{tmp_path}/documents.db")
    composed = services()
    yield composed
    composed.documents.close()  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _versions(app: Services) -> None:
    """Model m with three validated versions, which no rollout was asked for."""
    app.registry.put_policy(ModelName("m"), Policy(rollout=POLICY), by="test")
    for number in (1, 2, 3):
        summary = ValidationSummary(outcome=Outcome.PASS, verdicts=[], metrics={}, report_blob="r", policy_version=1)
        version = ModelVersion(
            id=version_id(number),
            model="m",
            version=number,
            state=VersionState.VALIDATED,
            drop="m/x.onnx",
            digest="d" * 64,
            artifact_digest="a" * 64,
            artifact_size_bytes=1,
            manifest=Manifest.model_validate({"task": "classification", "author": "Cid"}),
            registered_at=datetime(2026, 1, 2, tzinfo=UTC),
            attempted_at=datetime(2026, 1, 2, tzinfo=UTC),
            validation=summary,
        )
        app.documents.create(Container.MODELS, version.to_body())


def stored(app: Services, found: Endpoint) -> None:
    app.documents.create(Container.ENDPOINTS, found.to_body())


def refused(answer: tuple[int, dict[str, Any]]) -> tuple[int, str]:
    return answer[0], answer[1]["error"]["message"]


@pytest.mark.parametrize(
    ("name", "state", "body", "found"),
    [
        ("promote_rollout", RolloutState.WATCHING, {"by": "bob"}, "promoted"),
        ("pause_rollout", RolloutState.PROGRESSING, {}, "paused"),
        ("resume_rollout", RolloutState.PAUSED, {}, "progressing"),
        ("skip_stage", RolloutState.PROGRESSING, {"by": "bob"}, "awaiting"),
        ("set_weight", RolloutState.PROGRESSING, {"by": "bob", "weight_bp": 250}, "progressing"),
        ("approve_stage", RolloutState.AWAITING, {"by": "bob", "stage": 1}, "progressing"),
        ("reject_stage", RolloutState.AWAITING, {"by": "bob"}, "aborted"),
        ("abort_rollout", RolloutState.HELD, {}, "aborted"),
        ("roll_back", RolloutState.PROGRESSING, {"by": "bob"}, "rolled_back"),
    ],
)
def test_each_command_moves_the_rollout_once_and_says_who_gave_it(
    call: Call, app: Services, name: str, state: RolloutState, body: dict[str, Any], found: str
) -> None:
    stored(app, endpoint(state))
    route = E if name == "roll_back" else R
    given = body | {"reason": "because", "command_id": "c"}
    status, answer = call(name, given, **route)
    moved = answer["rollout"] if name == "roll_back" else answer
    assert (status, moved["state"], moved["reason"]) == (200, found, "because")
    events = call("list_audit_events", query={"stream": "endpoint:m"})[1]["items"]
    assert events[-1]["data"]["by"] == body.get("by", "api")
    assert call(name, given, **route)[0] == 200
    assert call("get_rollout", **R)[1]["state"] == found
    assert len(call("list_audit_events", query={"stream": "endpoint:m"})[1]["items"]) == len(events)


@pytest.mark.parametrize(
    ("name", "body", "said"),
    [
        ("promote_rollout", {}, "by: Field required"),
        ("skip_stage", {}, "by: Field required"),
        ("approve_stage", {}, "by: Field required"),
        ("approve_stage", {"by": "  "}, "by: String should have at least 1 character"),
        ("reject_stage", {"stage": 1}, "by: Field required"),
        ("roll_back", {"version": 1}, "by: Field required"),
        ("set_weight", {}, "weight_bp: Field required"),
        ("set_weight", {"weight_bp": 250}, "by: Field required"),
        ("set_weight", {"weight_bp": 10_001}, "weight_bp: Input should be less than or equal to 10000"),
        ("pause_rollout", {"override": True}, "override: there is no such key"),
        ("start_rollout", {"version": 3, "shadows": [0]}, "shadows.0: Input should be greater than or equal to 1"),
        ("clear_quarantine", {"by": "bob"}, "reason: Field required"),
        ("clear_quarantine", {"reason": "fit"}, "by: Field required"),
    ],
)
def test_a_command_that_says_too_little_or_too_much_is_refused_and_changes_nothing(
    call: Call, app: Services, name: str, body: dict[str, Any], said: str
) -> None:
    stored(app, endpoint())
    before = app.documents.get(Container.ENDPOINTS, "m", "endpoint")
    status, message = refused(call(name, body, version="2", **R))
    assert (status, said in message) == (400, True), message
    assert app.documents.get(Container.ENDPOINTS, "m", "endpoint") == before


def test_a_command_that_the_state_does_not_allow_is_a_conflict_that_names_both(call: Call, app: Services) -> None:
    stored(app, endpoint(RolloutState.WATCHING))
    status, message = refused(call("pause_rollout", **R))
    assert (status, message.partition(";")[0]) == (409, "a rollout that is watching does not hear pause")


def test_who_asked_for_a_rollout_approves_of_nothing(call: Call, app: Services) -> None:
    stored(app, endpoint(RolloutState.AWAITING))
    assert refused(call("approve_stage", {"by": "Ann"}, **R)) == (
        409,
        "Ann asked for the rollout of version 2: somebody else must approve",
    )


def test_a_start_is_answered_with_its_rollout_and_one_that_must_wait_with_the_endpoint(
    call: Call,
) -> None:
    status, begun = call("start_rollout", {"version": 2, "by": "ann", "command_id": "c"}, **E)
    assert (status, begun["state"], begun["requested_by"]) == (200, "loading", "ann")
    assert (begun["waiting"], begun["stage_left_s"]) == ("pods", None)
    status, waits = call("start_rollout", {"version": 3, "by": "ann", "command_id": "d"}, **E)
    assert (status, waits["queued_version"], waits["rollout"]["version"]) == (202, 3, 2)
    assert call("start_rollout", {"version": 3, "by": "ann", "command_id": "d"}, **E)[0] == 202


def test_a_rollout_shows_where_it_stands_and_what_it_waits_for(call: Call, app: Services) -> None:
    stored(app, endpoint())
    shown = call("get_endpoint", **E)[1]["rollout"]
    assert shown["convergence"]["ready"] == ["pod-1"]
    assert shown["convergence"]["failing"] == {"pod-2": "no memory"}
    assert (shown["convergence"]["reporting"], shown["convergence"]["silent"]) == (["pod-1", "pod-2"], ["pod-3"])
    assert (shown["stage"], len(shown["stages"]), shown["weight_bp"], shown["mirror_bp"]) == (0, 3, 1_000, 0)
    assert shown["verdicts"][0]["interval"] == [-0.01, 0.03]
    assert shown["waiting"] == "time"
    # Of the 300 s of this stage 100 have passed; 600 and 60 s of stages, and 300 s of watching, are to come.
    assert 0 <= 200 - shown["stage_left_s"] < 60
    assert 0 <= 1_160 - shown["left_s"] < 60
    assert shown["stage_limit_s"] == 3_600
    assert call("get_rollout", **R)[1]["rollout_id"] == "rollout-1"
    assert [found["version"] for found in call("list_rollouts", **E)[1]["items"]] == [2]


def test_where_no_rollout_is_under_way_a_rollback_takes_stable_to_an_earlier_good_version(
    call: Call, app: Services
) -> None:
    found = endpoint(RolloutState.PROMOTED)
    found.stable, found.good = target(2), [target(1), target(2)]
    stored(app, found)
    assert refused(call("roll_back", {"by": "bob", "version": 3}, **E))[0] == 409
    status, shown = call("roll_back", {"by": "bob", "version": 1, "reason": "it fails"}, **E)
    assert (status, shown["generation"]) == (200, 5)
    assert (shown["stable"], shown["rollback"]["trigger"], shown["rollback"]["by"]) == (1, "manual", "bob")
    assert [(held["version"], held["reason"]) for held in shown["quarantined"]] == [(2, "it fails")]
    assert (shown["rollout"]["waiting"], shown["rollout"]["convergence"]["is_reached"]) == ("pods", False)


def test_a_version_in_quarantine_is_listed_refused_and_cleared_by_a_named_person(call: Call, app: Services) -> None:
    held = Quarantine(version=3, reason="errors", at=datetime(2026, 1, 2, tzinfo=UTC), rollout_id="rollout-0")
    stored(app, endpoint(RolloutState.ABORTED, quarantined=[held]))
    assert call("list_quarantine", **E)[1]["items"][0]["rollout_id"] == "rollout-0"
    status, message = refused(call("start_rollout", {"version": 3, "by": "ann"}, **E))
    assert status == 409
    assert "is quarantined since 2026-01-02T00:00:00+00:00: errors; clear it first" in message
    cleared = call("clear_quarantine", {"by": "bob", "reason": "the network was down"}, version="3", **E)
    assert cleared == (200, {"items": [], "continuation": None})
    event = call("list_audit_events", query={"stream": "endpoint:m"})[1]["items"][-1]
    assert (event["kind"], event["data"]["by"], event["data"]["reason"]) == (
        "quarantine_cleared",
        "bob",
        "the network was down",
    )
    assert call("clear_quarantine", {"by": "bob", "reason": "again"}, version="3", **E)[0] == 404
    start = {"version": 3, "by": "ann", "force": True, "reason": "its callers know"}
    begun = call("start_rollout", start, **E)[1]
    assert (begun["version"], begun["forced"]) == (3, True)
