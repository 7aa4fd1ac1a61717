"""Which sinks are told of alerts, of which ones, and how often: a part of the functions app's settings.

Addresses and secrets never show in `repr`, and no error repeats the setting.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, TypeAdapter, ValidationError, model_validator

from shared.core.errors import InvalidInputError
from shared.core.severity import Severity

ALERT_SINKS = "SLIPWAY_ALERT_SINKS"
PUBLIC_URL = "SLIPWAY_PUBLIC_URL"
GROUP_WAIT_S = "SLIPWAY_ALERT_GROUP_WAIT_S"

_PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_ADDRESS = re.compile(r"[^@\s,;<>\"]{1,64}@[A-Za-z0-9.-]{1,255}")
_SECRET_PREFIX = "whsec_"  # noqa: S105 - what a secret begins with, as Standard Webhooks has it


class SinkKind(StrEnum):
    """What an alert is told by."""

    WEBHOOK = "webhook"
    """A signed POST, as Standard Webhooks has it."""
    SLACK = "slack"
    """An incoming webhook of Slack's."""
    TEAMS = "teams"
    """A workflow of Teams's that posts to a channel when a webhook request is received."""
    PAGERDUTY = "pagerduty"
    """The Events API v2 of PagerDuty."""
    EMAIL = "email"
    """A mail server, by SMTP."""


class AlertSink(BaseModel):
    """A sink of alerts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")]
    kind: SinkKind
    url: SecretStr = SecretStr("")
    """Where to post to; `smtp://host:587` (STARTTLS), `smtps://host:465`, or, on this machine, `smtp+plain://`."""
    secret: SecretStr = SecretStr("")
    """A webhook's key (`whsec_` and base64; several, for a change of keys, are separated by spaces), PagerDuty's
    integration key, or the mail server's password."""
    user: str = Field(default="", max_length=320)
    """The mail server's user."""
    sender: str = ""
    to: tuple[str, ...] = Field(default=(), max_length=50)
    severity: Severity = Severity.INFO
    """It is told of what is as grave, or graver."""
    models: tuple[str, ...] = Field(default=("*",), min_length=1, max_length=100)
    """Patterns of the models whose alerts it is told; `-` stands for what is about no model."""
    repeat_s: float = Field(default=14_400.0, ge=60, le=2_592_000)
    """After how long it is told again of what still fires and nobody acknowledged."""
    most: int = Field(default=10, ge=2, le=1_000)
    """Messages in `per_s` at most; what is more is told together."""
    per_s: float = Field(default=600.0, ge=1, le=86_400)

    @model_validator(mode="after")
    def _can_be_reached(self) -> Self:
        problem = _problem(self)
        if problem:
            raise ValueError(problem)
        return self

    @property
    def keys(self) -> tuple[bytes, ...]:
        """A webhook's keys: all sign."""
        return tuple(_key(word) for word in self.secret.get_secret_value().split())

    @property
    def address(self) -> str:
        """Where to post to."""
        url = self.url.get_secret_value()
        return _PAGERDUTY if self.kind is SinkKind.PAGERDUTY and not url else url


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSettings:
    """Who is told of alerts. Without sinks nobody is."""

    sinks: tuple[AlertSink, ...] = ()
    public_url: str = ""
    """How the links in what is sent begin: the address of this app's API, without a / at its end."""
    group_wait_s: float = 30.0
    """How long the first news waits for more to be told with."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """Read the settings; an empty value counts as absent. Raises InvalidInputError naming the setting."""
        return cls(sinks=_sinks(env), public_url=_public_url(env), group_wait_s=_group_wait_s(env))


def _sinks(env: Mapping[str, str]) -> tuple[AlertSink, ...]:
    text = env.get(ALERT_SINKS, "").strip()
    if not text:
        return ()
    try:
        sinks = TypeAdapter(tuple[AlertSink, ...]).validate_json(text)
    except ValidationError as error:
        # The value holds secrets: neither it nor a part of it is repeated.
        found = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in found["loc"])
        said = found["msg"].removeprefix("Value error, ")
        raise InvalidInputError(
            f"the setting {ALERT_SINKS} is no list of sinks{f', at {where}' if where else ''}: {said} "
            "(docs/alerts.md shows one of each kind)"
        ) from None
    if len({sink.name for sink in sinks}) != len(sinks):
        raise InvalidInputError(f"the setting {ALERT_SINKS} names two sinks alike: name each differently")
    return sinks


def _problem(sink: AlertSink) -> str:
    """What is wrong with a sink, in words that repeat nothing of it; empty where nothing is."""
    if sink.kind is SinkKind.EMAIL:
        return _email_problem(sink)
    if sink.user or sink.sender or sink.to:
        return "user, sender and to are an email sink's alone"
    if not _is_url(sink.address, ("https",), "http"):
        return f"a {sink.kind} sink has a url: https://, or http:// on this machine, without a user"
    return _secret_problem(sink)


def _email_problem(sink: AlertSink) -> str:
    if not _is_url(sink.address, ("smtp", "smtps"), "smtp+plain"):
        return "an email sink has a url: smtp://host:587, smtps://host:465, or smtp+plain:// on this machine"
    if not (_ADDRESS.fullmatch(sink.sender) and sink.to and all(_ADDRESS.fullmatch(one) for one in sink.to)):
        return "an email sink has a sender, and addresses in to"
    if bool(sink.user) != bool(sink.secret.get_secret_value()):
        return "an email sink has a user and a secret, or neither"
    return ""


def _secret_problem(sink: AlertSink) -> str:
    secret = sink.secret.get_secret_value()
    match sink.kind:
        case SinkKind.WEBHOOK if not (secret and all(map(_is_key, secret.split()))):
            return "a webhook sink has a secret: whsec_ and the base64 of 24 to 64 bytes (openssl rand -base64 32)"
        case SinkKind.PAGERDUTY if not re.fullmatch(r"[A-Za-z0-9]{32}", secret):
            return "a pagerduty sink has a secret: the integration key, of 32 letters and digits"
        case SinkKind.SLACK | SinkKind.TEAMS if secret:
            return f"a {sink.kind} sink has no secret: its url is one"
    return ""


def _is_key(word: str) -> bool:
    try:
        return word.startswith(_SECRET_PREFIX) and 24 <= len(_key(word)) <= 64
    except binascii.Error:
        return False


def _key(word: str) -> bytes:
    return base64.b64decode(word.removeprefix(_SECRET_PREFIX), validate=True)


def _is_url(url: str, schemes: tuple[str, ...], local: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    is_here = parts.scheme == local and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    is_plain = url.isascii() and url.isprintable() and " " not in url
    return bool((parts.scheme in schemes or is_here) and parts.hostname and not parts.username and is_plain)


def _public_url(env: Mapping[str, str]) -> str:
    text = env.get(PUBLIC_URL, "").strip().rstrip("/")
    if text and (not _is_url(text, ("https", "http"), "http") or "?" in text or "#" in text):
        raise InvalidInputError(
            f"the setting {PUBLIC_URL} is {text[:80]!r}: use the address of the API, as in https://slipway.example.com/api"
        )
    return text


def _group_wait_s(env: Mapping[str, str]) -> float:
    text = env.get(GROUP_WAIT_S, "").strip() or "30"
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 3_600:
        raise InvalidInputError(f"the setting {GROUP_WAIT_S} is {text[:40]!r}: use 0 to 3600 seconds")
    return seconds
