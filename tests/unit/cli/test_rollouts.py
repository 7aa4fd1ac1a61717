"""The commands to a rollout: what each asks of the admin API, and how rollouts, rollbacks and quarantine are told."""

from typing import Any

import pytest

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import RolloutPolicy, Strategy
from shared.rollout.machine import RolloutState
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway
from tests.unit.cli.rollout_views import NOW, STAGES, endpoint_of, seen, view

ROLLOUT = "/api/endpoints/m/rollouts/rollout-1"


@pytest.mark.parametrize(
    ("given", "path", "sent"),
    [
        (["promote", "m", "--by", "bob", "--override", "--reason", "r"], "promote", {"by": "bob", "override": True}),
        (["pause", "m", "--reason", "r"], "pause", {}),
        (["resume", "m", "--by", "bob", "--reason", "r"], "resume", {"by": "bob"}),
        (["skip", "m", "--by", "bob", "--reason", "r"], "skip", {"by": "bob"}),
        (["set-weight", "m", "12.5", "--by", "bob", "--reason", "r"], "set-weight", {"by": "bob", "weight_bp": 1_250}),
        (["set-weight", "m", "0.29", "--by", "bob", "--reason", "r"], "set-weight", {"by": "bob", "weight_bp": 29}),
        (["approve", "m", "--by", "bob", "--stage", "2", "--reason", "r"], "approve", {"by": "bob", "stage": 1}),
        (["reject", "m", "--by", "bob", "--reason", "r"], "reject", {"by": "bob"}),
        (["abort", "m", "--reason", "r"], "abort", {}),
    ],
)
def test_each_command_goes_to_the_active_rollout_under_one_id(
    slipway: Slipway, api: FakeApi, given: list[str], path: str, sent: dict[str, Any]
) -> None:
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of())
    api.answers[f"POST {ROLLOUT}/{path}"] = [None, (200, view())]
    assert slipway("rollout", *given).code == 0
    first, second = (asked.body for asked in api.asked if asked.method == "POST")
    assert first == second
    assert len(first.pop("command_id")) == 36
    assert first == {"reason": "r"} | sent


@pytest.mark.parametrize(
    "given",
    [
        ["promote", "m"],
        ["skip", "m"],
        ["approve", "m"],
        ["reject", "m"],
        ["rollback", "m"],
        ["promote", "m", "--by", "bob", "--override"],
        ["set-weight", "m", "20"],
        ["set-weight", "m", "101", "--by", "bob"],
        ["set-weight", "m", "0.005", "--by", "bob"],
        ["approve", "m", "--by", "bob", "--stage", "0"],
    ],
)
def test_what_a_command_lacks_is_told_before_anything_is_asked(
    slipway: Slipway, api: FakeApi, given: list[str]
) -> None:
    assert slipway("rollout", *given).code == 2
    assert api.asked == []


def test_a_rollback_goes_to_the_endpoint_whatever_is_under_way(slipway: Slipway, api: FakeApi) -> None:
    held = {"version": 2, "reason": "it fails", "at": "2026-01-02T03:04:05Z", "rollout_id": "rollout-1"}
    back = endpoint_of(RolloutState.ROLLED_BACK) | {"rollback": ROLLBACK, "quarantined": [held]}
    api.answers["POST /api/endpoints/m/rollback"] = [(200, back), (200, back | {"rollback": None, "stable": None})]
    given = ("rollout", "rollback", "m", "--by", "bob", "--to", "1", "--reason", "it fails")
    ran = slipway(*given)
    assert ran.out.startswith("version 2 is taken back, as soon as the pods apply it; version 1 serves\n")
    assert ran.out.splitlines()[-1].endswith("it fails")
    assert (api.asked[0].body["by"], api.asked[0].body["version"]) == ("bob", 1)
    assert slipway(*given).out.startswith("it is taken back, and no pod sends it traffic any more; nothing serves\n")


