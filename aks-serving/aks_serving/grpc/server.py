"""The gRPC server: `serve_grpc` starts it on the running event loop (uvloop's or asyncio's), beside the HTTP server.

    running = await serve_grpc(server, address="0.0.0.0", port=8001, max_message_bytes=settings.max_body_bytes)
    ...
    await running.drain(within_s=20)

Importing this imports grpc, which takes memory and starts threads: import it only where gRPC is wanted, and in the
process that serves, never before a fork. For compatibility: HTTP is several times faster.
"""

import asyncio
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio

from aks_serving.api import Server
from aks_serving.grpc.caller import Authorize
from aks_serving.grpc.calls import MESSAGE_S, tells_of_more_than_a_gone_call
from aks_serving.grpc.health import Health
from aks_serving.grpc.leaving import Leaving
from aks_serving.grpc.service import SERVICE, InferenceService
from aks_serving.grpc.spans import no_spans, sampled_spans
from aks_serving.grpc.streams import IDLE_S
from aks_serving.http.tls import ReloadingContext
from aks_serving.override import Pinning
from shared.core.errors import InvalidInputError

_IDLE_MS = 300_000
_PING_MS = 60_000
_PING_ANSWER_MS = 20_000
_HANDSHAKE_MS = 10_000
_MAX_METADATA_BYTES = 16 * 1024
_LAST_S = 5.0
"""How long it may take to tell the last callers that they are not answered."""
_MAX_STREAMS = 256
"""Calls of one connection at once: no single one takes all places. A client waits with the next by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """A certificate chain and its private key, in PEM. Both are read again when they change."""

    certificate: Path
    key: Path


class RunningGrpc:
    """A started gRPC server."""

    def __init__(
        self, server: grpc.aio.Server, service: InferenceService, health: Health, leaving: Leaving, port: int
    ) -> None:
        self.port = port
        """The port that it listens on."""
        self._server = server
        self._service = service
        self._health = health
        self._leaving = leaving

    async def drain(self, *, within_s: float) -> None:
        """Take no more calls, finish those that run, and stop; what runs longer than `within_s` gets UNAVAILABLE.

        Callers are told to leave their connections before they have their last answers (aks_serving.grpc.leaving).
        """
        await self._leaving.hold()
        stopping = asyncio.create_task(self._server.stop(within_s + _LAST_S))
        await asyncio.sleep(0)  # it begins: connections take no more calls
        self._health.stop()
        self._service.streams.stop()
        self._leaving.release(within_s)
        await stopping


async def serve_grpc(
    server: Server,
    *,
    address: str,
    port: int,
    max_message_bytes: int,
    max_calls: int = 2048,
    max_connections: int = 4096,
    timeout_s: float = math.inf,
    authorize: Authorize | None = None,
    pinning: Pinning = Pinning.OPEN,
    override_keys: Sequence[bytes] = (),
    tls: TlsFiles | None = None,
    share_port: bool = False,
    traced: bool = False,
    message_s: float = MESSAGE_S,
    idle_s: float = IDLE_S,
) -> RunningGrpc:
    """Start serving gRPC on `address`, an IP address; port 0 is any free one.

    `max_calls` run at once at most: the rest get RESOURCE_EXHAUSTED. Beyond `max_connections` that are open, or in
    their handshakes, a connection is closed at once. `timeout_s` is how long a request may wait that
    names no time of its own; `authorize` says who may call, `pinning` and `override_keys` who may name a version. With
    `share_port` several processes listen on one port. A call that sends no message within `message_s` ends, and a
    stream that then sends none for `idle_s`. `traced` gives inferences spans. Raises InvalidInputError where the port
    or the TLS files cannot be used.
    """
    logging.getLogger("grpc._cython.cygrpc").addFilter(tells_of_more_than_a_gone_call)
    leaving = Leaving()
    service = InferenceService(
        server,
        leaving=leaving,
        timeout_s=timeout_s,
        pinning=pinning,
        override_keys=override_keys,
        message_s=message_s,
        idle_s=idle_s,
        spans=sampled_spans if traced else no_spans,
    )
    health = Health(server, service=SERVICE, leaving=leaving, message_s=message_s)
    transport = grpc.aio.server(
        handlers=(service.handler(authorize), health.handler()),
        options=_options(max_message_bytes, max_connections, share_port=share_port),
        maximum_concurrent_rpcs=max_calls,
    )
    host = f"[{address}]" if ":" in address else address
    credentials = None if tls is None else await asyncio.to_thread(_credentials, tls)
    try:
        if credentials is None:
            bound = transport.add_insecure_port(f"{host}:{port}")
        else:
            bound = transport.add_secure_port(f"{host}:{port}", credentials)
    except RuntimeError as error:
        raise InvalidInputError(f"gRPC cannot listen on {host}:{port}: {error}") from error
    await transport.start()
    return RunningGrpc(transport, service, health, leaving, bound)


def _options(max_message_bytes: int, max_connections: int, *, share_port: bool) -> list[tuple[str, int]]:
    return [
        # Holds for a message as it comes and as it is once decompressed.
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", int(share_port)),
        ("grpc.max_allowed_incoming_connections", max_connections),
        ("grpc.max_concurrent_streams", _MAX_STREAMS),
        ("grpc.max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", _MAX_METADATA_BYTES),
        ("grpc.max_connection_idle_ms", _IDLE_MS),
        ("grpc.keepalive_time_ms", _PING_MS),
        ("grpc.keepalive_timeout_ms", _PING_ANSWER_MS),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    ]


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    """Credentials that follow the files: what changed is used from the next handshake on, where it can be."""
    # gRPC itself says nothing of files that do not fit, as they are for a moment when they are replaced one by one.
    files = ReloadingContext(tls.certificate, tls.key)

    def read() -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(tls.key.read_bytes(), tls.certificate.read_bytes())])

    def changed() -> grpc.ServerCertificateConfiguration | None:
        try:
            return read() if files.reload() else None
        except OSError:  # they are gone again
            return None

    return grpc.dynamic_ssl_server_credentials(read(), changed)
