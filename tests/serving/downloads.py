"""A storage service before which a proxy stands that counts the downloads of artifacts, and holds some up half way."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_ARTIFACT = re.compile(rb"GET /\w+/artifacts/sha256/([0-9a-f]{64})[ ?]")
_HOST = re.compile(r"BlobEndpoint=http://([\d.]+):(\d+)/")


class Downloads:
    """One request a connection. Of the first `held` downloads only `part` of what storage answers is passed on, until
    they are let go.
    """

    def __init__(self, connection: str, *, held: int = 0, part: float = 0.5) -> None:
        """`connection` is a connection string to the storage that answers."""
        found = _HOST.search(connection)
        assert found is not None
        self._upstream = (found[1], int(found[2]))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.connection = _HOST.sub(rf"BlobEndpoint=http://127.0.0.1:{self._listening.getsockname()[1]}/", connection)
        """A connection string to it."""
        self.counts: Counter[str] = Counter()
        """Downloads that were begun, by digest."""
        self.let_go = threading.Event()
        self._held = held
        self._part = part
        self._begun = threading.Lock()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        self.let_go.set()
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:  # closed
                return
            thread = threading.Thread(target=self._one, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _one(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._upstream) as upstream:
            head, end, body = _read(client).partition(b"\r\n\r\n")
            upstream.sendall(head.replace(b"\r\n", b"\r\nConnection: close\r\n", 1) + end + body)
            answer = b"".join(iter(lambda: upstream.recv(1 << 20), b""))
            shown = len(answer)
            if (artifact := _ARTIFACT.match(head)) is not None:
                with self._begun:
                    if self.counts.total() < self._held:
                        shown = int(shown * self._part)
                    self.counts[artifact[1].decode()] += 1
            client.sendall(answer[:shown])
            if shown < len(answer):
                self.let_go.wait()
                client.sendall(answer[shown:])


def _read(client: socket.socket) -> bytes:
    """A whole request, or what there was of one."""
    request = b""
    while True:
        head, end, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: *(\d+)", head.lower())
        if end and len(body) >= (int(length[1]) if length else 0):
            return request
        more = client.recv(1 << 16)
        if not more:
            return request
        request += more


@contextmanager
def counted(connection: str, *, held: int = 0, part: float = 0.5) -> Iterator[Downloads]:
    """One that is closed at the end of the block."""
    downloads = Downloads(connection, held=held, part=part)
    try:
        yield downloads
    finally:
        downloads.close()
