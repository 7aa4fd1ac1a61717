"""`python -m aks_serving`: the model server behind uvicorn, until SIGTERM or SIGINT.

Prints `ready http://<address>:<port>` when its port listens. On a signal it is not ready, goes on answering for
`drain_s`, closes its port, finishes what is in flight, sends its last windows, and exits with 0.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn
import uvloop

from aks_serving.api import Api
from aks_serving.asgi import AsgiApp
from aks_serving.ports import Storage
from aks_serving.server import ModelServer
from aks_serving.settings import Settings
from aks_serving.storage import open_storage
from shared.core.errors import InvalidInputError

_FINISH_S = 20
_KEEP_ALIVE_S = 75
_BACKLOG = 2048


class _Uvicorn(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal and not by an exit code."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


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
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return 2
    uvloop.run(_serve(settings, storage, sock))
    return 0


async def _serve(settings: Settings, storage: Storage, sock: socket.socket) -> None:
    server = ModelServer(settings, storage)
    app = AsgiApp(Api(server), max_body_bytes=settings.max_body_bytes)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_FINISH_S,
    )
    transport = _Uvicorn(config)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await server.start()
    serving = asyncio.create_task(transport.serve(sockets=[sock]))
    await transport.listening.wait()
    address = "127.0.0.1" if settings.bind in {"0.0.0.0", "::"} else settings.bind  # noqa: S104 - compared
    print(f"ready http://{address}:{sock.getsockname()[1]}", flush=True)  # noqa: T201 - the starter waits for it
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
    server.stop_soon()
    await asyncio.sleep(settings.drain_s)
    transport.should_exit = True
    await serving
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
