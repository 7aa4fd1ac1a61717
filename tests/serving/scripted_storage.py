"""A storage service that answers as a test says, over HTTP or TLS: for what Azurite never does."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

type Answer = Callable[[socket.socket, bytes], None]
"""Answers a request, given its connection and its head; the connection is closed then."""


class ScriptedStorage:
    """Listens, and keeps the head and body of each request that came."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self._answer = answer
        self._tls = tls
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listening.getsockname()[1]}"

    @property
    def connection(self) -> str:
        """A connection string to it."""
        return f"AccountName=scripted;AccountKey=a2V5;BlobEndpoint={self.url}/scripted;"

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                accepted, _ = self._listening.accept()
            except OSError:  # closed
                return
            with accepted:
                try:
                    conn = accepted if self._tls is None else self._tls.wrap_socket(accepted, server_side=True)
                    with conn:
                        self._one(conn)
                except OSError:  # the client went
                    continue

    def _one(self, conn: socket.socket) -> None:
        request = b""
        while not _whole(request):
            more = conn.recv(65_536)
            if not more:
                return
            request += more
        self.requests.append(request)
        self._answer(conn, request)


def _whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(body) >= sum(lengths)


@contextmanager
def scripted(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[ScriptedStorage]:
    """One that is closed at the end of the block."""
    storage = ScriptedStorage(answer, tls)
    try:
        yield storage
    finally:
        storage.close()


def response(body: bytes = b"", *, status: str = "200 OK", length: int | None = None) -> bytes:
    """A response as storage gives it. `length`: what it says of the body, where that is not so."""
    head = (
        f'HTTP/1.1 {status}\r\netag: "0x1"\r\nlast-modified: Sat, 21 Nov 2026 12:00:00 GMT\r\n'
        f"content-length: {len(body) if length is None else length}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def saying(data: bytes) -> Answer:
    """Answers everything with these bytes."""
    return lambda conn, _: conn.sendall(data)
