"""The examples in docs/approvals.md and docs/events.md are what the code takes and gives."""

import json
import re
from pathlib import Path

from shared.alerts.documents import AlertRule
from shared.audit.chain import AuditEvent
from shared.core.settings import EventFormat, Settings
from shared.events.cloudevents import cloud_event
from shared.registry.policy import Policy
from shared.rollout.alerting import RULES

DOCS = Path(__file__).parents[3] / "docs"
VECTORS = Path(__file__).parents[1] / "events" / "cloudevent_vectors.json"


def examples(name: str) -> list[str]:
    return re.findall(r"^```json\n(.*?)^```$", (DOCS / name).read_text(), re.DOTALL | re.MULTILINE)


def test_every_policy_in_the_guide_to_approvals_is_one() -> None:
    found = [Policy.model_validate_json(text) for text in examples("approvals.md")]
    assert [policy.rollout.switch_approval for policy in found] == [True, False, False]
    assert [len(policy.rollout.freezes) for policy in found] == [0, 3, 0]
    assert found[2].rollout.error_budget is not None


def test_the_guide_names_every_alert_on_rollouts() -> None:
    told = set(re.findall(r"^\| `([a-z_]+)` \|", (DOCS / "approvals.md").read_text(), re.MULTILINE))
    assert told == set(RULES)


def test_the_operations_guide_names_every_alert() -> None:
    told = set(re.findall(r"^\| `([a-z_]+)` \|", (DOCS / "operations.md").read_text(), re.MULTILINE))
    assert set(AlertRule) <= told


def test_the_event_and_the_sinks_in_the_guide_to_events_are_those_of_the_code() -> None:
    event, sinks, channels = examples("events.md")
    made = json.loads(VECTORS.read_text())[0]
    assert json.loads(event) == cloud_event(AuditEvent.model_validate(made["audit"]), source=made["source"])
    base = {"SLIPWAY_DOCUMENTS": "sqlite:/state/documents.db", "SlipwayStorage": "UseDevelopmentStorage=true"}
    settings = Settings.from_env(base | {"SLIPWAY_EVENT_SINKS": sinks.replace("<topic>.<region>", "t.r")})
    assert [(sink.name, sink.identity) for sink in settings.event_sinks] == [("ops", False), ("grid", True)]
    [channel] = Settings.from_env(base | {"SLIPWAY_EVENT_SINKS": channels}).event_sinks
    assert (channel.format, channel.streams) == (EventFormat.SLACK, ("endpoint",))
