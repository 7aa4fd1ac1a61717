"""The adapters that post notices: over HTTP, and by mail.

A webhook is signed as Standard Webhooks 1.0 has it: HMAC-SHA256, by each key, over the notice's id, the time of the
post and the body. Its id is the notice's, so that a receiver that gets it twice knows it.
"""

import base64
import hmac
import json
import socket
import ssl
from collections.abc import Callable, Iterable
from datetime import datetime
from smtplib import (
    SMTP,
    SMTP_SSL,
    SMTPException,
    SMTPRecipientsRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
)
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from shared.alerts.formats import email_message, pagerduty_events, slack_body, teams_body, webhook_body
from shared.alerts.notices import Notice
from shared.core.alert_settings import AlertSink, SinkKind
from shared.core.clock import Clock
from shared.core.deadline import at_most
from shared.core.errors import UnavailableError
from shared.events.posting import TIMEOUT_S, Address, RefusedError

_JSON = {"Content-Type": "application/json"}
POST_S = 120.0
"""How long the events of a notice may take to begin, and the parts of a conversation with a mail server: with the waits
around them it is less than the lease on a notice, after which another call sends it.
"""
_SMTP_PORT = 587
_SMTPS_PORT = 465
_SMTP_REFUSED = 500
"""From here on, a mail server's answer is for good (RFC 5321, 4.2.1)."""


def signature(keys: Iterable[bytes], notice_id: str, at: datetime, body: bytes) -> str:
    """The header `webhook-signature` of a body: one signature for each key, separated by spaces."""
    signed = f"{notice_id}.{int(at.timestamp())}.".encode() + body
    digests = (hmac.digest(key, signed, "sha256") for key in keys)
    return " ".join(f"v1,{base64.b64encode(digest).decode()}" for digest in digests)


class WebhookSink:
    """Posts signed notices. Safe to share between threads, as are all sinks here."""

    def __init__(self, settings: AlertSink, *, clock: Clock, timeout_s: float = TIMEOUT_S) -> None:
        """`clock` gives the time of a post, by which a receiver refuses what somebody kept and sent again."""
        self._address = _address(settings, timeout_s)
        self._keys = settings.keys
        self._clock = clock

    def post(self, notice: Notice) -> None:
        """See NoticeSink.post."""
        body, now = _encoded(webhook_body(notice)), self._clock.now()
        headers = {
            "webhook-id": notice.notice_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": signature(self._keys, notice.notice_id, now, body),
        }
        self._address.post(body, _JSON | headers)


class ChatSink:
    """Posts notices in the form of a chat."""

    def __init__(
        self, settings: AlertSink, body_of: Callable[[Notice], dict[str, Any]], *, timeout_s: float = TIMEOUT_S
    ) -> None:
        self._address = _address(settings, timeout_s)
        self._body_of = body_of

    def post(self, notice: Notice) -> None:
        """See NoticeSink.post."""
        self._address.post(_encoded(self._body_of(notice)), _JSON)


class PagerDutySink:
    """Triggers, acknowledges and resolves incidents. An event that comes twice changes nothing: its key is known."""

    def __init__(self, settings: AlertSink, *, timeout_s: float = TIMEOUT_S, post_s: float = POST_S) -> None:
        self._settings = settings
        self._address = _address(settings, timeout_s)
        self._key = settings.secret.get_secret_value()
        self._post_s = post_s

    def post(self, notice: Notice) -> None:
        """See NoticeSink.post. Where an event is not taken, all are sent again."""
        until = monotonic() + self._post_s
        for event in pagerduty_events(notice, routing_key=self._key):
            if monotonic() >= until:
                raise UnavailableError(_named(self._settings), f"not all events were posted within {self._post_s:g} s")
            self._address.post(_encoded(event), _JSON)


class EmailSink:
    """Hands notices to a mail server, over TLS unless it is on this machine."""

    def __init__(
        self,
        settings: AlertSink,
        *,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = TIMEOUT_S,
        post_s: float = POST_S,
    ) -> None:
        """`tls` says whom to trust; by default, whom the system trusts."""
        self._settings = settings
        self._parts = urlsplit(settings.address)
        self._tls = tls
        self._timeout_s = timeout_s
        self._post_s = post_s

    def post(self, notice: Notice) -> None:
        """See NoticeSink.post. Raises too where the server refuses one of several addresses."""
        mail = email_message(notice, sender=self._settings.sender, to=self._settings.to)
        try:
            with self._connected() as server, at_most(_socket_of(server), self._post_s):
                if self._settings.user:
                    server.login(self._settings.user, self._settings.secret.get_secret_value())
                refused = server.send_message(mail, self._settings.sender, list(self._settings.to))
        except (OSError, SMTPException) as error:
            # What the server says may repeat the user or an address.
            raise self._not_taken(f"{type(error).__name__} while it was sent to", _statuses(error)) from error
        if refused:
            reason = f"it refused {len(refused)} of the addresses"
            raise self._not_taken(reason, [status for status, _ in refused.values()])

    def _not_taken(self, reason: str, statuses: list[int]) -> UnavailableError:
        if statuses and min(statuses) >= _SMTP_REFUSED:
            return RefusedError(_named(self._settings), f"{reason} ({statuses[0]})", status=statuses[0])
        return UnavailableError(_named(self._settings), reason)

    def _connected(self) -> SMTP:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "smtps":
            return SMTP_SSL(host, port or _SMTPS_PORT, timeout=self._timeout_s, context=self._context())
        server = SMTP(host, port or _SMTP_PORT, timeout=self._timeout_s)
        if self._parts.scheme == "smtp":
            try:
                with at_most(_socket_of(server), self._post_s):
                    server.ehlo()
                server.starttls(context=self._context())
            except BaseException:
                server.close()
                raise
        return server

    def _context(self) -> ssl.SSLContext:
        return self._tls or ssl.create_default_context()


type AnySink = WebhookSink | ChatSink | PagerDutySink | EmailSink


def open_sink(settings: AlertSink, *, clock: Clock) -> AnySink:
    """The sink that the settings ask for. Nothing connects yet."""
    match settings.kind:
        case SinkKind.WEBHOOK:
            return WebhookSink(settings, clock=clock)
        case SinkKind.SLACK:
            return ChatSink(settings, slack_body)
        case SinkKind.TEAMS:
            return ChatSink(settings, teams_body)
        case SinkKind.PAGERDUTY:
            return PagerDutySink(settings)
        case SinkKind.EMAIL:
            return EmailSink(settings)


def _statuses(error: Exception) -> list[int]:
    """What a mail server answered, where it did."""
    match error:
        case SMTPResponseException():
            return [error.smtp_code]
        case SMTPRecipientsRefused():
            return [status for status, _ in error.recipients.values()]
    return []


def _socket_of(server: SMTP) -> socket.socket:
    if server.sock is None:
        raise SMTPServerDisconnected
    return server.sock


def _address(settings: AlertSink, timeout_s: float) -> Address:
    return Address(_named(settings), settings.address, timeout_s=timeout_s)


def _named(settings: AlertSink) -> str:
    return f"the sink {settings.name} of alerts"


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()
