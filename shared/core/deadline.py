"""The time that a conversation over a socket has in all: a socket's own timeout is one for each wait."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def at_most(sock: socket.socket, timeout_s: float) -> Iterator[None]:
    """Cut a connection off after a time, also one that goes on byte by byte. Raises TimeoutError where it was."""
    is_late = threading.Event()

    def cut() -> None:
        is_late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(timeout_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        if is_late.is_set():
            raise TimeoutError from error
        raise
    finally:
        timer.cancel()
    if is_late.is_set():
        # What was cut off may look like an answer that ended early.
        raise TimeoutError
