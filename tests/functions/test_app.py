"""The app as Microsoft's worker library indexes it: a function that would vanish in Azure is missed here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.host.blobs import POISON_QUEUE
from local.host.queues import poison_name
from shared.core.messages import QUEUE_OF, Queue

REPOSITORY = Path(__file__).parents[2]
_INDEX = """
import asyncio, json
from pathlib import Path
from local.host.worker import Worker
found = asyncio.run(Worker().load(Path.cwd()))
print(json.dumps({f.name: [json.loads(binding) for binding in f.raw_bindings] for f in found}))
"""


@pytest.fixture(scope="module")
def bindings() -> dict[str, list[dict[str, Any]]]:
    """Each function's bindings. The library holds one app a process, so it runs in one of its own."""
    done = subprocess.run([sys.executable, "-c", _INDEX], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_function_is_indexed(bindings: dict[str, list[dict[str, Any]]]) -> None:
    assert sorted(bindings) == sorted(
        [
            "register",
            "register_from_event",
            "register_again",
            "validate",
            "rollout_command",
            "rollout_tick",
            "move_alias",
            "sweep",
            "health",
            "list_models",
            "get_model",
            "put_policy",
            "list_versions",
            "list_policies",
            "get_policy",
            "get_version",
            "get_report",
            "get_report_page",
            "revalidate_version",
            "approve_version",
            "archive_version",
            "list_aliases",
            "get_alias",
            "set_alias",
            "list_alias_moves",
            "list_drops",
            "list_endpoints",
            "get_endpoint",
            "get_plan",
            "list_rollouts",
            "get_rollout",
            "start_rollout",
            "promote_rollout",
            "pause_rollout",
            "resume_rollout",
            "skip_stage",
            "set_weight",
            "approve_stage",
            "reject_stage",
            "abort_rollout",
            "roll_back",
            "list_rollbacks",
            "report_rollbacks",
            "metrics",
            "list_rollout_ticks",
            "get_rollout_tick",
            "dry_run_policy",
            "list_quarantine",
            "clear_quarantine",
            "republish_plan",
            "settle_plan_alerts",
            "make_approval_link",
            "show_approval",
            "answer_approval",
            "publish_event",
            "tell_events_again",
            "settle_rollout_alerts",
            "count_requests",
            "list_audit_events",
            "verify_audit",
            "get_prediction",
            *(f"dead_letter_{queue.name.lower()}" for queue in Queue),
            "dead_letter_blob",
            "settle_dead_letter_alerts",
            "list_dead_letters",
            "get_dead_letter",
            "replay_dead_letter",
            "discard_dead_letter",
            "list_alerts",
            "get_alert",
            "acknowledge_alert",
            "list_silences",
            "silence_alerts",
            "expire_silence",
            "tell_news",
            "settle_notifications",
            "settle_traffic_alerts",
            "settle_control_alerts",
            "check_artifacts",
            "audit_artifacts",
            "get_retention_plan",
            "run_retention",
            "list_retention_runs",
            "get_retention_run",
            "carry_on_retention",
            "watch_drift",
            "tidy_drift",
            "list_drift",
            "report_drift",
            "get_drift_report",
            "get_drift_page",
            "list_retraining",
            "mark_retraining",
        ]
    )


def test_a_drop_arrives_by_event_grid_as_a_client_so_that_its_bytes_never_cross_the_trigger(
    bindings: dict[str, list[dict[str, Any]]],
) -> None:
    (trigger,) = bindings["register"]
    assert trigger["type"] == "blobTrigger"
    assert trigger["source"] == "EventGrid"
    assert trigger["properties"] == {"SupportsDeferredBinding": True}


def test_only_health_and_signed_approval_links_answer_without_a_key(bindings: dict[str, list[dict[str, Any]]]) -> None:
    levels = {
        name: found[0]["authLevel"].upper() for name, found in bindings.items() if found[0]["type"] == "httpTrigger"
    }
    assert {name for name, level in levels.items() if level == "ANONYMOUS"} == {
        "health",
        "show_approval",
        "answer_approval",
    }
    assert set(levels.values()) == {"ANONYMOUS", "FUNCTION"}


def test_every_queue_but_that_of_retraining_has_one_trigger_and_every_poison_queue_another(
    bindings: dict[str, list[dict[str, Any]]],
) -> None:
    triggers = [found[0]["queueName"] for found in bindings.values() if found[0]["type"] == "queueTrigger"]
    poison = [poison_name(queue) for queue in Queue]
    ours = [queue for queue in Queue if queue is not Queue.RETRAINING]
    assert sorted(triggers) == sorted([*ours, *map(str, poison), POISON_QUEUE])


def test_every_queue_but_that_of_event_grid_carries_a_message_of_ours() -> None:
    assert set(QUEUE_OF.values()) == set(Queue) - {Queue.DROP_EVENTS}


def test_the_queues_carry_base64_as_the_senders_do() -> None:
    host = json.loads((REPOSITORY / "host.json").read_text())
    assert host["extensions"]["queues"]["messageEncoding"] == "base64"


def test_the_api_reference_names_every_route_and_no_other(bindings: dict[str, list[dict[str, Any]]]) -> None:
    routes = {
        f"{method} /api/{found[0]['route']}"
        for found in bindings.values()
        if found[0]["type"] == "httpTrigger"
        for method in found[0]["methods"]
    }
    documented = re.findall(
        r"^\| `((?:GET|PUT|POST) [^`?]+)", (REPOSITORY / "docs" / "api.md").read_text(), re.MULTILINE
    )
    assert set(documented) == routes
    assert len(documented) == len(routes)
