"""`slipway policy dry-run`: what is sent, and how the answer reads."""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

PATH = "POST /api/models/m/policy/dry-run"


def replayed(**more: Any) -> dict[str, Any]:
    return {
        "rollout_id": "rollout-000002-abc",
        "version": 2,
        "policy_version": 1,
        "started_at": "2026-11-21T08:00:00+00:00",
        "ended": "promoted",
        "is_judged": True,
        "would_end": "promoted",
        "why": "every tick is decided as it was",
        "parted_at": None,
        "not_judged": [],
        "ticks": 12,
        "flip_count": 0,
        "flips": [],
    } | more


FLIP = {
    "tick": 5,
    "at": "2026-11-21T08:01:00+00:00",
    "state": "progressing",
    "stage": 0,
    "then": "advance",
    "then_why": "all gates pass",
    "now": None,
    "now_why": "failed check 1 of 3: p99 [bold]above",
    "verdicts": [],
    "is_after_parting": False,
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A policy in YAML."""
    path = tmp_path / "policy.yaml"
    path.write_text("rollout:\n  failure_limit: 2\n")
    return str(path)


def test_the_policy_and_how_many_rollouts_are_sent(slipway: Slipway, api: FakeApi, file: str) -> None:
    api.answers[PATH] = (200, {"items": [replayed()], "continuation": None})
    ran = slipway("policy", "dry-run", "m", file, "--last", "3", "--json")
    assert (ran.code, ran.json) == (0, {"rollouts": [replayed()]})
    assert api.asked[-1].body == {"policy": {"rollout": {"failure_limit": 2}}, "rollouts": 3}


def test_the_same_end_says_so_and_nothing_of_what_is_unknown(slipway: Slipway, api: FakeApi, file: str) -> None:
    api.answers[PATH] = (200, {"items": [replayed()], "continuation": None})
    out = slipway("policy", "dry-run", "m", file).out
    assert "the same" in out
    assert "Unknown" not in out


def test_flips_are_listed_with_what_is_not_known(slipway: Slipway, api: FakeApi, file: str) -> None:
    later = FLIP | {"tick": 9, "then": "switch", "now": "fail", "is_after_parting": True}
    one = replayed(would_end=None, parted_at=5, flip_count=2, flips=[FLIP, later], not_judged=["guard"], why="p99 rose")
    api.answers[PATH] = (200, {"items": [one], "continuation": None})
    out = slipway("policy", "dry-run", "m", file).out
    assert "2 of 12 decisions flip" in out
    assert "[bold]above" in out
    for word in (
        "unknown",
        "advance",
        "stay",
        "9 *",
        "traffic that nobody ever saw",
        "Not judged",
        "guard",
        "p99 rose",
    ):
        assert word in out, word


def test_a_rollout_that_is_not_judged_says_why(slipway: Slipway, api: FakeApi, file: str) -> None:
    one = replayed(is_judged=False, would_end=None, why="the record of its tick 3 is gone")
    api.answers[PATH] = (200, {"items": [one], "continuation": None})
    out = slipway("policy", "dry-run", "m", file).out
    assert "not judged" in out
    assert "tick 3 is gone" in out
    assert "Unknown" not in out


def test_without_rollouts_it_says_so(slipway: Slipway, api: FakeApi, file: str) -> None:
    api.answers[PATH] = (200, {"items": [], "continuation": None})
    assert "no rollouts" in slipway("policy", "dry-run", "m", file).out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rollout:\n  a: b: c\n", "holds no policy in YAML: line 2, column 7: mapping values are not allowed here"),
        ("rollout: !!bool maybe\n", "a value is not what its tag says"),
        ("rollout: !!timestamp soon\n", "a value is not what its tag says"),
    ],
)
def test_a_file_that_is_no_yaml_is_told_with_the_place(slipway: Slipway, file: str, text: str, said: str) -> None:
    Path(file).write_text(text)
    ran = slipway("policy", "dry-run", "m", file)
    assert (ran.code, said in ran.err) == (2, True), ran.err
