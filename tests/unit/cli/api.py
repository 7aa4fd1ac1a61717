"""A server that answers as it is told, in place of the admin API and the model server."""

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request that the server got."""

    method: str
    path: str
    key: str | None
    body: Any
    authorization: str | None = None


@dataclass(slots=True)
class FakeApi:
    """`answers` maps "METHOD /path?query" to (status, body); a list is used up one by one; None hangs up."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    tokens: set[str] | None = None
    """The bearer tokens that pass, as where sign-in is asked for; None: it is not."""

    def answer(self, request: str) -> tuple[int, Any] | None:
        """What to answer."""
        found = self.answers.get(request, (404, {"error": {"code": "not_found", "message": f"{request} is unknown"}}))
        if isinstance(found, list):
            found = found.pop(0)
        return found  # type: ignore[no-any-return]


@contextmanager
def fake_api() -> Generator[FakeApi]:
    """Serve a FakeApi on a free port."""
    api = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            path = self.path
            key, shown = self.headers.get("x-functions-key"), self.headers.get("authorization")
            api.asked.append(Asked(method=self.command, path=path, key=key, body=body, authorization=shown))
            scheme, _, token = (shown or "").partition(" ")
            passes = api.tokens is None or (scheme == "Bearer" and token in api.tokens)
            answer = api.answer(f"{self.command} {path}") if passes else (401, b"")
            if answer is None:
                self.close_connection = True
                return
            status, value = answer
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _handle  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        api.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            server.shutdown()
            thread.join()
