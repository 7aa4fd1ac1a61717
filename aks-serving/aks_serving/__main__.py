"""`python -m aks_serving`: the model server, until SIGTERM or SIGINT.

Prints `ready http://<address>:<port>` when its port listens, and where gRPC listens too, `grpc <address>:<port>`. On a
signal it is not ready, goes on answering for `drain_s`, closes its port, finishes what is in flight, sends its last
windows, and exits with 0. This process answers nothing: it is the parent of the workers that do
(aks_serving.supervisor).
"""

import contextlib
import ctypes
import gc
import logging
import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aks_serving.board import Board
from aks_serving.settings import Settings
from aks_serving.supervisor import FINISH_S, Post, Supervisor
from shared.core.errors import InvalidInputError
from shared.core.logs import scrubbed, use_json, wants_json

if TYPE_CHECKING:
    from aks_serving.http.access import Tokens
    from aks_serving.http.tls import ReloadingContext

_BACKLOG = 2048
_END_S = 15.0
"""What a worker may take to end beside draining and finishing."""
_M_ARENA_MAX = -8
_ARENAS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What is the same for all workers, made before they are forked; a worker when it is called, in its process."""

    settings: Settings
    sockets: tuple[socket.socket, ...]
    """They listen, one a place."""
    grpc_socket: socket.socket | None
    """It keeps the port of gRPC."""
    tls: "ReloadingContext | None"
    tokens: "Tokens | None"
    board: Board

    def __call__(self, post: Post) -> int:
        from aks_serving.worker import work  # noqa: PLC0415 - not in the parent of a single worker

        return work(self, post)


def main() -> int:
    """Run the server; its exit code."""
    if len(sys.argv) > 1:
        return _usage(sys.argv[1:])
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger("aks_serving").setLevel(logging.INFO)
    prepare()
    try:
        if wants_json(os.environ):
            use_json()
        settings = Settings.from_env()
        shared = _shared(settings)
    except InvalidInputError as error:
        print(f"error: {scrubbed(str(error))}", file=sys.stderr)  # noqa: T201 - for whoever started it
        return 2
    if settings.workers > 1:
        _import_for_all()
    return Supervisor(
        shared,
        shared.board,
        hang_s=settings.hang_s,
        stop_s=settings.drain_s + FINISH_S + _END_S,
        all_listen=lambda: _ready(settings, shared),
    ).run()


def _usage(given: list[str]) -> int:
    """Say how the server is started, to who asks for it or gives it arguments."""
    asked = given in (["-h"], ["--help"])
    error = "" if asked else f"error: there are no arguments, and {' '.join(given)[:200]!r} was given\n\n"
    text = f"{error}{__doc__}\nAll settings are environment variables, SLIPWAY_...: aks-serving/README.md lists them.\n"
    print(text, end="", file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


def _import_for_all() -> None:
    """Import what workers need before they are forked, so that it is in memory once.

    One worker alone imports it itself: a parent that held it too would double what the two of them write to.
    """
    import onnxruntime  # noqa: F401, PLC0415 - as said

    import aks_serving.worker  # noqa: F401, PLC0415 - as said

    # What the imports made is never collected: a collection would write to its pages, and so copy them.
    gc.collect()
    gc.freeze()


def prepare() -> None:
    """What must be so before anything is imported or any thread starts."""
    # numpy's linear algebra would start a thread a core; nothing here needs it, and a parent that forks may have one.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    # The model runtime sends what it knows of models (names, hashes, the machine) to its maker, from a thread that it
    # starts when it is imported, unless it is told not to by then.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # The storage library's own: it would start one a core, in every worker. Calls run on their callers' threads.
    os.environ["TOKIO_WORKER_THREADS"] = "1"
    # glibc keeps a heap for each thread that allocates, up to eight a core: freed memory would lie about in all.
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def _shared(settings: Settings) -> Shared:
    """What all workers share. Raises InvalidInputError where a setting cannot be used."""
    tls, tokens = None, None
    if settings.tls_certificate is not None and settings.tls_key is not None:
        from aks_serving.http.tls import ReloadingContext  # noqa: PLC0415 - only where it is wanted

        tls = ReloadingContext(settings.tls_certificate, settings.tls_key)
    if settings.tokens is not None:
        from aks_serving.http.access import Tokens  # noqa: PLC0415 - only where it is wanted

        tokens = Tokens(settings.tokens)
    sockets = [_bound(settings.bind, settings.port, "SLIPWAY_PORT", shared=settings.workers > 1)]
    for _ in range(1, settings.workers):
        sockets.append(_bound(settings.bind, sockets[0].getsockname()[1], "SLIPWAY_PORT", shared=True))
    for sock in sockets:
        sock.listen(_BACKLOG)
    grpc = None
    if settings.grpc_port is not None:
        # Bound, and never listening: it keeps the port for the workers, which listen on it by themselves.
        grpc = _bound(settings.bind, settings.grpc_port, "SLIPWAY_GRPC_PORT", shared=True)
    return Shared(
        settings=settings,
        sockets=tuple(sockets),
        grpc_socket=grpc,
        tls=tls,
        tokens=tokens,
        board=Board(places=settings.workers),
    )


def _bound(address: str, port: int, name: str, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((address, port))
    except OSError as error:
        sock.close()
        raise InvalidInputError(f"SLIPWAY_BIND {address!r} and {name} {port} cannot be listened on: {error}") from error
    return sock


def _ready(settings: Settings, shared: Shared) -> None:
    address = "127.0.0.1" if settings.bind in {"0.0.0.0", "::"} else settings.bind  # noqa: S104 - compared
    if ":" in address:
        address = f"[{address}]"
    scheme = "http" if shared.tls is None else "https"
    # In one write: where the output is not buffered, a log line could come between a line and its end.
    text = f"ready {scheme}://{address}:{shared.sockets[0].getsockname()[1]}\n"
    if shared.grpc_socket is not None:
        text += f"grpc {address}:{shared.grpc_socket.getsockname()[1]}\n"
    print(text, end="", flush=True)  # noqa: T201 - waited for


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    logging.shutdown()
    os._exit(code)
