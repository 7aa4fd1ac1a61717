"""What the commands of retention, dead letters and artifacts ask of the admin API, and what they tell."""

from typing import Any

import pytest

from cli.outcome import ExitCode
from cli.upkeep_show import size
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

PLAN_ID = "ab" * 32
PLAN = {
    "plan_id": PLAN_ID,
    "model": "m",
    "policy": {"keep_latest": 1, "keep_days": 7.0},
    "archive": [{"version": 1, "state": "validated", "reason": "it was validated on 2026-01-02, and nothing uses it"}],
    "delete": [
        {"container": "artifacts", "name": "sha256/1", "etag": "e", "size_bytes": 5_000, "reason": "model.onnx of [v1]"}
    ],
    "keep": [{"version": 2, "state": "validated", "reasons": ["its endpoint serves it", "it is young"]}],
    "size_bytes": 5_000,
    "is_partial": False,
}
RUN = {
    "run_id": "retention-1",
    "model": "m",
    "plan_id": PLAN_ID,
    "state": "waiting",
    "requested_by": "api",
    "started_at": "2026-01-02T03:04:05.6Z",
    "delete_after": "2026-01-02T04:04:05.6Z",
    "ended_at": None,
    "archived": [1],
    "deleted": 0,
    "deleted_bytes": 0,
    "spared": [],
    "blobs": 1,
    "size_bytes": 5_000,
}
LETTER = {
    "letter_id": "letter-1",
    "queue": "validations",
    "body": {"encoding": "text", "content": '{"model": "m"}\x1b[31m'},
    "state": "kept",
    "reason": "it is no ValidateVersion",
    "attempts": 1,
    "count": 2,
    "first_seen_at": "2026-01-02T03:04:05Z",
    "last_seen_at": "2026-01-02T03:05:05Z",
}


def page(*items: Any, continuation: str | None = None) -> tuple[int, Any]:
    return 200, {"items": list(items), "continuation": continuation}


