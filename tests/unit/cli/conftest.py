"""Fixtures of the command line's tests: a fake API, and the command run in this process against it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.bearer import AUDIENCE_VARIABLE, COMMAND_VARIABLE, TOKEN_VARIABLE
from cli.main import run
from tests.unit.cli.api import FakeApi, fake_api


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output, which must be one JSON value."""
        return json.loads(self.out)


type Slipway = Callable[..., Ran]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    """A fake API on a free port."""
    with fake_api() as api:
        yield api


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Slipway:
    """Run a command line that finds no system and no settings."""
    signing_in = (TOKEN_VARIABLE, COMMAND_VARIABLE, AUDIENCE_VARIABLE)
    for name in ("SLIPWAY_URL", "SLIPWAY_SERVER_URL", "SLIPWAY_KEY", "SLIPWAY_STORAGE", *signing_in):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLIPWAY_STATE_DIR", str(tmp_path / "no-state"))
    monkeypatch.setenv("COLUMNS", "200")

    def slipway(*arguments: str) -> Ran:
        code = run(arguments)
        captured = capsys.readouterr()
        return Ran(code=code, out=captured.out, err=captured.err)

    return slipway


@pytest.fixture
def slipway(bare: Slipway, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> Slipway:
    """Run a command line against the fake API."""
    monkeypatch.setenv("SLIPWAY_URL", api.url)
    monkeypatch.setenv("SLIPWAY_SERVER_URL", api.url)
    monkeypatch.setenv("SLIPWAY_KEY", "secret")
    return bare
