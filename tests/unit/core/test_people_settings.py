"""The settings of approval links and of lifecycle events: what they read, and that no secret is repeated."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.core.errors import InvalidInputError
from shared.core.settings import EventFormat, Settings, SinkSettings

BASE = {"SLIPWAY_DOCUMENTS": "sqlite:/state/documents.db", "SlipwayStorage": "UseDevelopmentStorage=true"}


def read(**env: str) -> Settings:
    return Settings.from_env(BASE | env)


def test_without_them_there_are_no_links_and_nobody_is_told() -> None:
    for env in ({}, {"SLIPWAY_APPROVAL_KEY": "  ", "SLIPWAY_EVENT_SINKS": "", "SLIPWAY_EVENT_SOURCE": ""}):
        settings = read(**env)
        assert (settings.approval_keys, settings.event_sinks, settings.event_source) == ((), (), "/slipway")


def test_several_keys_are_read_in_their_order() -> None:
    keys = ["a5" * 32, "B6" * 128]
    assert read(SLIPWAY_APPROVAL_KEY=f" {keys[0]},\n{keys[1]} ").approval_keys == tuple(map(bytes.fromhex, keys))


@pytest.mark.parametrize("text", ["5ec2e7", "g" * 64, "5" * 65, f"{'5' * 64},{'x' * 64}", "5" * 258])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_APPROVAL_KEY is no key: use 64 to 256") as caught:
        read(SLIPWAY_APPROVAL_KEY=text)
    assert text[:10] not in str(caught.value)


def test_sinks_are_read_and_show_neither_address_nor_token() -> None:
    found = [
        {"name": "ops", "url": "https://hooks.example/T0/5ec2e7?x=1", "token": "5ec2e7"},
        {"name": "grid", "url": "https://t.westeurope-1.eventgrid.azure.net/api/events", "identity": True},
        {"name": "here", "url": "http://127.0.0.1:8080/", "format": "slack", "streams": ["endpoint", "alias"]},
    ]
    settings = read(SLIPWAY_EVENT_SINKS=json.dumps(found), SLIPWAY_EVENT_SOURCE="/slipway/production")
    assert settings.event_sinks == (
        SinkSettings(name="ops", url="https://hooks.example/T0/5ec2e7?x=1", token="5ec2e7"),  # noqa: S106 - no secret
        SinkSettings(name="grid", url="https://t.westeurope-1.eventgrid.azure.net/api/events", identity=True),
        SinkSettings(
            name="here",
            url="http://127.0.0.1:8080/",
            format=EventFormat.SLACK,
            streams=("endpoint", "alias"),
        ),
    )
    assert settings.event_source == "/slipway/production"
    assert "5ec2e7" not in repr(settings)


GOOD = {"name": "ops", "url": "https://hooks.example/5ec2e7"}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ("5ec2e7", "is no JSON"),
        (json.dumps(GOOD), "is no list of objects"),
        (json.dumps(["5ec2e7"]), "is no list of objects"),
        (json.dumps([GOOD, GOOD]), "names two sinks alike"),
        (json.dumps([GOOD | {"name": "Ops 5ec2e7"}]), "sink 1 of the setting SLIPWAY_EVENT_SINKS has no good name"),
        (json.dumps([GOOD, {"name": "b"}]), "sink 2 of the setting SLIPWAY_EVENT_SINKS has no good url"),
        (json.dumps([GOOD | {"url": "http://hooks.example/5ec2e7"}]), "has no good url"),
        (json.dumps([GOOD | {"url": "https://u:5ec2e7@hooks.example/"}]), "has no good url"),
        (json.dumps([GOOD | {"url": "https://hooks.example:x/5ec2e7"}]), "has no good url"),
        (json.dumps([GOOD | {"url": "https://hooks.example/ 5ec2e7"}]), "has no good url"),
        (json.dumps([GOOD | {"token": "5ec2e7", "identity": True}]), "authenticates by a token or by the identity"),
        (json.dumps([GOOD | {"token": "5ec2e7\r\nX: y"}]), "has a token that no header can hold"),
        (
            json.dumps([GOOD | {"secret": "5ec2e7"}]),
            "is none of format, identity, name, streams, token, url",
        ),
        (json.dumps([GOOD | {"format": "xml"}]), "has no good format"),
        (json.dumps([GOOD | {"streams": ["alert"]}]), "has no good streams"),
        (json.dumps([GOOD | {"streams": "endpoint"}]), "has no good streams"),
    ],
)
def test_a_bad_sink_is_named_and_no_secret_repeated(found: str, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said) as caught:
        read(SLIPWAY_EVENT_SINKS=found)
    assert "5ec2e7" not in str(caught.value)


@pytest.mark.parametrize("text", ["/slipway/", "a b", "ü", "x" * 201, "?q=1"])
def test_a_bad_source_is_named(text: str) -> None:
    with pytest.raises(InvalidInputError, match="the setting SLIPWAY_EVENT_SOURCE is"):
        read(SLIPWAY_EVENT_SOURCE=text)


def test_the_sample_settings_can_be_read() -> None:
    sample: dict[str, Any] = json.loads((Path(__file__).parents[3] / "local.settings.sample.json").read_text())
    settings = Settings.from_env(sample["Values"])
    assert settings.event_source == "/slipway/local"