def test_a_start_that_waits_says_so(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/endpoints/m/rollouts"] = (202, endpoint_of() | {"queued_version": 3})
    ran = slipway("rollout", "start", "m", "3", "--by", "ann", "--shadow", "4", "--shadow", "5")
    assert ran.out == "version 3 waits for the end of the rollout that is under way\n"
    assert api.asked[0].body["shadows"] == [4, 5]


def test_a_rollout_is_shown_with_its_stages_gates_pods_and_the_time_left(slipway: Slipway, api: FakeApi) -> None:
    failing = Verdict(
        check="slow_rate",
        outcome=Outcome.FAIL,
        sentence="slower [b]by far[/b]",
        n=512,
        value=0.0312,
        limit=0.01,
        interval=(0.0211, 0.0433),
    )
    pods = {"pod-1": seen(1, 2), "pod-2": seen(1, failed={2: "no memory"}), "pod-3": seen(1, 2)}
    value = view(verdicts=[failing], failed_checks=1, progress={"generation": 4, "pods": pods})
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of() | {"rollout": value})
    api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [value], "continuation": None})
    shown = slipway("rollout", "status", "m").out
    for words in (
        "rollout of version 2 on m, canary: progressing at 10 %, stage 1 of 2",
        "####................ 60 s",
        "50 %",
        "needs approval",
        "waits for every gate to pass: slower",
        "pods: 2 of 3 ready, 1 failing, 0 silent",
        "pod-2 cannot load it: no memory",
        "failed checks without a pass between: 1 of 3",
        "at least 19 min left",
        "0.0211 to 0.0433",
        "[b]by far[/b]",
    ):
        assert words in shown, words


@pytest.mark.parametrize(("watch_s", "name"), [(60, "watch"), (0, "switch")])
def test_a_switch_that_needs_an_approval_says_so_until_it_has_it(
    slipway: Slipway, api: FakeApi, watch_s: int, name: str
) -> None:
    policy = RolloutPolicy(stages=STAGES, switch_approval=True, watch_s=watch_s)
    for approvals, said in (([], "needs approval"), ([{"stage": 2, "by": "bob", "at": NOW}], "approved by bob")):
        value = view(policy=policy, approvals=approvals)
        api.answers["GET /api/endpoints/m"] = (200, endpoint_of() | {"rollout": value})
        api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [value], "continuation": None})
        lines = slipway("rollout", "status", "m").out.splitlines()
        assert any(name in line and said in line for line in lines), lines


def test_what_has_passed_is_marked_and_a_share_that_was_set_is_told(slipway: Slipway, api: FakeApi) -> None:
    approved = [{"stage": 1, "by": "bob", "at": NOW}]
    value = view(stage=1, set_weight_bp=2_000, approvals=approved, policy=RolloutPolicy(stages=STAGES))
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of() | {"rollout": value})
    api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [value], "continuation": None})
    lines = slipway("rollout", "status", "m").out.splitlines()
    assert any(line.startswith("done") and "10 %" in line for line in lines)
    assert any(line.startswith("now") and "20 %, set from 50 %" in line for line in lines)


def test_a_shadow_shows_what_it_mirrors(slipway: Slipway, api: FakeApi) -> None:
    policy = RolloutPolicy(strategy=Strategy.SHADOW, mirror_bp=2_500)
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of(policy=policy))
    api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [], "continuation": None})
    api.answers[f"POST {ROLLOUT}/pause"] = (200, view(policy=policy))
    assert "progressing at 0 %, 25 % mirrored, stage 1 of 1" in slipway("rollout", "pause", "m").out


def test_the_steps_of_a_rollout_are_told_in_their_order(slipway: Slipway, api: FakeApi) -> None:
    started = {"rollout_id": "rollout-1", "version": 2, "requested_by": "ann", "reason": "[i]new[/i]"}
    failed = {"rollout_id": "rollout-1", "failed_checks": 1, "verdicts": [{"outcome": "fail", "sentence": "too slow"}]}
    weight = {"rollout_id": "rollout-0", "version": 1, "stage": 0, "weight_bp": 2_500, "by": "", "reason": "set"}
    events = [
        {"at": "2026-01-02T03:04:05Z", "kind": kind, "data": data, "seq": seq, "stream": "endpoint:m"}
        for seq, (kind, data) in enumerate(
            [("weight_set", weight), ("rollout_started", started), ("check_failed", failed)]
        )
    ]
    api.answers["GET /api/audit/events?stream=endpoint%3Am"] = (200, {"items": events, "continuation": None})
    api.answers[f"GET {ROLLOUT}"] = (200, view())
    shown = slipway("rollout", "history", "m").out
    assert [line.split()[2] for line in shown.splitlines()[1:]] == ["weight_set", "rollout_started", "check_failed"]
    for words in ("25 %", "ann", "[i]new[/i]", "too slow", "slipway"):
        assert words in shown
    assert slipway("rollout", "history", "m", "rollout-1", "--json").json["events"] == events[1:]
    assert slipway("rollout", "history", "m", "rollout-7").code == 4


