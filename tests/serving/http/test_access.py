"""Bearer tokens: who is let in, and how tokens change while the server runs."""

import os
from pathlib import Path

import pytest
from aks_serving.http.access import Tokens
from aks_serving.http.limits import Limits

from shared.core.errors import InvalidInputError
from tests.serving.http.driven import Driven, request

_ONE = "token-one-0123456789"
_TWO = "token-two-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# callers\n{_ONE}\n\n  {_TWO}  \n")
    return path


def _sent(authorization: str | None, path: str = "/predict", *, body: bytes = b"abc") -> bytes:
    headers = () if authorization is None else (f"Authorization: {authorization}",)
    return request(path, body=body, headers=headers)


@pytest.mark.parametrize("authorization", [f"Bearer {_ONE}", f"Bearer {_TWO}", f"bearer  {_ONE}"])
def test_each_token_of_the_file_is_let_in(file: Path, authorization: str) -> None:
    driven = Driven(tokens=Tokens(file))
    driven.send(_sent(authorization), _sent(authorization))
    assert driven.statuses == [200, 200]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer # callers",
        f"Bearer {_ONE[:-1]}",
        f"Bearer {_ONE}x",
        f"Bearer {_ONE.upper()}",
        f"Bearer {_ONE} {_TWO}",
        f"Bearer {_ONE}, Bearer {_TWO}",
        f"Basic {_ONE}",
        _ONE,
    ],
)
def test_anything_else_is_told_so_before_its_body_is_read(file: Path, authorization: str | None) -> None:
    driven = Driven(tokens=Tokens(file))
    driven.send(_sent(f"Bearer {_ONE}"))
    driven.send(_sent(authorization, body=b"x" * 100)[:-100])
    assert driven.statuses == [200, 401]
    answer = driven.answers[1]
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "bearer token" in answer.json()["error"]
    assert len(driven.seen) == 1
    assert driven.transport.ended


def test_two_authorizations_are_refused(file: Path) -> None:
    driven = Driven(tokens=Tokens(file))
    driven.send(request(headers=(f"Authorization: Bearer {_ONE}", "Authorization: Bearer x")))
    assert driven.statuses == [400]


@pytest.mark.parametrize("path", ["/health", "/ready", "/v2/health/live", "/v2/health/ready"])
def test_health_is_open(file: Path, path: str) -> None:
    driven = Driven(tokens=Tokens(file))
    driven.send(request(path))
    assert driven.statuses == [200]


@pytest.mark.parametrize("path", ["/", "/v2", "/metrics", "/healthy", "/v2/healthy", "/Health", "/predict?/health"])
def test_nothing_else_is_open(file: Path, path: str) -> None:
    driven = Driven(tokens=Tokens(file))
    driven.send(request(path))
    assert driven.statuses == [401]


def test_tokens_change_with_their_file_also_for_those_that_were_let_in_before(file: Path) -> None:
    tokens = Tokens(file)
    assert not tokens.reload()
    new = file.with_name("new")
    new.write_text("token-three-0123456789\n")
    new.replace(file)
    assert tokens.reload()
    assert not tokens.allow(f"Bearer {_ONE}".encode())
    assert tokens.allow(b"Bearer token-three-0123456789")
    assert not tokens.reload()


def test_a_token_file_that_goes_bad_changes_nothing_until_it_is_good(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = Tokens(file)
    for bad in ("", "short\n", None):
        if bad is None:
            file.unlink()
        else:
            file.write_text(bad)
            os.utime(file, ns=(len(bad), len(bad)))
        caplog.clear()
        assert not tokens.reload()
        assert "stay as they were" in caplog.text
        assert tokens.allow(f"Bearer {_ONE}".encode())
    file.write_text(f"{_TWO}\n")
    assert tokens.reload()
    assert not tokens.allow(f"Bearer {_ONE}".encode())


@pytest.mark.parametrize(
    ("text", "reason"),
    [("", "no token"), ("# none\n", "no token"), ("short\n", "shorter than 16"), ("x" * 70_000, "larger than")],
)
def test_a_bad_token_file_is_refused_at_the_start(file: Path, text: str, reason: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=reason):
        Tokens(file)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Tokens(file.parent / "absent")


def test_an_error_about_tokens_holds_none(file: Path) -> None:
    file.write_text("hunter2\n")
    with pytest.raises(InvalidInputError) as caught:
        Tokens(file)
    assert "hunter2" not in str(caught.value)


def test_a_caller_without_a_token_cannot_make_the_server_hold_a_body(file: Path) -> None:
    driven = Driven(tokens=Tokens(file), limits=Limits(max_body_bytes=10))
    driven.send(request(body=b"x" * 100, headers=("Expect: 100-continue",))[:-100])
    assert driven.statuses == [401]
    assert b"100 Continue" not in driven.transport.written
