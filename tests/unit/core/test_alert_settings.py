"""The settings of the sinks of alerts: what they read, what they refuse, and that no secret is repeated."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from shared.core.alert_settings import AlertSettings, SinkKind
from shared.core.errors import InvalidInputError
from shared.core.severity import Severity
from shared.registry.policy import Policy

DOCS = Path(__file__).parents[3] / "docs"
KEY = base64.b64encode(b"5ec2e7" * 6).decode()
HOOK = {"name": "ops", "kind": "webhook", "url": "https://hooks.example/5ec2e7", "secret": f"whsec_{KEY}"}
CHAT = {"name": "chat", "kind": "slack", "url": "https://hooks.example/5ec2e7"}
MAIL = {
    "name": "mail",
    "kind": "email",
    "url": "smtp://mail.example:587",
    "sender": "slipway@example.com",
    "to": ["ann@example.com"],
}
PAGER = {"name": "pager", "kind": "pagerduty", "secret": "5ec2e7" * 5 + "ab"}


def read(*sinks: Any, **env: str) -> AlertSettings:
    given = {"SLIPWAY_ALERT_SINKS": json.dumps(sinks)} if sinks else {}
    return AlertSettings.from_env(given | env)


def test_without_them_nobody_is_told() -> None:
    for env in ({}, {"SLIPWAY_ALERT_SINKS": " ", "SLIPWAY_PUBLIC_URL": "", "SLIPWAY_ALERT_GROUP_WAIT_S": ""}):
        assert AlertSettings.from_env(env) == AlertSettings(sinks=(), public_url="", group_wait_s=30.0)


def test_sinks_of_every_kind_are_read_and_show_no_secret() -> None:
    settings = read(
        HOOK | {"secret": f"whsec_{KEY} whsec_{KEY}", "models": ["d*"]},
        CHAT,
        CHAT | {"name": "teams", "kind": "teams", "url": "http://127.0.0.1:80/5ec2e7"},
        PAGER | {"severity": "critical"},
        MAIL | {"user": "u", "secret": "5ec2e7"},
        SLIPWAY_PUBLIC_URL="https://s.example/api/",
        SLIPWAY_ALERT_GROUP_WAIT_S="0",
    )
    assert [sink.kind for sink in settings.sinks] == list(SinkKind)
    assert settings.sinks[0].keys == (b"5ec2e7" * 6,) * 2
    assert settings.sinks[3].address == "https://events.pagerduty.com/v2/enqueue"
    assert settings.sinks[3].severity is Severity.CRITICAL
    assert (settings.public_url, settings.group_wait_s) == ("https://s.example/api", 0.0)
    assert "5ec2e7" not in repr(settings)


@pytest.mark.parametrize(
    ("sink", "said"),
    [
        (HOOK | {"secret": ""}, "a webhook sink has a secret: whsec_"),
        (HOOK | {"secret": "whsec_5ec2e7"}, "a webhook sink has a secret: whsec_"),
        (HOOK | {"secret": f"whsec_{KEY} 5ec2e7"}, "a webhook sink has a secret: whsec_"),
        (HOOK | {"url": "http://hooks.example/5ec2e7"}, "a webhook sink has a url: https://"),
        (HOOK | {"url": "https://5ec2e7:x@hooks.example/"}, "a webhook sink has a url: https://"),
        (CHAT | {"secret": "5ec2e7"}, "a slack sink has no secret: its url is one"),
        (CHAT | {"to": ["ann@example.com"]}, "user, sender and to are an email sink's alone"),
        (PAGER | {"secret": "5ec2e7"}, "a pagerduty sink has a secret: the integration key"),
        (MAIL | {"url": "smtp+plain://mail.example"}, "an email sink has a url: smtp://host:587"),
        (MAIL | {"to": []}, "an email sink has a sender, and addresses in to"),
        (MAIL | {"to": ["5ec2e7\r\nBcc: x@example.com"]}, "an email sink has a sender, and addresses in to"),
        (MAIL | {"user": "5ec2e7"}, "an email sink has a user and a secret, or neither"),
        (CHAT | {"name": "5ec2e7 5ec2e7"}, "at 0.name: String should match"),
        (CHAT | {"kind": "5ec2e7"}, "at 0.kind: Input should be 'webhook', 'slack'"),
        (CHAT | {"colour": "5ec2e7"}, "at 0.colour: Extra inputs are not permitted"),
        (CHAT | {"most": 1}, "at 0.most: Input should be greater than or equal to 2"),
        ("5ec2e7", "at 0: Input should be an object"),
    ],
)
def test_what_is_no_sink_is_refused_by_what_is_wrong_and_not_repeated(sink: object, said: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_ALERT_SINKS is no list of sinks") as raised:
        read(sink)
    assert said in str(raised.value)
    assert "5ec2e7" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_what_is_no_json_and_two_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="Invalid JSON") as raised:
        AlertSettings.from_env({"SLIPWAY_ALERT_SINKS": "[5ec2e7"})
    assert "5ec2e7" not in str(raised.value)
    with pytest.raises(InvalidInputError, match="names two sinks alike"):
        read(CHAT, HOOK | {"name": "chat"})


@pytest.mark.parametrize("text", ["slipway.example", "ftp://slipway.example", "https://s.example/api?code=1"])
def test_a_public_address_is_one_of_http(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_PUBLIC_URL"):
        read(SLIPWAY_PUBLIC_URL=text)


@pytest.mark.parametrize("text", ["-1", "3601", "nan", "soon"])
def test_the_wait_is_a_number_of_seconds_up_to_an_hour(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_ALERT_GROUP_WAIT_S"):
        read(SLIPWAY_ALERT_GROUP_WAIT_S=text)


def test_the_examples_in_the_guide_are_what_is_read() -> None:
    policy, sinks = re.findall(r"^```json\n(.*?)^```$", (DOCS / "alerts.md").read_text(), re.DOTALL | re.MULTILINE)
    assert [rule.name for rule in Policy.model_validate_json(policy).alerts] == ["p99", "quiet", "worth"]
    found = AlertSettings.from_env({"SLIPWAY_ALERT_SINKS": sinks}).sinks
    assert {sink.kind for sink in found} == set(SinkKind)