def test_a_plan_is_shown_with_what_keeps_the_rest_and_the_command_that_runs_it(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models/m/retention/plan"] = (200, PLAN)
    shown = slipway("retention", "plan", "m").out
    for words in (
        "its endpoint serves it; it is young",
        "nothing uses it",
        "artifacts/sha256/1",
        "5 kB",
        "model.onnx of [v1]",
        f"slipway retention run m {PLAN_ID}",
    ):
        assert words in shown
    assert slipway("retention", "plan", "m", "--json").json == PLAN


def test_a_plan_that_does_nothing_says_so_and_a_full_one_that_there_is_more(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models/m/retention/plan"] = (200, PLAN | {"archive": [], "delete": []})
    shown = slipway("retention", "plan", "m").out
    assert "m: there is nothing to archive or delete" in shown
    assert "retention run" not in shown
    api.answers["GET /api/models/m/retention/plan"] = (200, PLAN | {"is_partial": True})
    assert "there is more than one plan holds" in slipway("retention", "plan", "m").out


def test_a_run_sends_the_plan_s_id_and_tells_when_blobs_go(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/models/m/retention/run"] = (200, RUN)
    ran = slipway("retention", "run", "m", PLAN_ID)
    assert ran.code == 0
    assert "retention-1 of m is waiting; archived versions: 1" in ran.out
    assert "1 blobs, 5 kB, are deleted after 2026-01-02 04:04:05" in ran.out
    assert api.asked[0].body == {"plan_id": PLAN_ID}


def test_a_plan_that_is_not_valid_any_more_is_a_conflict_and_a_wrong_id_is_not_sent(
    slipway: Slipway, api: FakeApi
) -> None:
    api.answers["POST /api/models/m/retention/run"] = (409, {"error": {"code": "conflict", "message": "look anew"}})
    ran = slipway("retention", "run", "m", PLAN_ID)
    assert (ran.code, ran.err) == (ExitCode.CONFLICT, "slipway: look anew\n")
    assert slipway("retention", "run", "m", "ab12").code == ExitCode.USAGE
    assert len(api.asked) == 1


def test_runs_are_listed_with_what_was_spared(slipway: Slipway, api: FakeApi) -> None:
    done = RUN | {"state": "done", "deleted": 0, "spared": ["artifacts/sha256/1 stays: version 4 of n stands on it"]}
    api.answers["GET /api/models/m/retention/runs"] = page(done)
    shown = slipway("retention", "runs", "m").out
    assert "0 of 1 blobs are gone, 0 B" in shown
    assert "stays: version 4 of n stands on it" in shown
    api.answers["GET /api/models/m/retention/runs"] = page()
    assert slipway("retention", "runs", "m").out == "There was no run yet.\n"


def test_dead_letters_are_listed_over_all_pages_by_state(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/dead-letters?state=kept"] = page(LETTER, continuation="more")
    api.answers["GET /api/dead-letters?state=kept&continuation=more"] = page(LETTER | {"letter_id": "letter-2"})
    api.answers["GET /api/dead-letters?state=replayed"] = page()
    shown = slipway("dead-letters", "list").out
    assert "letter-2" in shown
    assert "it is no ValidateVersion" in shown
    assert slipway("dead-letters", "list", "--state", "replayed").out == "There are no such dead letters.\n"


def test_a_dead_letter_s_body_is_shown_without_its_control_characters(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/dead-letters/letter-1"] = (200, LETTER)
    shown = slipway("dead-letters", "show", "letter-1").out
    assert "\x1b" not in shown
    assert r'body: "{\"model\": \"m\"}\\x1b[31m"' in shown
    assert "failed for the last time: 2 times" in shown


def test_a_letter_is_replayed_and_discarded_with_a_reason(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/dead-letters/letter-1/replay"] = [None, (200, LETTER | {"state": "replayed"})]
    api.answers["POST /api/dead-letters/letter-1/discard"] = [None, (200, LETTER | {"state": "discarded"})]
    assert "letter-1 of validations is replayed" in slipway("dead-letters", "replay", "letter-1").out
    assert slipway("dead-letters", "discard", "letter-1").code == ExitCode.USAGE
    slipway("dead-letters", "discard", "letter-1", "--reason", "a typo")
    # Each was sent again after a lost answer, as the command that it was.
    bodies = [asked.body for asked in api.asked]
    assert [body["reason"] for body in bodies] == ["", "", "a typo", "a typo"]
    ids = [body["command_id"] for body in bodies]
    assert ids[0] == ids[1] != ids[2] == ids[3]


def test_every_letter_of_a_queue_is_replayed_but_those_that_somebody_else_put_back(
    slipway: Slipway, api: FakeApi
) -> None:
    others = [LETTER | {"letter_id": f"letter-{number}", "queue": "lifecycle-events"} for number in (2, 3, 4)]
    api.answers["GET /api/dead-letters"] = page(LETTER, others[0], continuation="more")
    api.answers["GET /api/dead-letters?continuation=more"] = page(*others[1:])
    taken = 409, {"error": {"code": "conflict", "message": "the dead letter letter-3 is replayed"}}
    api.answers |= {
        "POST /api/dead-letters/letter-2/replay": (200, others[0] | {"state": "replayed"}),
        "POST /api/dead-letters/letter-3/replay": taken,
        "POST /api/dead-letters/letter-4/replay": (200, others[2] | {"state": "replayed"}),
    }
    ran = slipway("dead-letters", "replay-all", "lifecycle-events", "--reason", "the sink is back")
    assert (ran.code, "letter-2" in ran.out, "letter-3" in ran.out, "letter-4" in ran.out) == (0, True, False, True)
    assert [asked.body["reason"] for asked in api.asked if asked.method == "POST"] == ["the sink is back"] * 3


def test_a_queue_without_letters_is_told_with_those_that_have_some(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/dead-letters"] = page(LETTER)
    ran = slipway("dead-letters", "replay-all", "lifecycle-event")
    assert ran.code == ExitCode.NOT_FOUND
    assert "a dead letter of the queue lifecycle-event does not exist: the queues with some are: validations" in ran.err
    assert [asked.method for asked in api.asked] == ["GET"]


def test_an_audit_of_artifacts_goes_through_all_models_and_parts(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/models"] = page({"model": "m"}, {"model": "n"})
    whole = {"versions": 1, "artifacts": 1, "hashed_bytes": 10, "findings": [], "after": None}
    api.answers["POST /api/models/m/artifacts/audit"] = [(200, whole | {"after": 7}), (200, whole)]
    api.answers["POST /api/models/n/artifacts/audit"] = (200, whole)
    ran = slipway("audit", "artifacts")
    assert (ran.code, ran.out) == (0, "all artifacts are what was registered: 3 versions, 30 B hashed\n")
    assert [asked.body for asked in api.asked[1:]] == [{"after": 0}, {"after": 7}, {"after": 0}]


def test_an_altered_artifact_is_told_with_exit_code_1(slipway: Slipway, api: FakeApi) -> None:
    finding = {"model": "m", "version": 2, "sentence": "model.onnx at sha256/1 is gone"}
    answer = {"versions": 1, "artifacts": 1, "hashed_bytes": 10, "findings": [finding], "after": None}
    api.answers["POST /api/models/m/artifacts/audit"] = (200, answer)
    ran = slipway("audit", "artifacts", "m")
    assert ran.code == ExitCode.FAILED
    assert "version 2 of m: model.onnx at sha256/1 is gone" in ran.out


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (2_000_000_000, "2 GB"), (3e15, "3e+03 TB")]
)
def test_sizes_read_well(size_bytes: int, text: str) -> None:
    assert size(size_bytes) == text
