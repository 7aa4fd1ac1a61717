"""Alerts: what somebody should look at. They are listed, acknowledged and silenced here, and told to sinks."""

from datetime import UTC, datetime, timedelta
from typing import Any

import azure.functions as func
from pydantic import AwareDatetime, Field, ValidationError

from functions._http import answering, body_of, listing
from functions._messages import handled
from functions._requests import Command, Reason, Text
from functions._services import services
from functions._tracing import timed
from shared.alerts.documents import Alert
from shared.alerts.silences import Matcher, Silence
from shared.core.errors import InvalidInputError
from shared.core.messages import Queue, TellNews
from shared.store.unreadable import Unreadable

bp = func.Blueprint()


class AcknowledgeBody(Command):
    """The body of an acknowledgement."""

    by: Reason
    reason: Text = ""


class SilenceBody(Command):
    """The body of a silence: patterns of what it matches, and until when, or for how long."""

    rule: str = ""
    model: str = ""
    subject: str = ""
    by: Reason
    reason: Reason
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    for_s: float | None = Field(default=None, ge=60, le=7_776_000)

    @property
    def match(self) -> Matcher:
        """What it matches. Raises InvalidInputError."""
        try:
            return Matcher(rule=self.rule, model=self.model, subject=self.subject)
        except ValidationError as error:
            said = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            raise InvalidInputError(f"what is to be silenced: {said}") from None

    def end(self, now: datetime) -> datetime:
        """When it ends. Raises InvalidInputError."""
        if (self.until is None) == (self.for_s is None):
            raise InvalidInputError("a silence needs an end: give until, or for_s, in seconds")
        try:
            return self.until or (self.since or now) + timedelta(seconds=self.for_s or 0.0)
        except OverflowError:
            raise InvalidInputError("the silence would end after the year 9999: give an earlier since") from None


class ExpireBody(Command):
    """The body of an end of a silence."""

    by: Reason
    reason: Text = ""


@bp.function_name("tell_news")
@bp.queue_trigger(arg_name="message", queue_name=Queue.ALERT_NEWS.value, connection="SlipwayStorage")
def tell_news(message: func.QueueMessage) -> None:
    """Tell the sinks of alerts what there is to tell."""
    handled(Queue.ALERT_NEWS, message, TellNews, services().notifications.tell)


@bp.function_name("settle_notifications")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def settle_notifications(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Tell the sinks of alerts what a crash, a silence or a sink that was down kept from them, and what to repeat."""
    services().notifications.settle()


@bp.function_name("settle_traffic_alerts")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def settle_traffic_alerts(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Have the alerts say how the endpoints' traffic is."""
    services().traffic_alerts.settle()


@bp.function_name("settle_control_alerts")
@bp.timer_trigger(arg_name="timer", schedule="%SLIPWAY_SWEEP_SCHEDULE%")
@timed
def settle_control_alerts(timer: func.TimerRequest) -> None:  # noqa: ARG001 - the binding gives it
    """Have the alerts say how the control plane does."""
    services().control_alerts.settle()


@bp.function_name("list_alerts")
@bp.route("alerts", methods=["GET"])
@answering
def list_alerts(req: func.HttpRequest) -> dict[str, Any]:
    """All alerts; with `?state=pending`, `firing` or `resolved`, those alone."""
    page = services().alerts.alerts(req.params.get("state") or None, req.params.get("continuation"))
    return listing(map(alert_view, page.items), page.continuation, page.unreadable)


@bp.function_name("get_alert")
@bp.route("alerts/{alert}", methods=["GET"])
@answering
def get_alert(req: func.HttpRequest) -> dict[str, Any]:
    """An alert."""
    return alert_view(services().alerts.alert(req.route_params["alert"]))


@bp.function_name("acknowledge_alert")
@bp.route("alerts/{alert}/acknowledge", methods=["POST"])
@answering
def acknowledge_alert(req: func.HttpRequest) -> dict[str, Any]:
    """Note that somebody has seen an alert."""
    body = body_of(req, AcknowledgeBody)
    return alert_view(services().alerts.acknowledge(req.route_params["alert"], by=body.by, reason=body.reason))


@bp.function_name("list_silences")
@bp.route("silences", methods=["GET"])
@answering
def list_silences(req: func.HttpRequest) -> dict[str, Any]:  # noqa: ARG001 - the binding gives it
    """The silences in force, and those that are to come."""
    unreadable = list[Unreadable]()
    return listing(map(silence_view, services().alerts.silences(unreadable)), unreadable=unreadable)


@bp.function_name("silence_alerts")
@bp.route("silences", methods=["POST"])
@answering
def silence_alerts(req: func.HttpRequest) -> dict[str, Any]:
    """Keep the sinks from being told of some alerts for a time."""
    body = body_of(req, SilenceBody)
    made = services().alerts.silence(
        body.match,
        by=body.by,
        reason=body.reason,
        since=body.since,
        until=body.end(datetime.now(UTC)),
        command_id=body.command_id,
    )
    return silence_view(made)


@bp.function_name("expire_silence")
@bp.route("silences/{silence}/expire", methods=["POST"])
@answering
def expire_silence(req: func.HttpRequest) -> dict[str, Any]:
    """End a silence before its time."""
    body = body_of(req, ExpireBody)
    return silence_view(services().alerts.expire_silence(req.route_params["silence"], by=body.by, reason=body.reason))


def alert_view(alert: Alert) -> dict[str, Any]:
    """An alert as the API gives it."""
    shown = alert.model_dump(
        mode="json",
        include={
            "rule",
            "model",
            "subject",
            "state",
            "severity",
            "sentence",
            "evidence",
            "since",
            "changed_at",
            "count",
            "acknowledged",
            "silenced_by",
        },
    )
    return {"alert_id": alert.id, **shown}


def silence_view(silence: Silence) -> dict[str, Any]:
    """A silence as the API gives it."""
    shown = silence.model_dump(mode="json", include={"match", "by", "reason", "since", "until", "is_over"})
    return {"silence_id": silence.id, **shown}
