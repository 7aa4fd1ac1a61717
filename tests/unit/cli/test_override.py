"""`slipway override`: the header that it prints is one that a server takes."""

import time
from pathlib import Path

import pytest

from cli.outcome import ExitCode
from shared.signing.override import read_override, read_override_keys
from tests.unit.cli.conftest import Slipway

KEYS = f"# the new one\n{'ab' * 32}\n{'cd' * 32}\n"


@pytest.fixture
def key(tmp_path: Path) -> str:
    file = tmp_path / "override.key"
    file.write_text(KEYS)
    return str(file)


def test_a_printed_header_lets_its_bearer_name_a_version_for_a_while(bare: Slipway, key: str) -> None:
    before_s = int(time.time())
    ran = bare("override", "churn", "--version", "7", "--for", "1h", "--key", key, "--by", "ann@example.com")
    name, _, value = ran.out.strip().partition(": ")
    assert (ran.code, name) == (ExitCode.OK, "x-slipway-override")
    # The first key of the file signs.
    found = read_override(value, read_override_keys(KEYS)[:1], now_s=before_s)
    assert (found.endpoint, found.version, found.by) == ("churn", 7, "ann@example.com")
    assert before_s + 3_600 <= found.expires_s <= time.time() + 3_600


def test_as_json_it_is_a_header_and_its_value(bare: Slipway, key: str) -> None:
    ran = bare("override", "churn", "--version", "7", "--for", "7d", "--key", key, "--by", "a", "--json").json
    found = read_override(ran["value"], read_override_keys(KEYS), now_s=ran["expires_s"] - 7 * 86_400)
    assert (ran["header"], found.expires_s) == ("x-slipway-override", ran["expires_s"])


@pytest.mark.parametrize("lifetime", ["0h", "8d", "169h", "1", "h", "-1h", "1.5h", "1w", "", "1h1m", "999999d"])
def test_a_time_that_is_none_or_too_long_is_refused(bare: Slipway, key: str, lifetime: str) -> None:
    ran = bare("override", "churn", "--version", "7", f"--for={lifetime}", "--key", key)
    assert (ran.code, "use a time as in 90s" in ran.err) == (ExitCode.USAGE, True)
    assert ran.out == ""


def test_a_key_file_that_cannot_be_used_is_named_and_not_shown(bare: Slipway, tmp_path: Path) -> None:
    arguments = ("override", "churn", "--version", "7", "--for", "1h", "--by", "ann", "--key")
    absent = bare(*arguments, str(tmp_path / "absent"))
    assert (absent.code, "absent cannot be read" in absent.err) == (ExitCode.USAGE, True)
    (tmp_path / "short").write_text("secret" * 4)
    short = bare(*arguments, str(tmp_path / "short"))
    assert (short.code, "openssl rand -hex 32" in short.err, "secret" in short.err) == (ExitCode.USAGE, True, False)
    (tmp_path / "binary").write_bytes(b"\xff" * 40)
    assert "binary is no key file" in bare(*arguments, str(tmp_path / "binary")).err


def test_a_name_that_no_header_can_say_is_refused(bare: Slipway, key: str) -> None:
    for model, by in (("Not A Model", "ann"), ("churn", "ann lee")):
        ran = bare("override", model, "--version", "7", "--for", "1h", "--key", key, "--by", by)
        assert ran.code == ExitCode.USAGE
