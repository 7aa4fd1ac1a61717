"""`slipway rollout watch`: what is followed, how it is shown in a terminal, in lines and as JSON, and how it ends."""

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import watch_show
from cli.outcome import CliError, ExitCode
from cli.watch import follow
from shared.core.errors import UnavailableError
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Reverted
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway
from tests.unit.cli.rollout_views import NOW, endpoint_of, seen, view

PATH = "GET /api/endpoints/m/rollouts/rollout-1"
UNFIT = {chr(code) for code in (*range(32), *range(0x7F, 0xA0), 0x202E)} - {"\n", "\t"}
WATCH = ("rollout", "watch", "m", "--every", "0.1")


def seen_in(api: FakeApi, *views: dict[str, Any]) -> None:
    """Have a rollout go through these states, a look each."""
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of())
    api.answers[PATH] = [(200, found) for found in views]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (RolloutState.PROMOTED, 0),
        (RolloutState.CONCLUDED, 0),
        (RolloutState.ROLLED_BACK, 6),
        (RolloutState.ABORTED, 6),
    ],
)
def test_it_ends_by_how_the_rollout_ended(slipway: Slipway, api: FakeApi, state: RolloutState, code: int) -> None:
    seen_in(api, view(), view(state, reason="so it is"))
    ran = slipway(*WATCH)
    assert ran.code == code
    assert ran.out.splitlines()[-1] == f"m, canary: {state}: so it is"


def test_a_version_that_was_promoted_and_taken_back_since_is_shown_so_and_ends_it_with_6(
    slipway: Slipway, api: FakeApi
) -> None:
    back = Reverted(to_version=1, at=NOW, by="ann", reason="it forgets")
    seen_in(api, view(RolloutState.PROMOTED, reason="all gates pass", reverted=back))
    ran = slipway(*WATCH)
    assert (ran.code, ran.out.strip()) == (6, "m, canary: promoted, then taken back for version 1: it forgets")
    endpoint = endpoint_of(RolloutState.PROMOTED, reason="all gates pass", reverted=back)
    api.answers["GET /api/endpoints/m"] = (200, endpoint)
    api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [endpoint["rollout"]]})
    shown = slipway("rollout", "status", "m").out
    assert "promoted, then taken back for version 1" in shown
    assert "taken back by ann: it forgets" in shown
    said = "nothing: it is promoted, and was taken back since for version 1: it forgets"
    assert endpoint["rollout"]["waiting_for"] == said


def test_what_a_pod_says_gives_the_terminal_no_orders(slipway: Slipway, api: FakeApi) -> None:
    evil = "no\x1b[2K\x1b]0;x\x07\x9b1A memory\r\u202e!"
    pods = {"pod\x1b[1m": seen(1, failed={2: evil})}
    state = view(RolloutState.ABORTED, reason=evil, progress={"generation": 4, "pods": pods})
    seen_in(api, state)
    told = r"no\x1b[2K\x1b]0;x\x07\x9b1A memory\x0d\u202e!"
    assert slipway(*WATCH).out == f"m, canary: aborted: {told}\n"
    endpoint = endpoint_of(RolloutState.HELD, reason=evil, progress={"generation": 4, "pods": pods})
    api.answers["GET /api/endpoints/m"] = (200, endpoint)
    api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [endpoint["rollout"]]})
    for words in (("rollout", "status", "m"), ("status", "m")):
        api.answers |= {f"GET /api/models/m/{kind}": (200, {"items": []}) for kind in ("versions", "drops")}
        shown = slipway(*words).out
        assert set(shown) & UNFIT == set(), words
    assert told in slipway("rollout", "status", "m").out
    # A program gets what was said, and its terminal nothing that it would obey.
    ran = slipway("rollout", "status", "m", "--json")
    assert ran.json["endpoint"]["rollout"]["reason"] == evil
    assert set(ran.out) & UNFIT == set()


