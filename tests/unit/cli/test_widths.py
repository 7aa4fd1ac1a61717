"""However narrow the terminal: no id, time or number is broken or cut, and of what people say nothing is lost."""

import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len

from cli import alerts_show, drift_show, explain_show, replay_show, rollbacks_show, show, shown, upkeep_show, watch_show
from shared.alerts.documents import AlertRule
from shared.rollout.documents import rollout_id_of
from tests.unit.cli.rollout_views import endpoint_of, view
from tests.unit.cli.test_alerts import ALERT, SILENCE
from tests.unit.cli.test_drift import REPORT, REPORT_ID, REQUEST
from tests.unit.cli.test_explain import LINEAGE
from tests.unit.cli.test_policy_dry_run import FLIP, replayed
from tests.unit.cli.test_upkeep import LETTER, PLAN

NAME = "m" * 63
VERSION = 999_999_999
"""The longest name and the highest version that there can be."""
ROLLOUT = rollout_id_of("start", VERSION)
RULE = max(AlertRule, key=len)
HEX = "0123456789abcdef" * 4
TIME = "2026-01-02 03:04:05"
WHY = "every gate passes, nobody is against it, and the freeze ended before the night that it was set for"
LATEST = view(rollout_id=ROLLOUT, reason=WHY) | {"endpoint": NAME}
PAST = view(rollout_id=ROLLOUT, reason=WHY) | {
    "endpoint": NAME,
    "version": VERSION,
    "stable": VERSION - 1,
    "state": "rolled_back",
    "started_at": "2026-01-02T03:04:05Z",
    "ended_at": "2026-01-02T03:04:06Z",
}
GATE = {
    "check": "prediction_distribution",
    "outcome": "inconclusive",
    "value": 0.012345,
    "interval": [0.001234, 0.234567],
    "limit": 0.0125,
    "n": VERSION,
    "sentence": WHY,
}
STEP = {"version": VERSION, "stage": 0, "weight_bp": 3_333, "by": f"{'a' * 30}@example.com", "reason": WHY}
ROLLBACK = {
    "detected_at": "2026-01-02T03:04:05Z",
    "trigger": "prediction_distribution",
    "from_version": VERSION,
    "to_version": VERSION - 1,
    "by": "ann@example.com",
    "zero_traffic_at": "2026-01-02T03:04:06Z",
    "reason": WHY,
}
HELD = {"version": VERSION, "at": "2026-01-02T03:04:05Z", "rollout_id": ROLLOUT, "reason": WHY}
EVENT = {"seq": 123_456, "at": "2026-01-02T03:04:05Z", "kind": "registered", "data": {"digest": HEX, "why": WHY}}
MOVED = {"sequence": VERSION, "version": VERSION, "at": "2026-01-02T03:04:05Z", "by": "ann", "reason": WHY}
DROP = {"blob": f"{NAME}/{HEX[:16]}-model.onnx", "seen_at": "2026-01-02T03:04:05Z", "reason": WHY}

