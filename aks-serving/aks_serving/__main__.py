"""`python -m aks_serving`: the model server, until SIGTERM or SIGINT.

Prints `ready http://<address>:<port>` when its port listens. On a signal it is not ready, goes on answering for
`drain_s`, closes its port, finishes what is in flight, sends its last windows, and exits with 0.
"""

import asyncio
import logging
import os
import signal
import socket
import sys

import uvloop

from aks_serving.api import Api
from aks_serving.http.access import Tokens
from aks_serving.http.limits import Limits
from aks_serving.http.tls import ReloadingContext
from aks_serving.http.transport import serve
from aks_serving.ports import Storage
from aks_serving.server import ModelServer
from aks_serving.settings import Settings
from aks_serving.storage import open_storage
from shared.core.errors import InvalidInputError

_FINISH_S = 20.0
_BACKLOG = 2048


def main() -> int:
    """Run the server; its exit code."""
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger("aks_serving").setLevel(logging.INFO)
    try:
        settings = Settings.from_env()
        storage = open_storage(settings)
        sock = _listening(settings)
        tls = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            tls = ReloadingContext(settings.tls_certificate, settings.tls_key)
        tokens = None if settings.tokens is None else Tokens(settings.tokens)
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return 2
    uvloop.run(_serve(settings, storage, sock, tls, tokens))
    return 0


async def _serve(
    settings: Settings, storage: Storage, sock: socket.socket, tls: ReloadingContext | None, tokens: Tokens | None
) -> None:
    server = ModelServer(settings, storage)
    api = Api(
        server,
        timeout_s=settings.timeout_s,
        override_keys=settings.override_keys,
        pinning=settings.pinning,
        max_body_bytes=settings.max_body_bytes,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    port = sock.getsockname()[1]
    limits = Limits(max_body_bytes=settings.max_body_bytes)
    transport = await serve(api.handle, [sock], limits=limits, tls=tls, tokens=tokens)
    address = "127.0.0.1" if settings.bind in {"0.0.0.0", "::"} else settings.bind  # noqa: S104 - compared
    scheme = "http" if tls is None else "https"
    print(f"ready {scheme}://{address}:{port}", flush=True)  # noqa: T201 - the starter waits for it
    await stop.wait()
    server.stop_soon()
    await asyncio.sleep(settings.drain_s)
    await transport.drain(_FINISH_S)
    await server.stop()


def _listening(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.bind else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.bind, settings.port))
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise InvalidInputError(
            f"SLIPWAY_BIND {settings.bind!r} and SLIPWAY_PORT {settings.port} cannot be listened on: {error}"
        ) from error
    return sock


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    logging.shutdown()
    # A load or a model run that hangs must not keep the process: what had to be kept is kept by now.
    os._exit(code)
