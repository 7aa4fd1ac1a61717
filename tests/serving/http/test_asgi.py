"""The API behind ASGI, spoken to as a server that carries it speaks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aks_serving.asgi import AsgiApp
from aks_serving.exchange import Exchange
from aks_serving.http.access import Tokens

from tests.serving.http.driven import told

pytestmark = pytest.mark.anyio

_TOKEN = b"token-one-0123456789"


@pytest.fixture
def tokens(tmp_path: Path) -> Tokens:
    file = tmp_path / "tokens"
    file.write_bytes(_TOKEN + b"\n")
    return Tokens(file)


class _Server:
    """The carrying server's side of one request: gives the body in parts, keeps the answer."""

    def __init__(self, *parts: bytes, path: str = "/predict", headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        self.scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        self.read = 0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self._parts = parts

    async def ask(self, tokens: Tokens | None = None, handle: Callable[[Exchange], None] | None = None) -> int:
        """Have the application answer; the status."""
        await AsgiApp(handle or _at_once, max_body_bytes=10, tokens=tokens)(self.scope, self._receive, self._send)
        return self.status

    async def _receive(self) -> dict[str, Any]:
        self.read += 1
        return {"type": "http.request", "body": self._parts[self.read - 1], "more_body": self.read < len(self._parts)}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        else:
            self.body += message["body"]


def _at_once(exchange: Exchange) -> None:
    exchange.reply(told(exchange))


async def test_tokens_are_asked_for_before_the_body_is_read(tokens: Tokens) -> None:
    stranger = _Server(b"abc")
    assert (await stranger.ask(tokens), stranger.read) == (401, 0)
    assert stranger.headers[b"www-authenticate"] == b"Bearer"
    assert await _Server(b"abc", path="/health").ask(tokens) == 200
    assert await _Server(b"abc", headers=((b"authorization", b"Bearer " + _TOKEN),)).ask(tokens) == 200
    assert await _Server(b"abc").ask(None) == 200


@pytest.mark.parametrize("length", [b"11", b"9" * 30, b"9" * 5_000])
async def test_a_body_that_says_it_is_too_large_is_not_read(length: bytes) -> None:
    server = _Server(b"abc", headers=((b"content-length", length),))
    assert (await server.ask(), server.read) == (413, 0)
    assert server.headers[b"connection"] == b"close"


async def test_a_body_that_turns_out_too_large_is_read_no_further() -> None:
    server = _Server(*[b"x" * 6] * 100)
    assert (await server.ask(), server.read) == (413, 2)


@pytest.mark.parametrize("path", ["/a\ufffd", "/a\x00", "/a\nb", "/a\x7f"])
async def test_a_path_that_is_not_text_is_refused(path: str) -> None:
    assert await _Server(b"", path=path).ask() == 400


async def test_a_handler_that_raises_is_logged_and_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    def handle(_: Exchange) -> None:
        raise KeyError("secret")

    server = _Server(b"")
    assert await server.ask(handle=handle) == 500
    assert b"secret" not in server.body
    assert "secret" in caplog.text
