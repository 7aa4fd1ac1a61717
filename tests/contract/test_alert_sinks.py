"""The sinks of alerts against servers on this machine: what each takes, and how each takes trouble.

The webhook's receiver is the reference library of Standard Webhooks; PagerDuty's checks what its Events API v2 checks;
the mail server is a real one, with TLS and a login.
"""

import base64
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError

from local.processes import free_port
from shared.alerts.formats import MORE_KEY
from shared.alerts.notices import Item, Line, News, Notice
from shared.alerts.sinks import EmailSink, open_sink
from shared.core.alert_settings import AlertSink
from shared.core.clock import SystemClock
from shared.core.errors import UnavailableError
from shared.core.severity import Severity
from shared.events.posting import RefusedError

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
KEYS = [base64.b64encode(bytes([number]) * 32).decode() for number in (1, 2)]


def line(alert_id: str = "alert-1", news: News = News.FIRING, **fields: Any) -> Line:
    given = {
        "alert_id": alert_id,
        "news": news,
        "number": 1,
        "since": NOW,
        "rule": "error_rate",
        "model": "digits",
        "subject": "endpoint:digits",
        "severity": Severity.CRITICAL,
        "sentence": "9 % of größer <!channel> & *requests* failed",
        "changed_at": NOW,
        "count": 1,
        "link": f"https://s.example/api/alerts/{alert_id}",
    }
    return Line.model_validate(given | fields)


def notice(*lines: Line, more: int = 0) -> Notice:
    extra = tuple(
        Item(alert_id=f"more-{number}", model="digits", news=News.FIRING, number=1, since=NOW) for number in range(more)
    )
    return Notice(notice_id="notice-0123", at=NOW, models=("digits",), lines=lines or (line(),), more=extra, try_at=NOW)


