"""A request that came over a connection of our own transport, and its answer's way back to it."""

import logging
from typing import TYPE_CHECKING

from aks_serving.exchange import Exchange, Head, Response
from aks_serving.http.answers import DATED, INTERNAL_ERROR, NAMED, http1
from aks_serving.http.head import RequestHead

if TYPE_CHECKING:
    from aks_serving.http.protocol import Connection

log = logging.getLogger(__name__)


class HttpExchange(Exchange):
    """A request that came over a connection."""

    __slots__ = ("answered", "connection", "head", "last", "request")

    head: RequestHead | None

    def __init__(self, connection: "Connection", head: RequestHead, body: bytes, received_s: float) -> None:
        self.method = head.method
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.body = body
        self.received_s = received_s
        self.gone = False
        self.head = head if head.kept else None
        self.request = head
        self.last = False
        self.connection: Connection | None = connection
        self.answered = b""

    def reply(self, response: Response) -> None:
        """Answer. Raises RuntimeError where it was answered before."""
        connection = self.connection
        if connection is None:
            raise RuntimeError(f"{self.method} {self.path} was answered twice")
        self.connection = None
        if self.gone:
            return
        try:
            data = http1(response, self.request, last=self.last)
        except ValueError:
            log.exception("the answer to %s %r cannot be sent", self.method, self.path[:200])
            data = http1(INTERNAL_ERROR, self.request, last=self.last)
        connection.answer(self, data)

    def reply_named(self, head: Head, body: bytes, prediction_id: bytes) -> None:
        connection = self.connection
        if connection is None or self.gone or self.last or not self.request.plain:
            super().reply_named(head, body, prediction_id)
            return
        self.connection = None
        # As `http1` writes it, in one go: most answers are of this form.
        length = b"%d\r\n\r\n" % len(body)
        connection.answer(self, b"".join((head.http1, NAMED, prediction_id, b"\r\n", DATED.line, length, body)))
