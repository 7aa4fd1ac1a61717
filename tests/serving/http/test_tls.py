"""TLS: what is spoken, and how certificates change while the server runs."""

import asyncio
import contextlib
import os
import resource
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from aks_serving.exchange import OK, Response
from aks_serving.http.access import Tokens
from aks_serving.http.limits import Limits
from aks_serving.http.tls import ReloadingContext

from shared.core.errors import InvalidInputError
from tests.serving.http.conftest import Serve, certificate, until
from tests.serving.http.driven import request, told

pytestmark = pytest.mark.anyio


def _trusting(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


async def test_requests_are_answered_over_tls(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    async with served(tls=ReloadingContext(cert, key)) as server, server.client(_trusting(cert)) as client:
        assert client.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        body = b"x" * 300_000
        await client.send(b"".join(request(f"/{number}", body=body) for number in range(3)))
        for number in range(3):
            answer = (await client.answer()).json()
            assert (answer["path"], len(answer["body"])) == (f"/{number}", len(body))
        await client.send(request("/last", headers=("Connection: close",)))
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.rest() == b""


async def test_who_is_late_to_read_a_connections_last_answer_has_all_of_it(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    tls, body = ReloadingContext(cert, key), b"x" * 12_000_000
    async with served(later=True, tls=tls) as server, server.client(_trusting(cert)) as client:
        await client.send(request(headers=("Connection: close",)))
        await until(lambda: server.seen, "the request came")
        server.seen[0].reply(Response(OK, body))
        await asyncio.sleep(2.5)  # longer than a TLS connection has for its close
        assert (await client.answer()).body == body
        assert await client.rest() == b""
        await until(lambda: not server.transport.connections, "it is closed")


async def test_tls_before_1_2_is_not_spoken(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    context = ReloadingContext(cert, key)
    assert context.context.minimum_version == ssl.TLSVersion.TLSv1_2
    async with served(tls=context) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            trusting = _trusting(cert)
            trusting.minimum_version = trusting.maximum_version = version
            async with server.client(trusting) as client:
                await client.send(request())
                assert (await client.answer()).status == 200


async def test_plain_http_on_a_tls_port_gets_nothing(served: Serve, tmp_path: Path) -> None:
    async with served(tls=ReloadingContext(*certificate(tmp_path, "one"))) as server, server.client() as client:
        await client.send(request())
        assert not (await client.rest()).startswith(b"HTTP/")
        assert server.seen == []


async def test_handshakes_that_stand_are_bounded_and_keep_nobody_out(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    limits = Limits(max_connections=5)
    async with served(tls=ReloadingContext(cert, key), limits=limits) as server:
        address = "127.0.0.1", server.port
        with contextlib.ExitStack() as stack:
            silent = [stack.enter_context(socket.create_connection(address)) for _ in range(300)]
            async with server.client(_trusting(cert)) as client:
                await client.send(request())
                assert (await client.answer()).status == 200
                for one in silent[:295]:
                    one.settimeout(20)
                    assert await asyncio.to_thread(one.recv, 1) == b""
                for one in silent[296:]:
                    one.setblocking(False)
                    with pytest.raises(BlockingIOError):
                        one.recv(1)


async def test_who_comes_while_no_more_files_may_be_open_is_answered_once_they_may(
    served: Serve, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path, "one")
    async with served(tls=ReloadingContext(cert, key)) as server:
        with socket.socket() as plain:
            plain.settimeout(20)
            before = resource.getrlimit(resource.RLIMIT_NOFILE)
            next_free = os.dup(0)
            os.close(next_free)
            resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, before[1]))
            try:
                with pytest.raises(OSError, match="Too many open files"):
                    os.dup(0)
                plain.connect(("127.0.0.1", server.port))
                for _ in range(10):
                    await asyncio.sleep(0.01)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
            with await asyncio.to_thread(_trusting(cert).wrap_socket, plain, server_hostname="127.0.0.1") as tls:
                await asyncio.to_thread(tls.sendall, request())
                assert (await asyncio.to_thread(tls.recv, 1_000)).startswith(b"HTTP/1.1 200 ")


async def test_who_is_in_a_handshake_when_the_server_stops_is_still_answered(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    received, sent = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = _trusting(cert).wrap_bio(received, sent, server_hostname="127.0.0.1")
    async with served(tls=ReloadingContext(cert, key)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)

        async def done[T](step: Callable[[], T]) -> T:
            while True:
                with contextlib.suppress(ssl.SSLWantReadError):
                    return step()
                writer.write(sent.read())
                data = await reader.read(1 << 16)
                assert data
                received.write(data)

        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(sent.read())
        received.write(await reader.read(1 << 16))
        stopping = asyncio.create_task(server.transport.drain(20))
        await asyncio.sleep(0.1)
        await done(tls.do_handshake)
        tls.write(request())
        answer = await done(lambda: tls.read(1 << 16))
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"\r\nconnection: close\r\n" in answer
        writer.close()
        assert await stopping == 0


async def test_a_new_certificate_is_used_for_what_opens_after_it(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    first = _trusting(cert)
    async with served(tls=ReloadingContext(cert, key)) as server, server.client(first) as old:
        other_cert, other_key = certificate(tmp_path, "two")
        other_cert.replace(cert)
        server.transport.sweep()  # the pair does not fit: in the midst of a rotation
        async with server.client(first) as client:
            await client.send(request())
            assert (await client.answer()).status == 200
        other_key.replace(key)
        server.transport.sweep()
        async with server.client(_trusting(cert)) as client:
            await client.send(request())
            assert (await client.answer()).status == 200
        await old.send(request("/still"))
        assert (await old.answer()).json()["path"] == "/still"


async def test_draining_ends_tls_connections_in_order(served: Serve, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    tls = ReloadingContext(cert, key)
    async with served(tls=tls, later=True) as server, server.client(_trusting(cert)) as client:
        await client.send(request("/1"))
        await until(lambda: server.seen, "it came")
        draining = asyncio.create_task(server.transport.drain(30))
        await asyncio.sleep(0)
        server.seen[0].reply(told(server.seen[0]))
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.rest() == b""
        await client.close()
        assert await draining == 0


async def test_tokens_that_change_are_seen_by_the_sweep(served: Serve, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("token-one-0123456789\n")
    sent = request(headers=("Authorization: Bearer token-one-0123456789",))
    async with served(tokens=Tokens(file)) as server, server.client() as client:
        for _ in range(2):
            await client.send(sent)
            assert (await client.answer()).status == 200
        file.write_text("token-three-0123456789\n")
        server.transport.sweep()
        await client.send(sent)
        assert (await client.answer()).status == 401


def test_files_that_are_no_pair_are_refused_at_the_start(tmp_path: Path) -> None:
    cert, key = certificate(tmp_path, "one")
    other_cert, _ = certificate(tmp_path, "two")
    (tmp_path / "empty").touch()
    for pair in ((other_cert, key), (tmp_path / "absent", key), (cert, tmp_path / "empty")):
        with pytest.raises(InvalidInputError, match="cannot be used"):
            ReloadingContext(*pair)