class Receiver(ThreadingHTTPServer):
    """Keeps what it is sent, and answers as its check says."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.statuses: list[int] = []
        """The next answers; then 202."""
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/hook?sig=5ec2e7"

    def bodies(self) -> list[Any]:
        """The JSON that it was sent."""
        return [json.loads(body) for _, _, body in self.got]


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def post(told: Notice, **settings: Any) -> None:
    sink = AlertSink.model_validate({"name": "ops"} | settings)
    open_sink(sink, clock=SystemClock()).post(told)


def test_a_webhook_is_what_the_reference_library_takes_by_each_key_and_by_no_other(receiver: Receiver) -> None:
    secret = " ".join(f"whsec_{key}" for key in KEYS)
    post(notice(line(), line("alert-2", News.RESOLVED), more=3), kind="webhook", url=receiver.url, secret=secret)
    ((path, headers, body),) = receiver.got
    assert path == "/hook?sig=5ec2e7"
    assert headers["webhook-id"] == "notice-0123"
    for key in KEYS:
        found = Webhook(f"whsec_{key}").verify(body, headers)
        assert (found["type"], found["data"]["more"]) == ("alerts", 3)
        assert [one["alert_id"] for one in found["data"]["alerts"]] == ["alert-1", "alert-2"]
        assert found["data"]["alerts"][0]["link"] == "https://s.example/api/alerts/alert-1"
    with pytest.raises(WebhookVerificationError):
        Webhook(f"whsec_{KEYS[0]}").verify(body.replace(b"endpoint", b"endpoimt"), headers)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + base64.b64encode(b"3" * 32).decode()).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(f"whsec_{KEYS[0]}").verify(body, headers | {"webhook-id": "another"})


def test_a_notice_that_is_sent_again_is_the_same_bytes_under_the_same_id(receiver: Receiver) -> None:
    for _ in range(2):
        post(notice(), kind="webhook", url=receiver.url, secret=f"whsec_{KEYS[0]}")
    (first, again) = receiver.got
    assert first[2] == again[2]
    assert first[1]["webhook-id"] == again[1]["webhook-id"]


def test_slack_gets_blocks_within_its_limits_that_mention_nobody(receiver: Receiver) -> None:
    lines = [line(f"alert-{number}", sentence="<!channel> & so on " * 300) for number in range(20)]
    post(notice(*lines, more=980), kind="slack", url=receiver.url)
    (body,) = receiver.bodies()
    assert len(body["blocks"]) <= 50
    sections = [block["text"]["text"] for block in body["blocks"] if block["type"] == "section"]
    assert len(sections) == 20
    assert all(len(text) <= 3_000 and "<!" not in text and "l>" not in text for text in sections)
    assert sections[0].endswith("<https://s.example/api/alerts/alert-0|evidence>")
    assert body["blocks"][-1]["elements"][0]["text"] == "and 980 more: `slipway alerts list`"
    assert body["text"] == "[1000 firing] 1000 alerts of digits"


def test_teams_gets_an_adaptive_card_whose_text_is_plain_with_links(receiver: Receiver) -> None:
    post(notice(line(), line("alert-2", News.RESOLVED), more=2), kind="teams", url=receiver.url)
    (body,) = receiver.bodies()
    assert body["type"] == "message"
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {block["type"] for block in card["body"]} == {"RichTextBlock"}
    said = [block["inlines"][0]["text"] for block in card["body"]]
    assert "9 % of größer <!channel> & *requests* failed" in said
    assert said[-1] == "and 2 more: `slipway alerts list`"
    assert [action["url"][-7:] for action in card["actions"]] == ["alert-1", "alert-2"]


def test_pagerduty_gets_an_event_for_each_alert_under_its_id_and_one_for_the_rest(receiver: Receiver) -> None:
    told = notice(
        line(),
        line("alert-2", News.REPEATED, severity=Severity.WARNING),
        line("alert-3", News.ACKNOWLEDGED),
        line("alert-4", News.RESOLVED),
        more=7,
    )
    post(told, kind="pagerduty", url=receiver.url, secret="k" * 32)
    events = receiver.bodies()
    assert [(event["event_action"], event["dedup_key"]) for event in events] == [
        ("trigger", "alert-1"),
        ("trigger", "alert-2"),
        ("acknowledge", "alert-3"),
        ("resolve", "alert-4"),
        ("trigger", MORE_KEY),
    ]
    for event in events:
        # What the Events API v2 asks for.
        assert event["routing_key"] == "k" * 32
        if event["event_action"] == "trigger":
            payload = event["payload"]
            assert 0 < len(payload["summary"]) <= 1_024
            assert payload["source"]
            assert payload["severity"] in {"critical", "error", "warning", "info"}
    assert events[0]["links"] == [{"href": "https://s.example/api/alerts/alert-1", "text": "evidence"}]
    assert events[4]["payload"]["summary"] == "7 more alerts fire: `slipway alerts list`"


def test_where_pagerduty_refuses_an_event_all_are_sent_again(receiver: Receiver) -> None:
    receiver.statuses = [202, 429]
    told = notice(line(), line("alert-2"))
    with pytest.raises(UnavailableError, match="it answered 429"):
        post(told, kind="pagerduty", url=receiver.url, secret="k" * 32)
    post(told, kind="pagerduty", url=receiver.url, secret="k" * 32)
    assert [event["dedup_key"] for event in receiver.bodies()] == ["alert-1", "alert-2", "alert-1", "alert-2"]


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "webhook", "secret": f"whsec_{KEYS[0]}"},
        {"kind": "slack"},
        {"kind": "teams"},
        {"kind": "pagerduty", "secret": "k" * 32},
    ],
    ids=lambda settings: settings["kind"],
)
def test_what_a_sink_answers_other_than_2xx_is_an_error_that_repeats_no_secret(
    receiver: Receiver, settings: dict[str, str]
) -> None:
    receiver.statuses = [302, 400, 500]
    for status in (302, 400, 500):
        with pytest.raises(UnavailableError, match=f"the sink ops of alerts is unavailable: it answered {status}") as e:
            post(notice(), url=receiver.url, **settings)
        assert "5ec2e7" not in str(e.value)
    with pytest.raises(UnavailableError, match="ConnectionRefusedError while it was posted to"):
        post(notice(), url=f"http://127.0.0.1:{free_port()}/", **settings)


@dataclass
class MailServer:
    """A mail server that keeps what it is sent, and refuses some addresses."""

    mails: list[Envelope] = field(default_factory=list)
    refuses: set[str] = field(default_factory=set)
    users: list[tuple[bytes, bytes]] = field(default_factory=list)
    answer: str = ""
    """What it says to every address, where it is to say something."""

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        """Take an address, or not."""
        if self.answer:
            return self.answer
        if address in self.refuses:
            return "550 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Keep a mail."""
        self.mails.append(envelope)
        return "250 kept"

    def log_in(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        """Let in who knows the password."""
        assert isinstance(data, LoginPassword)
        self.users.append((data.login, data.password))
        return AuthResult(success=data.password == b"sesame", handled=False)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + made.public_bytes(serialization.Encoding.PEM)
    path = tmp_path / "server.pem"
    path.write_bytes(pem)
    return path


def mail_settings(scheme: str, port: int, **more: Any) -> AlertSink:
    given = {
        "name": "mail",
        "kind": "email",
        "url": f"{scheme}://127.0.0.1:{port}",
        "sender": "slipway@example.com",
        "to": ["ann@example.com", "bob@example.com"],
    }
    return AlertSink.model_validate(given | more)


def test_a_mail_goes_out_over_tls_after_a_login_with_what_it_has_to_say(certificate: Path) -> None:
    server = MailServer()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    port = free_port()
    controller = Controller(
        server, hostname="127.0.0.1", port=port, tls_context=tls, require_starttls=True, authenticator=server.log_in
    )
    controller.start()
    try:
        settings = mail_settings("smtp", port, user="slipway", secret="sesame")  # noqa: S106 - of this test
        EmailSink(settings, tls=ssl.create_default_context(cafile=str(certificate))).post(
            notice(line(), line("alert-2", News.RESOLVED), more=4)
        )
        (mail,) = server.mails
        assert mail.rcpt_tos == ["ann@example.com", "bob@example.com"]
        text = mail.content.decode() if isinstance(mail.content, bytes) else str(mail.content)
        assert "Message-ID: <notice-0123@example.com>" in text
        assert "https://s.example/api/alerts/alert-2" in text
        assert "and 4 more: `slipway alerts list`" in text
        assert server.users == [(b"slipway", b"sesame")]
        wrong = mail_settings("smtp", port, user="slipway", secret="wrong")  # noqa: S106 - likewise
        with pytest.raises(RefusedError, match=r"SMTPAuthenticationError while it was sent to \(535\)") as raised:
            EmailSink(wrong, tls=ssl.create_default_context(cafile=str(certificate))).post(notice())
        assert "wrong" not in str(raised.value)
        logins = len(server.users)
        # A server that nobody vouches for gets neither the password nor the mail.
        with pytest.raises(UnavailableError, match="SSLCertVerificationError"):
            EmailSink(settings).post(notice())
        assert (len(server.mails), len(server.users)) == (1, logins)
    finally:
        controller.stop()


def test_a_mail_that_one_of_its_addresses_is_refused_for_is_not_taken_for_sent() -> None:
    server = MailServer(refuses={"bob@example.com"})
    port = free_port()
    controller = Controller(server, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        with pytest.raises(RefusedError, match=r"it refused 1 of the addresses \(550\)"):
            EmailSink(mail_settings("smtp+plain", port)).post(notice())
        server.refuses.add("ann@example.com")
        with pytest.raises(RefusedError, match=r"SMTPRecipientsRefused while it was sent to \(550\)"):
            EmailSink(mail_settings("smtp+plain", port)).post(notice())
        server.refuses.clear()
        server.answer = "450 try later"
        with pytest.raises(UnavailableError, match=r"SMTPRecipientsRefused while it was sent to$") as raised:
            EmailSink(mail_settings("smtp+plain", port)).post(notice())
        assert not isinstance(raised.value, RefusedError)
        server.answer = ""
        EmailSink(mail_settings("smtp+plain", port)).post(notice())
        assert [mail.rcpt_tos for mail in server.mails] == [["ann@example.com"], ["ann@example.com", "bob@example.com"]]
    finally:
        controller.stop()
    with pytest.raises(UnavailableError, match="the sink mail of alerts is unavailable: ConnectionRefusedError"):
        EmailSink(mail_settings("smtp+plain", port)).post(notice())