def test_an_error_gives_the_terminal_no_orders_either(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/endpoints/m"] = (409, {"error": {"code": "conflict", "message": "no\x1b[2J \x9b"}})
    assert slipway(*WATCH).err == "slipway: no\\x1b[2J \\x9b\n"


def test_a_rollout_that_nothing_keeps_for_a_while_is_shown_without_a_time_left(slipway: Slipway, api: FakeApi) -> None:
    first = view(RolloutState.LOADING, stable=None)
    assert first["left_s"] == 0
    seen_in(api, first, view(RolloutState.PROMOTED, reason="it is loaded"))
    api.answers["GET /api/endpoints/m/rollouts"] = (200, {"items": [first], "continuation": None})
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of() | {"rollout": first})
    for told in (slipway(*WATCH).out, slipway("rollout", "status", "m").out):
        assert "waits for the pods" in told
        assert " left" not in told


def test_without_a_terminal_each_thing_that_happens_is_a_line(slipway: Slipway, api: FakeApi) -> None:
    later = view() | {"stage_age_s": 61.0, "stage_left_s": 239.0, "left_s": 1_139.0}
    pods = {"pod-1": seen(1, failed={2: "no memory"})}
    seen_in(
        api,
        view(RolloutState.LOADING),
        view(),
        later,
        view(failed_checks=2, progress={"generation": 4, "pods": pods}),
        view(RolloutState.AWAITING, reason="all gates pass at tick 7"),
        view(RolloutState.AWAITING, reason="all gates pass at tick 8"),
        view(RolloutState.WATCHING, stage=1),
        view(RolloutState.PROMOTED, reason="all gates pass"),
    )
    lines = slipway(*WATCH).out.splitlines()
    assert [line.partition(": waits for ")[0] for line in lines[:-1]] == [
        "m, canary: loading at 0 %",
        "m, canary: progressing at 10 %, stage 1 of 2",
        "m, canary: progressing at 10 %, stage 1 of 2",
        "m, canary: awaiting at 10 %, stage 1 of 2",
        "m, canary: watching at 100 %",
    ]
    assert lines[1].endswith("every gate to pass: 12 of 100 requests seen; at least 19 min left")
    assert "; 2 of 3 failed checks; 1 pods failing;" in lines[2]
    assert lines[-1] == "m, canary: promoted: all gates pass"


def test_as_json_each_look_is_a_line_and_so_is_an_error(slipway: Slipway, api: FakeApi) -> None:
    found = [view(), view(RolloutState.PROMOTED)]
    seen_in(api, *found)
    assert [json.loads(line) for line in slipway(*WATCH, "--json").out.splitlines()] == found
    seen_in(api, view())
    api.answers[PATH].append((404, {"error": {"code": "not_found", "message": "it is gone"}}))
    ran = slipway(*WATCH, "--json")
    assert ran.code == 4
    assert json.loads(ran.out.splitlines()[-1])["error"] == {"code": "not_found", "message": "it is gone"}


def test_the_rollout_that_is_followed_stays_the_one_when_another_begins(slipway: Slipway, api: FakeApi) -> None:
    seen_in(api, view(), view(RolloutState.ABORTED, reason="superseded by the rollout of version 3"))
    assert slipway(*WATCH).code == 6
    assert [asked.path for asked in api.asked] == ["/api/endpoints/m", *[PATH.removeprefix("GET ")] * 2]


def test_without_a_rollout_there_is_nothing_to_follow(slipway: Slipway, api: FakeApi) -> None:
    api.answers["GET /api/endpoints/m"] = (200, endpoint_of() | {"rollout": None})
    ran = slipway(*WATCH)
    assert ran.code == 4
    assert "slipway rollout start m VERSION" in ran.err


class Clock:
    """A clock that sleeping moves."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def looks(*found: Any) -> Callable[[], Any]:
    """A look that finds these one after the other, and raises those that are errors."""
    rest: Iterator[Any] = iter(found)

    def look() -> Any:
        value = next(rest)
        if isinstance(value, Exception):
            raise value
        return value

    return look


AWAY = UnavailableError("the admin API", "nothing answers")
BUSY = CliError("the database is unavailable", ExitCode.NOT_REACHABLE, "unavailable")


def test_an_api_that_does_not_answer_for_a_while_is_waited_for() -> None:
    clock = Clock()
    under_way, over = view(), view(RolloutState.PROMOTED)
    found = follow(looks(under_way, AWAY, BUSY, AWAY, over), every_s=15, sleep=clock.sleep, clock=clock)
    assert list(found) == [under_way, over]
    assert clock.now_s == 60


def test_one_that_does_not_answer_for_a_minute_is_given_up() -> None:
    clock = Clock()
    found = follow(looks(view(), *[AWAY] * 9), every_s=15, sleep=clock.sleep, clock=clock)
    next(found)
    with pytest.raises(UnavailableError):
        next(found)
    assert clock.now_s == 75


def test_what_waiting_does_not_help_with_ends_it_at_once() -> None:
    refused = CliError("the admin API refused the key", ExitCode.FAILED, "refused")
    with pytest.raises(CliError, match="refused the key"):
        list(follow(looks(refused), every_s=1, sleep=lambda _: None))


def test_in_a_terminal_the_stages_are_drawn_in_place(api: FakeApi, tmp_path: Path) -> None:
    seen_in(api, view(), view(), view(RolloutState.ROLLED_BACK, reason="3 failed checks in a row"))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("SLIPWAY_")},
        "SLIPWAY_URL": api.url,
        "SLIPWAY_STATE_DIR": str(tmp_path),
        "TERM": "xterm-256color",
        "COLUMNS": "120",
        "LINES": "40",
    }
    terminal, end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "cli.main", *WATCH], stdout=end, stderr=end, stdin=end, env=environment
    ) as process:
        os.close(end)
        text = _read(terminal)
    assert process.returncode == 6
    for words in ("stage 1 of 2", "####", "needs approval", "12 of 100 requests seen", "3 failed checks in a row"):
        assert words in text, text
    assert "\x1b[1A" in text, "the frames do not stand in place of one another"


class Terminal(io.StringIO):
    """A terminal that keeps what was written to it."""

    def isatty(self) -> bool:
        """It is one."""
        return True


def test_in_a_terminal_a_word_that_is_wider_goes_on_in_the_next_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "60")
    pod, digest = "p" * 63, "0123456789abcdef" * 4
    pods = {pod: seen(1, failed={2: f"its digest is {digest}"})}
    gate = {"check": "model_digest", "outcome": "fail", "sentence": f"the digest is sha256:{digest}, not that"}
    value = view(progress={"generation": 4, "pods": pods}) | {"endpoint": "m" * 63, "verdicts": [gate]}
    out = Terminal()
    watch_show.live([value], out)
    lines = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", out.getvalue()).splitlines()
    assert max(map(len, lines)) == 60
    for words in (f"{pod} cannot", f"is {digest}", f"sha256:{digest},", f"{'m' * 63}, canary"):
        assert words.replace(" ", "") in "".join(lines).replace(" ", ""), "\n".join(lines)


def test_lines_are_told_as_they_come_where_nothing_is_a_terminal() -> None:
    out = io.StringIO()
    lengths = []

    def values() -> Iterator[Any]:
        for found in (view(), view(RolloutState.PAUSED), view(RolloutState.ABORTED)):
            lengths.append(len(out.getvalue().splitlines()))
            yield found

    watch_show.live(values(), out)
    assert lengths == [0, 1, 2]
    assert "paused at 10 %, stage 1 of 2: waits for somebody to resume it" in out.getvalue()


def _read(terminal: int) -> str:
    """What a process wrote to its terminal, until it ended."""
    parts: list[bytes] = []
    while True:
        try:
            part = os.read(terminal, 65_536)
        except OSError:  # Linux ends a terminal whose other side closed with EIO
            part = b""
        if not part:
            os.close(terminal)
            return b"".join(parts).decode()
        parts.append(part)
