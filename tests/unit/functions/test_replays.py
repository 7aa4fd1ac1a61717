"""The calls of dry-runs and tick records: what they refuse, and how they show what they found."""

import json

from functions._services import Services
from functions.replays import _replay_view, _tick_line
from shared.core.ids import model_name
from shared.registry.policy import Policy
from shared.rollout.dryrun import NotJudged
from tests.unit.functions.conftest import Call
from tests.world.test_replay import BASE, FAILING_SLOWLY, dry_runs, latest, rolled_out
from tests.world.world import ENDPOINT, Pod

TICK = {"endpoint": "digits", "rollout_id": "rollout-000001-a"}


def test_a_model_without_rollouts_has_none_to_try_a_policy_on(app: Services, call: Call) -> None:
    app.registry.put_policy(model_name("digits"), Policy(), by="test")
    status, answer = call("dry_run_policy", {"policy": {}}, model="digits")
    assert (status, answer["error"]["code"]) == (404, "not_found")


def test_what_is_no_policy_or_too_many_rollouts_is_refused(app: Services, call: Call) -> None:
    del app
    for body in ({}, {"policy": {"rollout": {"strategy": "hope"}}}, {"policy": {}, "rollouts": 21}):
        status, answer = call("dry_run_policy", body, model="digits")
        assert (status, answer["error"]["code"]) == (400, "invalid_input"), body


def test_ticks_of_what_is_not_there_are_not_found_and_a_tick_is_a_number(app: Services, call: Call) -> None:
    del app
    assert call("list_rollout_ticks", **TICK)[0] == 404
    assert call("get_rollout_tick", tick="1", **TICK)[0] == 404
    assert call("get_rollout_tick", tick="one", **TICK)[0] == 400


def test_a_replay_is_shown_with_its_flips() -> None:
    world = rolled_out(BASE, Pod(latency_ms={2: 60.0}))
    shown = json.loads(json.dumps(_replay_view(latest(world, FAILING_SLOWLY))))
    assert (shown["version"], shown["ended"], shown["would_end"]) == (2, "promoted", "rolled_back")
    assert (shown["parted_at"], shown["flip_count"], shown["is_judged"]) == (5, 2, True)
    first = shown["flips"][0]
    assert (first["tick"], first["then"], first["now"], first["is_after_parting"]) == (5, "advance", "fail", False)
    assert [v["check"] for v in first["verdicts"] if v["outcome"] == "fail"] == ["p99_ms"]
    rollout = latest(world).rollout
    other = _replay_view(NotJudged(rollout=rollout, why="gone"))
    assert other.keys() == shown.keys()

    lines = [_tick_line(record) for record in dry_runs(world).ticks(ENDPOINT, rollout.rollout_id).items]
    assert [line["event"] for line in json.loads(json.dumps(lines)) if line["event"]] == [
        "loaded",
        "advance",
        "switch",
        "complete",
    ]
