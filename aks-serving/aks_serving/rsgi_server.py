"""The model server under Granian, where HTTP/2 is to end in the pod:

    granian --interface rsgi --factory --workers 1 --port 8080 aks_serving.rsgi_server:app

The settings are the server's own (aks_serving.settings), without those of addresses, TLS and workers, which Granian is
told itself. It carries HTTP alone. There is no parent of ours: a process that lost a thread to a model that hangs is
not replaced, nor is one whose event loop a model holds (a probe of liveness has to see that), workers do not know of
one another, tokens are read at the start alone, and nothing is traced.

At SIGTERM a worker first is not ready for the time to drain, and answers on. Then Granian stops as it does: it takes no
more connections, has each finish what is in flight, waits for all of them without a bound of its own, and calls
`__rsgi_del__`.
"""

import signal
from asyncio import AbstractEventLoop
from typing import TYPE_CHECKING

from aks_serving.__main__ import prepare
from aks_serving.settings import Settings

if TYPE_CHECKING:
    from aks_serving.http.rsgi import HttpProtocol, RsgiApp, Scope
    from aks_serving.server import ModelServer


class Served:
    """A model server for the life of one of Granian's workers, which calls the first and the last of its methods while
    its event loop does not run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._server: ModelServer | None = None
        self._app: RsgiApp | None = None

    def __rsgi_init__(self, loop: AbstractEventLoop) -> None:
        loop.run_until_complete(self._start())
        # In place of Granian's own handler, which is set by now.
        loop.add_signal_handler(signal.SIGTERM, self._retire, loop)

    async def __rsgi__(self, scope: "Scope", protocol: "HttpProtocol") -> None:
        if self._app is not None:
            await self._app.__rsgi__(scope, protocol)

    def __rsgi_del__(self, loop: AbstractEventLoop) -> None:
        if self._server is not None:
            loop.run_until_complete(self._server.stop())

    def _retire(self, loop: AbstractEventLoop) -> None:
        if self._server is not None and self._app is not None:
            self._server.stop_soon()
            self._app.retiring = True
        # At SIGINT Granian does what it does at SIGTERM.
        loop.call_later(self._settings.drain_s, signal.raise_signal, signal.SIGINT)

    async def _start(self) -> None:
        from aks_serving.api import Api  # noqa: PLC0415 - after `prepare`, as is all that imports the runtime
        from aks_serving.http.access import Tokens  # noqa: PLC0415
        from aks_serving.http.rsgi import RsgiApp  # noqa: PLC0415
        from aks_serving.server import ModelServer  # noqa: PLC0415
        from aks_serving.storage import open_storage  # noqa: PLC0415

        settings = self._settings
        server = self._server = ModelServer(settings, open_storage(settings))
        api = Api(
            server,
            timeout_s=settings.timeout_s,
            override_keys=settings.override_keys,
            pinning=settings.pinning,
            max_body_bytes=settings.max_body_bytes,
        )
        tokens = None if settings.tokens is None else Tokens(settings.tokens)
        self._app = RsgiApp(api.handle, max_body_bytes=settings.max_body_bytes, tokens=tokens)
        await server.start()


def app() -> Served:
    """What Granian is to serve. Raises InvalidInputError where a setting is absent or bad."""
    prepare()
    return Served(Settings.from_env())
