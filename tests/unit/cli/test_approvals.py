"""What the command for approval links asks of the admin API, and what it tells."""

from typing import Any

from cli.outcome import ExitCode
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

MADE: dict[str, Any] = {
    "endpoint": "m",
    "rollout_id": "rollout-000002-0123456789ab",
    "stage": 1,
    "approver": "Cid",
    "expires_at": "2026-11-22T08:00:00Z",
    "link_id": "0123",
    "path": "/api/approvals/abc.def",
    "url": "http://elsewhere/api/approvals/abc.def",
}


def test_a_link_is_asked_for_and_shown_under_the_apps_address(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/endpoints/m"] = (200, {"rollout": {"rollout_id": MADE["rollout_id"]}})
    api.answers[f"POST /api/endpoints/m/rollouts/{MADE['rollout_id']}/approval-links"] = (200, MADE)
    ran = slipway("approval-link", "m", "--approver", "Cid", "--by", "ops")
    assert ran.code == 0
    link, until = ran.out.splitlines()
    assert link.endswith("/api/approvals/abc.def")
    assert not link.startswith("http://elsewhere")
    assert until == "good for Cid until 2026-11-22T08:00:00Z, once"
    assert api.asked[-1].body == {"approver": "Cid", "by": "ops"}
    assert slipway("approval-link", "m", "--approver", "Cid", "--json").json == MADE | {"url": link}


def test_without_a_rollout_there_is_nothing_to_approve(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/endpoints/m"] = (200, {"rollout": None})
    ran = slipway("approval-link", "m", "--approver", "Cid")
    assert ran.code == ExitCode.CONFLICT
    assert "endpoint m has no rollout: start one with `slipway rollout start m VERSION`" in ran.err