SHOWN: dict[str, tuple[Callable[[], object], tuple[str, ...]]] = {
    "rollouts": (
        lambda: shown.print_one(
            show.rollouts({"endpoint": endpoint_of() | {"rollout": LATEST}, "rollouts": [PAST, PAST]})
        ),
        (ROLLOUT, str(VERSION), str(VERSION - 1), "rolled_back", TIME, "2026-01-02 03:04:06", NAME),
    ),
    "a rollout's gates": (
        lambda: shown.print_one(watch_show.rollout(PAST | {"verdicts": [GATE]})),
        ("prediction_distribution", "0.001234 to 0.2346", "0.01235", "0.0125", str(VERSION), NAME),
    ),
    "a rollout's history": (
        lambda: watch_show.history([{"at": "2026-01-02T03:04:05Z", "kind": "rollout_overridden", "data": STEP}]),
        (TIME, "rollout_overridden", str(VERSION), "33.33 %"),
    ),
    "rollbacks": (
        lambda: rollbacks_show.rollbacks([ROLLBACK]),
        (TIME, "prediction_distribution", str(VERSION), str(VERSION - 1), "1.0 s"),
    ),
    "quarantine": (lambda: rollbacks_show.quarantined([HELD]), (TIME, ROLLOUT, str(VERSION))),
    "alerts": (
        lambda: alerts_show.alerts(
            [ALERT | {"rule": RULE, "subject": f"version:{NAME}", "alert_id": f"alert-{HEX[:32]}", "sentence": WHY}]
        ),
        (RULE, f"version:{NAME}", f"alert-{HEX[:32]}", TIME, "firing", "critical"),
    ),
    "silences": (
        lambda: alerts_show.silences([SILENCE | {"silence_id": f"silence-{HEX[:32]}", "reason": WHY}]),
        (f"silence-{HEX[:32]}", TIME, "2026-01-02 05:04:05"),
    ),
    "dead letters": (
        lambda: upkeep_show.letters([LETTER | {"letter_id": f"letter-{HEX[:32]}", "reason": WHY}]),
        (f"letter-{HEX[:32]}", "2026-01-02 03:05:05", "validations"),
    ),
    "a plan of retention": (
        lambda: upkeep_show.retention_plan(
            PLAN | {"delete": [PLAN["delete"][0] | {"name": f"sha256/{HEX}", "reason": WHY}]}  # type: ignore[index]
        ),
        (f"artifacts/sha256/{HEX}", "5 kB"),
    ),
    "drift": (
        lambda: drift_show.drift(
            {
                "reports": [REPORT | {"findings": [{"against": "reference", "outcome": "fail", "sentence": WHY}]}],
                "retraining": [REQUEST | {"request_id": f"retraining-{HEX[:32]}", "sentence": WHY}],
            },
            root="http://127.0.0.1",
        ),
        (REPORT_ID, f"retraining-{HEX[:32]}", "2026-11-21 09:00:00", "2026-11-20 09:00:00", "1e-09"),
    ),
    "lineage": (lambda: explain_show.lineage(LINEAGE), ("2" * 64, "3" * 64, "6" * 64, "7" * 64)),
    "an audit": (lambda: show.events([EVENT]), ("123456", TIME, "registered", HEX)),
    "aliases": (lambda: show.alias_moves([MOVED]), (str(VERSION), TIME)),
    "drops": (
        lambda: shown.print_one(
            show.status({"models": [], "refused_drops": [DROP]}),
        ),
        (DROP["blob"], TIME),
    ),
    "a dry-run": (
        lambda: replay_show.replays(
            [replayed(rollout_id=ROLLOUT, version=VERSION, why=WHY, flips=[FLIP], flip_count=1)]
        ),
        (ROLLOUT, str(VERSION), "2026-11-21 08:01:00"),
    ),
}


@pytest.mark.parametrize("columns", [60, 80, 100])
@pytest.mark.parametrize("what", SHOWN)
def test_ids_times_and_numbers_stay_whole(
    what: str, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    print_it, whole = SHOWN[what]
    print_it()
    out = capsys.readouterr().out
    # Whole means a word of its own, or more: a line's end, a space or a mark stands beside it.
    lost = [one for one in whole if not re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", out)]
    assert not lost, out
    if WHY.partition(" ")[0] in out:
        assert all(word in out for word in WHY.split()), out


def test_what_people_say_is_wrapped_within_its_column(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    table = shown.Table("version", "reason")
    table.add_row("1", f"{WHY} since {TIME}, at 12.5 %, {'x' * 40}")
    shown.print_one(table)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    assert {line[:9] for line in lines[2:]} == {" " * 9}


@pytest.mark.parametrize("said", ["a path\\", "[bold]loud[/bold]", ":smile:", "[/]", "\\[x]"])
def test_what_people_say_is_shown_as_they_said_it(said: str, capsys: pytest.CaptureFixture[str]) -> None:
    table = shown.Table("id", "reason")
    table.add_row("r-1", said)
    shown.print_one(table)
    assert capsys.readouterr().out.splitlines()[1] == f"r-1  {said}"


def test_text_without_spaces_between_its_words_is_wrapped_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    table = shown.Table("id", "reason")
    table.add_row("r-1", "取り下げの理由" * 8)
    shown.print_one(table)
    _, first, *more = capsys.readouterr().out.splitlines()
    assert first.startswith("r-1  取")
    assert {line[:5] for line in more} == {" " * 5}
    assert all(cell_len(line) <= 40 for line in (first, *more))


def test_a_mark_stays_with_its_figure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "37")
    table = shown.Table("gate", "what was found")
    table.add_row("slow_rate", f"answers slower than 200 ms: {'0 of 0 of them ' * 4}")
    shown.print_one(table)
    assert [line for line in capsys.readouterr().out.splitlines() if line.strip().startswith(":")] == []


def test_a_table_has_a_line_for_each_row_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = shown.Table("rollout", "started", "n", "reason", title="m")
    for number in (1, 2):
        table.add_row(f"rollout-{number}", TIME, "-", "all is well, :smile:")
    for columns, lines in (
        (
            80,
            [
                "m",
                "rollout    started              n  reason",
                f"rollout-1  {TIME}  -  all is well, :smile:",
                f"rollout-2  {TIME}  -  all is well, :smile:",
            ],
        ),
        (
            45,
            [
                "m",
                "rollout  rollout-1",
                f"started  {TIME}",
                "reason   all is well, :smile:",
                "",
                "rollout  rollout-2",
                f"started  {TIME}",
                "reason   all is well, :smile:",
            ],
        ),
    ):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown.print_one(table)
        assert capsys.readouterr().out.splitlines() == lines