ROLLBACK = {
    "rollback_id": "rollback-000004",
    "rollout_id": "rollout-1",
    "trigger": "latency",
    "from_version": 2,
    "to_version": 1,
    "generation": 4,
    "fault_at": "2026-01-02T03:04:00Z",
    "detected_at": "2026-01-02T03:04:05Z",
    "zero_traffic_at": "2026-01-02T03:04:07.500000Z",
    "by": "slipway",
    "reason": "p99 is 900 ms",
}


def test_rollbacks_are_listed_with_how_long_they_took(slipway: Slipway, api: FakeApi) -> None:
    found = [ROLLBACK, ROLLBACK | {"zero_traffic_at": None, "to_version": None}]
    api.answers["GET /api/endpoints/m/rollbacks"] = (200, {"items": found, "continuation": None})
    assert slipway("rollbacks", "m", "--json").json == {"rollbacks": found}
    first, second = slipway("rollbacks", "m").out.splitlines()[1:]
    assert "2.5 s" in first
    assert "p99 is 900 ms" in first
    assert "not confirmed" in second
    api.answers["GET /api/endpoints/m/rollbacks"] = (200, {"items": [], "continuation": None})
    assert slipway("rollbacks", "m").out == "Nothing was taken back yet.\n"


def test_the_report_tells_counts_and_times_of_one_or_of_all(slipway: Slipway, api: FakeApi) -> None:
    report = {
        "since": None,
        "until": None,
        "rollbacks": 4,
        "by_trigger": {"latency": 3, "manual": 1, "memory": 0},
        "automatic": 3,
        "confirmed": 3,
        "success_share": 0.75,
        "from_fault": {"n": 3, "mean_s": 12.0, "p95_s": 300.0},
        "from_detection": {"n": 3, "mean_s": 2.25, "p95_s": 4.5},
    }
    api.answers["GET /api/rollbacks/report"] = (200, report)
    shown = slipway("rollbacks", "--report").out
    assert "4 rollbacks, 3 of them by Slipway itself; 75 % confirmed by the pods" in shown
    assert "to zero traffic from the fault: mean 12 s, p95 5 min, of 3" in shown
    assert "to zero traffic from its detection: mean 2.2 s, p95 4.5 s, of 3" in shown
    assert "memory" not in shown
    api.answers["GET /api/rollbacks/report?endpoint=m"] = (200, report | {"rollbacks": 0})
    assert slipway("rollbacks", "m", "--report").out == "Nothing was taken back in that time.\n"
    assert slipway("rollbacks", "--report", "--days", "7").code == 4
    assert api.asked[-1].path.startswith("/api/rollbacks/report?since=20")
    assert slipway("rollbacks").code == slipway("rollbacks", "m", "--days", "7").code == 2


def test_quarantine_is_listed_and_cleared_by_a_named_person(slipway: Slipway, api: FakeApi) -> None:
    held = {"version": 2, "reason": "errors", "at": "2026-01-02T03:04:05Z", "rollout_id": None}
    api.answers["GET /api/endpoints/m/quarantine"] = (200, {"items": [held], "continuation": None})
    assert "errors" in slipway("quarantine", "list", "m").out
    api.answers["POST /api/endpoints/m/quarantine/2/clear"] = (200, {"items": [], "continuation": None})
    ran = slipway("quarantine", "clear", "m", "2", "--by", "bob", "--reason", "the network was down")
    assert ran.out == "No version is in quarantine.\n"
    assert api.asked[-1].body == {"by": "bob", "reason": "the network was down"}
    for without in (["--by", "bob"], ["--reason", "fit"]):
        assert slipway("quarantine", "clear", "m", "2", *without).code == 2
