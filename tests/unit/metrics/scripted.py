"""An HTTP server that answers as a test says, and keeps what it was asked."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Asked:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: str


type Play = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class ScriptedServer:
    """Plays one answer to each request."""

    url: str
    play: Play
    asked: list[Asked] = field(default_factory=list)


def answers(status: int, body: str, **headers: str) -> Play:
    """A whole answer."""

    def play(handler: BaseHTTPRequestHandler) -> None:
        data = body.encode()
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("content-length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return play


@contextlib.contextmanager
def scripted(play: Play) -> Iterator[ScriptedServer]:
    """Such a server, on a free port, until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            server.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body.decode()))
            with contextlib.suppress(OSError):
                server.play(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    server = ScriptedServer(f"http://127.0.0.1:{http.server_address[1]}", play)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def nowhere() -> str:
    """An address at which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{sock.getsockname()[1]}"
