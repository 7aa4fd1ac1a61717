"""Lifecycle events as CloudEvents: golden vectors, the rules of the specification, and what is told at all."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.audit.chain import GENESIS, AuditEvent, AuditHead, next_event
from shared.events.cloudevents import cloud_event, is_lifecycle

VECTORS = json.loads(Path(__file__).with_name("cloudevent_vectors.json").read_text())
AT = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)


def event(stream: str, kind: str, **data: Any) -> AuditEvent:
    return next_event(AuditHead(), stream=stream, at=AT, kind=kind, data=data)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["event"]["type"])
def test_an_audit_event_reads_as_the_vector_says(vector: dict[str, Any]) -> None:
    audited = AuditEvent.model_validate(vector["audit"])
    assert cloud_event(audited, source=vector["source"]) == vector["event"]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["event"]["type"])
def test_an_event_keeps_the_rules_of_cloudevents(vector: dict[str, Any]) -> None:
    made = vector["event"]
    assert made["specversion"] == "1.0"
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in made)
    assert all(isinstance(made[name], str) and made[name] for name in made if name != "data")
    assert datetime.fromisoformat(made["time"]).tzinfo is not None
    assert re.fullmatch(r"[A-Za-z0-9/._~%:-]+", made["source"])


def test_the_id_is_the_audit_events_hash_and_differs_between_any_two_events() -> None:
    one, other = event("alias:m:blue", "alias_moved", version=1), event("alias:m:blue", "alias_moved", version=2)
    assert cloud_event(one, source="/s")["id"] == one.hash != GENESIS
    assert cloud_event(one, source="/s")["id"] != cloud_event(other, source="/s")["id"]


@pytest.mark.parametrize(
    ("stream", "kind", "told"),
    [
        ("endpoint:m", "rollout_rolled_back", True),
        ("endpoint:m", "quarantine_cleared", True),
        ("endpoint:m", "check_failed", False),
        ("version:m:1", "version_validated", True),
        ("drop:abc", "drop_refused", True),
        ("alias:m:production", "alias_moved", True),
        ("model:m", "policy_set", True),
        # A sink that fails makes dead letters and alerts: told of these, it would make more.
        ("dead_letter:-:1", "letter_kept", False),
        ("alert:-:1", "alert_fired", False),
    ],
)
def test_transitions_are_told_and_what_a_failing_sink_makes_is_not(
    stream: str,
    kind: str,
    told: bool,  # noqa: FBT001 - a case
) -> None:
    assert is_lifecycle(event(stream, kind)) is told


def test_names_that_a_uri_cannot_hold_are_escaped() -> None:
    made = cloud_event(event("drop:a b/ü", "drop_refused"), source="/s")
    assert (made["subject"], made["source"]) == ("a%20b%2F%C3%BC", "/s/drop/a%20b%2F%C3%BC")
