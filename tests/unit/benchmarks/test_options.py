"""What the benchmark is told on its command line."""

import pytest

from benchmarks.serving.__main__ import parsed
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.experiment import FULL, SHORT
from benchmarks.serving.rounds import Length


def test_by_default_it_is_the_short_form() -> None:
    plan, command = parsed([])[1:]
    assert (plan, command) == (SHORT, "python -m benchmarks.serving")


def test_the_full_form_has_every_peer() -> None:
    plan, command = parsed(["--full"])[1:]
    assert (plan, command) == (FULL, "python -m benchmarks.serving --full")
    assert plan.peers == tuple(peer.name for peer in PEERS)


def test_rounds_seconds_and_peers_can_be_chosen_and_the_command_says_so() -> None:
    plan, command = parsed(["--full", "--rounds", "5", "--seconds", "1", "--peers", "kserve, fastapi,kserve"])[1:]
    assert plan.length == Length(rounds=5, measured_s=1)
    assert plan.peers == ("kserve", "fastapi")
    assert plan.open_s == FULL.open_s
    assert command == "python -m benchmarks.serving --full --rounds 5 --seconds 1 --peers kserve,fastapi"


def test_no_peers_may_be_wanted() -> None:
    assert parsed(["--peers", ""])[1].peers == ()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--rounds", "0"], "not from 1 to"), (["--seconds", "x"], "invalid"), (["--peers", "triton"], "is no peer")],
)
def test_what_cannot_be_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(arguments)
    assert said in capsys.readouterr().err


def test_no_peer_has_more_variants_than_the_full_form_has_time_for() -> None:
    assert all(1 <= len(peer.variants) <= 3 for peer in PEERS)
