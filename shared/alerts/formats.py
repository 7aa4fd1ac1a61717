"""How a notice reads to each kind of sink. Pure: the same notice is the same bytes, however often it is sent.

Sources: Standard Webhooks 1.0 (payload), Slack's Block Kit, Adaptive Cards 1.4 in the envelope that a workflow of
Teams's takes, PagerDuty's Events API v2. What people wrote may stand in a sentence or a subject: it is escaped, or
stands where the receiver takes it for plain text, and mentions nobody.
"""

from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

from shared.alerts.notices import Line, News, Notice
from shared.core.severity import Severity
from shared.events.chat import slack_escaped

_SLACK_TEXT = 2_900
"""Slack takes 3,000 characters in a section, and 50 blocks."""
_SUMMARY = 1_000
"""PagerDuty takes 1,024 characters of a summary."""
_COLOURS = {Severity.CRITICAL: "attention", Severity.WARNING: "warning", Severity.INFO: "default"}
_PAGERDUTY_ACTIONS = {
    News.FIRING: "trigger",
    News.REPEATED: "trigger",
    News.ACKNOWLEDGED: "acknowledge",
    News.RESOLVED: "resolve",
}
MORE_KEY = "slipway-more"
"""The incident that stands for all alerts that are not told one by one."""


def webhook_body(notice: Notice) -> dict[str, Any]:
    """The payload of a webhook: what there is to know, for programs."""
    return {
        "type": "alerts",
        "timestamp": notice.at.isoformat(),
        "data": {
            "notice_id": notice.notice_id,
            "subject": notice.subject,
            "alerts": [line.model_dump(mode="json") for line in notice.lines],
            "more": len(notice.more),
        },
    }


def slack_body(notice: Notice) -> dict[str, Any]:
    """The body for an incoming webhook of Slack's."""
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": notice.subject[:150], "emoji": False}}
    ]
    blocks.extend(
        {"type": "section", "text": {"type": "mrkdwn", "text": _slack_line(line), "verbatim": True}}
        for line in notice.lines
    )
    if notice.closing:
        blocks.append({"type": "context", "elements": [{"type": "plain_text", "text": notice.closing}]})
    return {"text": slack_escaped(notice.subject), "blocks": blocks}


def teams_body(notice: Notice) -> dict[str, Any]:
    """The body for a workflow of Teams's: an Adaptive Card."""
    body: list[dict[str, Any]] = [_text(notice.subject, size="medium", weight="bolder")]
    for line in notice.lines:
        colour = "good" if line.news is News.RESOLVED else _COLOURS[line.severity]
        body.append(_text(_heading(line), color=colour, weight="bolder", separator=True))
        body.append(_text(line.sentence))
        body.append(_text(_details(line), isSubtle=True, size="small"))
    if notice.closing:
        body.append(_text(notice.closing))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    links = [line for line in notice.lines if line.link.startswith("http")][:5]
    if links:
        card["actions"] = [{"type": "Action.OpenUrl", "title": _heading(one)[:80], "url": one.link} for one in links]
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def pagerduty_events(notice: Notice, *, routing_key: str) -> list[dict[str, Any]]:
    """The events of a notice: one for each alert that it lists, under the alert's id, and one for all the rest."""
    events = [_pagerduty_event(line, routing_key) for line in notice.lines]
    firing = sum(item.news is not News.RESOLVED for item in notice.more)
    if firing:
        events.append(
            {
                "routing_key": routing_key,
                "event_action": "trigger",
                "dedup_key": MORE_KEY,
                "payload": {
                    "summary": f"{firing} more alerts fire: `slipway alerts list`",
                    "source": "slipway",
                    # The gravest are listed: of the others none is graver than the last of these.
                    "severity": notice.lines[-1].severity.value,
                    "timestamp": notice.at.isoformat(),
                },
            }
        )
    return events


def email_message(notice: Notice, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
    """The notice as a mail. Its Message-ID is the notice's: a mail server that gets it twice may know it."""
    mail = EmailMessage()
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Subject"] = " ".join(notice.subject.split())
    mail["Date"] = format_datetime(notice.at)
    mail["Message-ID"] = f"<{notice.notice_id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(plain_text(notice))
    return mail


def plain_text(notice: Notice) -> str:
    """The notice in plain text."""
    parts = [f"{_heading(line)}\n{line.sentence}\n{_details(line)}\n{line.link}" for line in notice.lines]
    if notice.closing:
        parts.append(notice.closing)
    return "\n\n".join(parts) + "\n"


def _heading(line: Line) -> str:
    return f"[{line.news}] {line.rule} of {line.subject} ({line.severity})"


def _details(line: Line) -> str:
    seen = f", acknowledged by {line.acknowledged_by}" if line.acknowledged_by else ""
    times = f", found {line.count} times" if line.count > 1 else ""
    return f"since {line.since:%Y-%m-%d %H:%M:%S} UTC{times}{seen}; {line.alert_id}"


def _slack_line(line: Line) -> str:
    link = f"<{line.link}|evidence>" if line.link.startswith("http") else f"evidence: {line.link}"
    text = slack_escaped(f"{_heading(line)}\n{line.sentence}\n{_details(line)}")
    return f"{text[: _SLACK_TEXT - len(link)]}\n{link}"


def _text(text: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - a JSON value
    # A TextRun is not read as Markdown, which a TextBlock is.
    runs: dict[str, Any] = {"type": "TextRun", "text": text}
    runs |= {key: more.pop(key) for key in ("size", "weight", "color", "isSubtle") if key in more}
    return {"type": "RichTextBlock", "inlines": [runs], **more}


def _pagerduty_event(line: Line, routing_key: str) -> dict[str, Any]:
    action = _PAGERDUTY_ACTIONS[line.news]
    event: dict[str, Any] = {"routing_key": routing_key, "event_action": action, "dedup_key": line.alert_id}
    if action != "trigger":
        return event
    event["payload"] = {
        "summary": f"{line.rule} of {line.subject}: {line.sentence}"[:_SUMMARY],
        "source": line.subject,
        "severity": line.severity.value,
        "timestamp": line.since.isoformat(),
        "component": line.model,
        "class": line.rule,
        "custom_details": {"alert_id": line.alert_id, "count": line.count, "evidence": line.link},
    }
    if line.link.startswith("http"):
        event["links"] = [{"href": line.link, "text": "evidence"}]
    return event
