"""docs/api.md shows each body with every field that is taken, each field's bounds, and every field of a rollout."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from functions import (
    admin_aliases,
    admin_models,
    admin_rollbacks,
    admin_rollouts,
    alerts,
    approvals,
    dead_letters,
    integrity,
    plans,
    replays,
    retention,
    watching,
)
from functions._views import endpoint_view, rollout_view
from shared.registry.rollout_policy import RolloutPolicy
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint

REFERENCE = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
ROLLOUTS = "/api/endpoints/{endpoint}/rollouts"
ROLLOUT = f"{ROLLOUTS}/{{rollout_id}}"
BODIES: dict[str, type[BaseModel]] = {
    "POST /api/models/{model}/policy/dry-run": replays.DryRunBody,
    "POST /api/models/{model}/versions/{version}/approve": admin_models.ApproveBody,
    "POST /api/models/{model}/versions/{version}/archive": admin_models.ArchiveBody,
    "POST /api/models/{model}/versions/{version}/revalidate": admin_models.RevalidateBody,
    "PUT /api/models/{model}/aliases/{alias}": admin_aliases.AliasBody,
    f"POST {ROLLOUTS}": admin_rollouts.StartBody,
    f"POST {ROLLOUT}/promote": admin_rollouts.OnwardBody,
    f"POST {ROLLOUT}/pause": admin_rollouts.RolloutBody,
    f"POST {ROLLOUT}/set-weight": admin_rollouts.WeightBody,
    f"POST {ROLLOUT}/approve": admin_rollouts.ApproveBody,
    f"POST {ROLLOUT}/reject": admin_rollouts.RejectBody,
    f"POST {ROLLOUT}/approval-links": approvals.LinkBody,
    "POST /api/endpoints/{endpoint}/rollback": admin_rollouts.RollbackBody,
    "POST /api/endpoints/{endpoint}/quarantine/{version}/clear": admin_rollbacks.ClearBody,
    "POST /api/endpoints/{endpoint}/plan/republish": plans.RepublishBody,
    "POST /api/alerts/{alert}/acknowledge": alerts.AcknowledgeBody,
    "POST /api/silences": alerts.SilenceBody,
    "POST /api/silences/{silence}/expire": alerts.ExpireBody,
    "POST /api/dead-letters/{letter}/replay": dead_letters.ReplayBody,
    "POST /api/dead-letters/{letter}/discard": dead_letters.DiscardBody,
    "POST /api/models/{model}/retraining/{request}": watching.MarkBody,
    "POST /api/models/{model}/retention/run": retention.RunBody,
    "POST /api/models/{model}/artifacts/audit": integrity.AuditBody,
}
LIKE_ANOTHER = {
    "PUT /api/models/{model}/policy",
    f"POST {ROLLOUT}/resume",
    f"POST {ROLLOUT}/skip",
    f"POST {ROLLOUT}/abort",
    "POST /api/approvals/{token}",
    "POST /api/models/{model}/drift",
}
"""Those whose body another row shows, or another page: the policy, and the form of an approval link; and one that takes
none."""


def rows() -> dict[str, str]:
    """What the reference says of each call that takes a body."""
    return dict(re.findall(r"^\| `((?:PUT|POST) [^`?]+)[^`]*` \| (.*) \|$", REFERENCE, re.MULTILINE))


def test_each_call_that_takes_a_body_is_looked_at() -> None:
    assert rows().keys() == BODIES.keys() | LIKE_ANOTHER


@pytest.mark.parametrize("call", sorted(BODIES))
def test_a_body_is_shown_with_every_field_that_is_taken_and_no_other(call: str) -> None:
    (shown,) = re.findall(r"`(\{.*?\})`", rows()[call])
    assert set(re.findall(r'"(\w+)":', shown)) == BODIES[call].model_fields.keys()


def test_the_bounds_of_fields_are_those_of_the_bodies() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| ((?:from|at most|\d).*?) \|$", REFERENCE, re.MULTILINE))
    bounds = {name: bound for body in BODIES.values() for name, bound in _bounds(body).items()}
    assert told == bounds


def _bounds(body: type[BaseModel]) -> dict[str, str]:
    schema = body.model_json_schema()
    return {name: bound for name, field in schema["properties"].items() if (bound := _bound(schema, field)) is not None}


def _bound(schema: dict[str, Any], field: dict[str, Any]) -> str | None:
    """A field's bounds in words; None where it has none. Whether it may be null or left out is another question."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    found = kinds[0]
    if "$ref" in found:
        found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    match found:
        case {"minimum": least, "maximum": most}:
            return f"{least} to {most:,}"
        case {"minimum": least}:
            return f"from {least}"
        case {"maxLength": most}:
            return f"at most {most:,} characters"
        case {"maxItems": most}:
            return f"at most {most:,}"
        case _:
            return None


def test_every_field_of_a_rollout_and_of_an_endpoint_is_named() -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)
    target = Target(version=2, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)
    rollout = Rollout(
        rollout_id="r",
        command_id="c",
        candidate=target,
        stable=None,
        policy=RolloutPolicy(),
        started_at=now,
        published_at=now,
        next_tick_at=now,
        requested_by="ann",
    )
    endpoint = Endpoint(endpoint="m", rollout=rollout)
    section = REFERENCE.partition("\n## Rollouts\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert rollout_view(endpoint, rollout, now).keys() - named == set()
    assert endpoint_view(endpoint, now).keys() - named == set()
