"""Receives the alerts of the demo as somebody's own service would: over HTTP, and only what is signed.

It checks the signature as Standard Webhooks 1.0 describes it (HMAC-SHA256 over id, time and body), by its own key and
its own code. What is not signed rightly is refused with 401 and not kept; what comes twice is kept once.
"""

import base64
import hmac
import json
import secrets
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

_MAX_BYTES = 1_000_000
_TOLERANCE_S = 300.0


class Receiver:
    """A webhook's receiver on 127.0.0.1. Use it as a context manager."""

    def __init__(self) -> None:
        """It listens at once, and answers from `__enter__` on."""
        self._key = secrets.token_bytes(32)
        self._received: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.refused = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True)

    @property
    def url(self) -> str:
        """Where to post to."""
        return f"http://127.0.0.1:{self._server.server_port}/alerts"

    @property
    def secret(self) -> str:
        """The key, as the setting wants it."""
        return f"whsec_{base64.b64encode(self._key).decode()}"

    def received(self, rule: str) -> list[dict[str, Any]]:
        """What was told of alerts of a rule so far, in the order in which it came: a line for each alert and news."""
        with self._lock:
            bodies = list(self._received.values())
        return [line for body in bodies for line in body["data"]["alerts"] if line["rule"] == rule]

    def take(self, headers: dict[str, str], body: bytes) -> HTTPStatus:
        """Take what was posted. Its answer."""
        identity, sent_at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        signed = hmac.digest(self._key, f"{identity}.{sent_at}.".encode() + body, "sha256")
        expected = f"v1,{base64.b64encode(signed).decode()}"
        is_signed = any(
            hmac.compare_digest(one.encode(), expected.encode()) for one in headers.get("webhook-signature", "").split()
        )
        is_fresh = sent_at.isdecimal() and abs(time.time() - int(sent_at)) < _TOLERANCE_S
        with self._lock:
            if not (is_signed and is_fresh):
                self.refused += 1
                return HTTPStatus.UNAUTHORIZED
            self._received.setdefault(identity, json.loads(body))
        return HTTPStatus.NO_CONTENT

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        take = self.take

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                if size > _MAX_BYTES:
                    self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                self.send_response(take(headers, self.rfile.read(size)))
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                """The demo's screen tells what came."""

        return Handler
