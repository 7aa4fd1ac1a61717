"""The transport on a real socket of this machine, and a certificate of a test's own."""

import asyncio
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aks_serving.exchange import Exchange
from aks_serving.http.transport import Transport, serve
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.serving.http.driven import Answer, answers_in, told

_PATIENCE_S = 20.0


class Client:
    """A raw connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> Answer:
        """The next answer."""
        async with asyncio.timeout(_PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            length = next(int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
            [answer] = answers_in(head + await self.reader.readexactly(length))
        return answer

    async def rest(self) -> bytes:
        """All until the server ends the connection."""
        async with asyncio.timeout(_PATIENCE_S):
            return await self.reader.read()

    async def close(self) -> None:
        self.writer.close()
        await asyncio.gather(self.writer.wait_closed(), return_exceptions=True)


@dataclass(slots=True, kw_only=True)
class Served:
    """A transport that listens, and what came."""

    transport: Transport
    port: int
    seen: list[Exchange]

    @asynccontextmanager
    async def client(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=tls)
        client = Client(reader, writer)
        try:
            yield client
        finally:
            await client.close()


type Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture
def served() -> Serve:
    """Serves for an `async with`. The sweep is called by the test."""

    @asynccontextmanager
    async def started(*, later: bool = False, **options: Any) -> AsyncIterator[Served]:
        seen: list[Exchange] = []

        def handle(exchange: Exchange) -> None:
            seen.append(exchange)
            if not later:
                exchange.reply(told(exchange))

        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        transport = await serve(handle, [sock], sweep_s=3600, **options)
        try:
            yield Served(transport=transport, port=port, seen=seen)
        finally:
            await transport.drain(0)

    return started


async def until(found: Callable[[], object], what: str) -> None:
    """Wait until it is so."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not found():  # noqa: ASYNC110 - what is waited for is not this loop's to tell
                await asyncio.sleep(0.002)
    except TimeoutError:
        raise AssertionError(f"not within {_PATIENCE_S:g} s: {what}") from None


def certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / f"{name}.crt", directory / f"{name}.key"
    cert_path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path
