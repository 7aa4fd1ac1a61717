"""What the commands on alerts ask of the admin API, and what they tell."""

import getpass
from typing import Any

import pytest

from cli.outcome import ExitCode
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

ALERT: dict[str, Any] = {
    "alert_id": "alert-1",
    "rule": "artifact_altered",
    "model": "m",
    "subject": "version:m:1",
    "state": "firing",
    "severity": "critical",
    "sentence": "version 1 of m cannot be relied on",
    "evidence": {"part": "model"},
    "since": "2026-01-02T03:04:05Z",
    "changed_at": "2026-01-02T03:04:05Z",
    "count": 1,
    "acknowledged": None,
    "silenced_by": None,
}
SILENCE: dict[str, Any] = {
    "silence_id": "silence-1",
    "match": {"rule": "slow", "model": "m", "subject": ""},
    "by": "ann",
    "reason": "at work",
    "since": "2026-01-02T03:04:05Z",
    "until": "2026-01-02T05:04:05Z",
    "is_over": False,
}


def page(*items: Any) -> tuple[int, Any]:
    return (200, {"items": list(items), "continuation": None})


def test_alerts_that_fire_are_listed_by_default_and_all_with_all(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/alerts?state=firing"] = page(ALERT)
    api.answers["GET /api/alerts"] = page()
    for words in (("alerts",), ("alerts", "list")):
        out = slipway(*words).out
        assert "version 1 of m cannot be relied on" in out
        assert "alert-1" in out
    assert slipway("alerts", "--all").out == "There are no such alerts.\n"
    assert slipway("alerts", "--json").json == {"alerts": [ALERT]}
    assert "silence" in slipway("alerts", "--help").out


def test_one_is_acknowledged_by_who_is_logged_in_or_by_who_is_named(slipway: Slipway, api: FakeApi) -> None:
    seen = ALERT | {"acknowledged": {"by": "ann", "at": "2026-01-02T03:04:05Z", "reason": ""}}
    api.answers["POST /api/alerts/alert-1/acknowledge"] = (200, seen)
    ran = slipway("alerts", "acknowledge", "alert-1", "--by", "ann", "--reason", "looking")
    assert "alert-1: artifact_altered of version:m:1 is firing, acknowledged by ann (critical)" in ran.out
    slipway("alerts", "acknowledge", "alert-1")
    first, second = (asked.body for asked in api.asked)
    assert (first["by"], first["reason"], second["by"]) == ("ann", "looking", getpass.getuser())
    assert first["command_id"] != second["command_id"]


def test_one_is_shown_with_its_evidence(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/alerts/alert-1"] = (200, ALERT | {"silenced_by": "silence-1"})
    out = slipway("alerts", "show", "alert-1").out
    assert "is firing, silenced (critical)" in out
    assert 'evidence: {"part": "model"}' in out
    assert slipway("alerts", "show", "alert-2").code == ExitCode.NOT_FOUND


def test_alerts_are_silenced_for_a_while_listed_and_told_again(slipway: Slipway, api: FakeApi) -> None:
    api.answers["POST /api/silences"] = (200, SILENCE)
    api.answers["GET /api/silences"] = page(SILENCE)
    api.answers["POST /api/silences/silence-1/expire"] = (200, SILENCE | {"is_over": True})
    made = slipway("alerts", "silence", "--rule", "slow", "--model", "m", "--for", "2h", "--reason", "at work")
    assert "rule slow, model m" in made.out
    body = api.asked[0].body
    assert (body["rule"], body["model"], body["subject"], body["for_s"]) == ("slow", "m", "", 7_200)
    assert slipway("alerts", "silences", "--json").json == {"silences": [SILENCE]}
    assert "(expired)" in slipway("alerts", "expire-silence", "silence-1").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rule", "slow", "--for", "2 hours"), "'2 hours' is no span of time: use a number and m, h or d"),
        (("--for", "2h"), "nothing says which alerts: give --rule, --model or --subject"),
    ],
)
def test_a_silence_that_says_too_little_is_refused(
    slipway: Slipway, api: FakeApi, arguments: tuple[str, ...], said: str
) -> None:
    ran = slipway("alerts", "silence", "--reason", "r", *arguments)
    assert ran.code == ExitCode.USAGE
    assert said in ran.err
    assert api.asked == []


def test_what_the_api_cannot_read_is_told_beside_what_it_can(slipway: Slipway, api: FakeApi) -> None:
    unreadable = [{"document": "alert-2 of m\x1b[31m", "problem": "news: Input should be a valid integer"}]
    listed = {"items": [ALERT], "continuation": None, "unreadable": unreadable}
    api.answers["GET /api/alerts?state=firing"] = (200, listed)
    ran = slipway("alerts", "--json")
    assert (ran.code, ran.json) == (0, {"alerts": [ALERT]})
    said = "slipway: left out, for it cannot be read: alert-2 of m"
    assert ran.err.startswith(said)
    assert ran.err.endswith(" (news: Input should be a valid integer)\n")
    assert "\x1b" not in ran.err
