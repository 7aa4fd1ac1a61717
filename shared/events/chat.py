"""How a lifecycle event reads in a channel of Slack or Teams: for people who follow rollouts, a message a transition.

What people wrote may stand in an event's data: it is escaped, or stands where the receiver takes it for plain text, and
mentions nobody. Sources: Slack's incoming webhooks; Adaptive Cards 1.4 in the envelope that a workflow of Teams takes.
"""

from collections.abc import Mapping
from typing import Any

from shared.core.canonical import canonical_json
from shared.events.cloudevents import stream_of

_MOST = 200
"""Characters of a value that are told; the event itself has it whole."""
_MOST_VALUES = 20


def slack_message(event: Mapping[str, Any]) -> dict[str, Any]:
    """The body for an incoming webhook of Slack's, of an event in the form of a CloudEvent."""
    heading, details = _lines(event)
    return {"text": f"*{slack_escaped(heading)}*\n{slack_escaped(details)}".rstrip()}


def teams_message(event: Mapping[str, Any]) -> dict[str, Any]:
    """The body for a workflow of Teams's, of an event in the form of a CloudEvent: an Adaptive Card."""
    heading, details = _lines(event)
    runs = [{"type": "TextRun", "text": heading, "weight": "bolder"}, {"type": "TextRun", "text": f"\n{details}"}]
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        # A TextRun is not read as Markdown, which a TextBlock is.
        "body": [{"type": "RichTextBlock", "inlines": runs}],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return {"type": "message", "attachments": [attachment]}


def slack_escaped(text: str) -> str:
    """Text in which nothing reads as a mention or a link."""
    # https://docs.slack.dev/messaging/formatting-message-text: these three.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _lines(event: Mapping[str, Any]) -> tuple[str, str]:
    """What happened to what, and the event's data."""
    kind = str(event["type"]).rpartition(".")[2]
    heading = f"{kind.replace('_', ' ')}: {stream_of(event)} {event['subject']}"
    told = [f"{name}: {_told(value)}" for name, value in event["data"].items() if value not in (None, "", [], {})]
    more = f", and {len(told) - _MOST_VALUES} more" if len(told) > _MOST_VALUES else ""
    return heading, ", ".join(told[:_MOST_VALUES]) + more


def _told(value: object) -> str:
    text = value if isinstance(value, str) else canonical_json(value).decode()
    return text if len(text) <= _MOST else f"{text[: _MOST - 3]}..."
