"""A post ends before another call takes its notice for lost, however slowly the other side goes on."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from shared.alerts.formats import pagerduty_events
from shared.alerts.mailbox import LEASE
from shared.alerts.notices import Item, Line, News, Notice
from shared.alerts.sinks import POST_S, EmailSink, PagerDutySink
from shared.core.alert_settings import AlertSink
from shared.core.errors import UnavailableError
from shared.core.severity import Severity
from shared.events.posting import TIMEOUT_S

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def notice() -> Notice:
    line = Line(
        alert_id="alert-1",
        model="digits",
        news=News.FIRING,
        number=1,
        since=NOW,
        rule="slow",
        subject="endpoint:digits",
        severity=Severity.CRITICAL,
        sentence="it is slow",
        changed_at=NOW,
        count=1,
        link="/api/alerts/alert-1",
    )
    return Notice(notice_id="notice-1", at=NOW, models=("digits",), lines=(line,), try_at=NOW)


@pytest.fixture
def slow_server() -> Iterator[int]:
    """The port of a mail server that answers a greeting with line after line, hangs up in the end, and so ends."""
    is_over = threading.Event()

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"220 slow\r\n")
            connection.recv(1_000)
            for _ in range(200):
                connection.sendall(b"250-more\r\n")
                if is_over.wait(0.02):
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield listening.getsockname()[1]
        is_over.set()
        thread.join()


@pytest.mark.parametrize("scheme", ["smtp", "smtp+plain"])
def test_a_mail_server_that_goes_on_and_on_is_cut_off(slow_server: int, scheme: str) -> None:
    given = {"name": "mail", "kind": "email", "url": f"{scheme}://127.0.0.1:{slow_server}"}
    settings = AlertSink.model_validate(given | {"sender": "a@example.com", "to": ["b@example.com"]})
    with pytest.raises(UnavailableError, match="TimeoutError while it was sent to"):
        EmailSink(settings, post_s=0.2).post(notice())


def test_incidents_whose_time_is_up_are_left_to_the_next_try() -> None:
    settings = AlertSink.model_validate({"name": "pager", "kind": "pagerduty", "secret": "0123456789abcdef" * 2})
    with pytest.raises(UnavailableError, match="not all events were posted within 0 s"):
        PagerDutySink(settings, post_s=0).post(notice())


def test_the_incident_for_all_the_rest_is_as_grave_as_they_may_be() -> None:
    rest = (Item(alert_id="alert-2", model="digits", news=News.FIRING, number=1, since=NOW),)
    for severity in (Severity.CRITICAL, Severity.INFO):
        lines = tuple(line.model_copy(update={"severity": severity}) for line in notice().lines)
        told = notice().model_copy(update={"lines": lines, "more": rest})
        assert pagerduty_events(told, routing_key="k")[-1]["payload"]["severity"] == severity.value


def test_the_lease_on_a_notice_outlasts_the_longest_post() -> None:
    # Before and after the timed parts of a mail: the connection, the greeting, the key exchange, the farewell.
    assert LEASE.total_seconds() > 2 * POST_S + 5 * TIMEOUT_S
