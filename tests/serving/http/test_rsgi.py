"""The API behind RSGI, spoken to as Granian speaks (2.8: what its requests look like was taken from it)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aks_serving.exchange import OK, Exchange, Response
from aks_serving.http.access import Tokens
from aks_serving.http.rsgi import RsgiApp

from tests.serving.http.driven import told

pytestmark = pytest.mark.anyio

_PAIRS = (("host", "localhost"), ("x-a", "1"), ("x-a", "2"))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Headers:
    pairs: tuple[tuple[str, str], ...]

    def items(self) -> list[tuple[str, str]]:
        return list(self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
    proto: str = "http"
    http_version: str = "1.1"
    method: str = "POST"
    path: str = "/a b/\u00e9"
    query_string: str = "q=%20"
    headers: _Headers = _Headers(pairs=_PAIRS)


@dataclass(slots=True, kw_only=True)
class _Protocol:
    """Granian's side: gives the body in parts, keeps the answer, and may lose its client."""

    parts: tuple[bytes, ...] = (b"abc", b"", b"def")
    read: int = 0
    answers: list[tuple[int, list[tuple[str, str]], bytes | None]] = field(default_factory=list)
    lost: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            self.read += 1
            yield part

    async def client_disconnect(self) -> None:
        await self.lost.wait()

    def response_empty(self, status: int, headers: list[tuple[str, str]]) -> None:
        self.answers.append((status, headers, None))

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.answers.append((status, headers, body))


async def _answer(
    handle: Callable[[Exchange], None], *, parts: tuple[bytes, ...] = (b"abc", b"", b"def"), **scope: Any
) -> tuple[int, dict[str, str], bytes | None]:
    protocol = _Protocol(parts=parts)
    app = RsgiApp(handle, max_body_bytes=10)
    async with asyncio.timeout(20):
        await app.__rsgi__(_Scope(**scope), protocol)
    [(status, headers, body)] = protocol.answers
    return status, dict(headers), body


def _at_once(exchange: Exchange) -> None:
    exchange.reply(told(exchange))


async def test_the_handler_sees_the_whole_request() -> None:
    status, headers, body = await _answer(_at_once)
    assert (status, headers) == (200, {"content-type": "application/json"})
    assert json.loads(body or b"") == {
        "method": "POST",
        "path": "/a b/\u00e9",
        "query": "q=%20",
        "headers": {"host": "localhost", "x-a": "1, 2"},
        "body": "abcdef",
    }


async def test_an_answer_may_come_later_and_have_headers_of_its_own() -> None:
    def handle(exchange: Exchange) -> None:
        asyncio.get_running_loop().call_soon(exchange.reply, Response(OK, b"{}", ((b"x-b", b"c"),)))

    assert await _answer(handle) == (200, {"content-type": "application/json", "x-b": "c"}, b"{}")


async def test_a_head_is_answered_without_its_body() -> None:
    status, headers, body = await _answer(_at_once, method="HEAD", parts=())
    assert (status, body) == (200, None)
    assert int(headers["content-length"]) > 0


@pytest.mark.parametrize("length", ["11", "1" * 30])
async def test_a_body_that_says_it_is_too_large_is_not_read(length: str) -> None:
    protocol = _Protocol()
    scope = _Scope(headers=_Headers(pairs=(("content-length", length),)))
    await RsgiApp(_at_once, max_body_bytes=10).__rsgi__(scope, protocol)
    assert [status for status, _, _ in protocol.answers] == [413]
    assert protocol.read == 0


async def test_a_body_that_turns_out_too_large_is_read_no_further() -> None:
    protocol = _Protocol(parts=(b"x" * 6,) * 100)
    await RsgiApp(_at_once, max_body_bytes=10).__rsgi__(_Scope(), protocol)
    assert [status for status, _, _ in protocol.answers] == [413]
    assert protocol.read == 2


@pytest.mark.parametrize(("version", "said"), [("1", "close"), ("1.1", "close"), ("2", None)])
async def test_a_refusal_says_that_the_connection_ends_where_its_body_is_left_unread(
    version: str, said: str | None
) -> None:
    status, headers, _ = await _answer(_at_once, parts=(b"x" * 11,), http_version=version)
    assert (status, headers.get("connection")) == (413, said)


@pytest.mark.parametrize(("version", "said"), [("1.1", "close"), ("2", None)])
async def test_one_that_retires_says_so_with_each_answer(version: str, said: str | None) -> None:
    app = RsgiApp(_at_once, max_body_bytes=10)
    for closing in (None, said):
        protocol = _Protocol()
        await app.__rsgi__(_Scope(http_version=version), protocol)
        [(status, headers, _)] = protocol.answers
        assert (status, dict(headers).get("connection")) == (200, closing)
        app.retiring = True


@pytest.mark.parametrize("path", ["/a\ufffd", "/a\x00", "/a\nb", "/a\x7f"])
async def test_a_path_that_is_not_text_is_refused(path: str) -> None:
    assert (await _answer(_at_once, path=path))[0] == 400


async def test_tokens_are_asked_for_before_the_body_is_read(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("token-one-0123456789\n")
    app = RsgiApp(_at_once, max_body_bytes=10, tokens=Tokens(file))
    asked = _Protocol()
    await app.__rsgi__(_Scope(), asked)
    [(status, headers, _)] = asked.answers
    assert (status, dict(headers)["www-authenticate"], asked.read) == (401, "Bearer", 0)
    health, known = _Protocol(), _Protocol()
    await app.__rsgi__(_Scope(path="/health"), health)
    await app.__rsgi__(_Scope(headers=_Headers(pairs=(("authorization", "Bearer token-one-0123456789"),))), known)
    assert [protocol.answers[0][0] for protocol in (health, known)] == [200, 200]


async def test_a_handler_that_raises_is_logged_and_answered_with_500(caplog: pytest.LogCaptureFixture) -> None:
    def handle(_: Exchange) -> None:
        raise KeyError("secret")

    status, _, body = await _answer(handle)
    assert status == 500
    assert b"secret" not in (body or b"")
    assert "secret" in caplog.text


async def test_a_client_that_goes_away_is_known_to_be_gone() -> None:
    seen: list[Exchange] = []
    protocol = _Protocol()
    answering = asyncio.create_task(RsgiApp(seen.append, max_body_bytes=10).__rsgi__(_Scope(), protocol))
    async with asyncio.timeout(20):
        while not seen:  # noqa: ASYNC110 - the handler is called by the task
            await asyncio.sleep(0)
        protocol.lost.set()
        await answering
    assert seen[0].gone
    seen[0].reply(told(seen[0]))
    assert protocol.answers == []


async def test_a_second_answer_is_an_error_of_the_handler() -> None:
    def handle(exchange: Exchange) -> None:
        exchange.reply(told(exchange))
        with pytest.raises(RuntimeError, match="answered twice"):
            exchange.reply(told(exchange))

    assert (await _answer(handle))[0] == 200


async def test_a_websocket_is_not_spoken() -> None:
    protocol = _Protocol()
    await RsgiApp(_at_once, max_body_bytes=10).__rsgi__(_Scope(proto="ws"), protocol)
    assert protocol.answers == []
