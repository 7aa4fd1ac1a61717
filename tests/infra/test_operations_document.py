"""The numbers in what somebody on call reads are those of the code."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aks_serving import __main__ as server
from aks_serving.cache import DiskCache
from aks_serving.errors import LoadCode, LoadError
from aks_serving.lingering import LINGER_S
from aks_serving.loader import Loader
from aks_serving.memory import Room, Usage
from aks_serving.supervisor import FINISH_S

from functions.metrics import _MOST
from local.host.hostjson import read_host_json
from shared.alerts.control import LAG_S, UNDELIVERED_S
from shared.alerts.documents import AlertRule
from shared.alerts.mailbox import _LONGEST_WAIT, REFUSALS, REFUSED_FOR
from shared.alerts.rules import BEHIND, STANDARD
from shared.budgets.service import CALL_S
from shared.core.settings import Settings
from shared.integrity.service import BUDGET_BYTES
from shared.registry.policy import RetentionPolicy, ValidationPolicy
from shared.registry.rollout_policy import ErrorBudget
from shared.retention import reports, service
from shared.retention.ages import DAILY_DAYS, HOURLY_DAYS, WINDOW_DAYS
from shared.retention.plan import MAX_BLOBS, MAX_VERSIONS
from shared.rollout.convergence import FRESH_S
from shared.rollout.progress import FORGOTTEN
from shared.rollout.stored_plans import _REPORTED_WITHIN
from shared.store.documents import MAX_DOCUMENT_BYTES
from tests.infra.k8s import overlay, pod_of, servers, serving, settings
from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.unit.observing.exposed import rule_files, rules

ROOT = Path(__file__).parents[2]
WORDS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
HOST: dict[str, Any] = json.loads((ROOT / "host.json").read_text())
MINIMAL = {"SLIPWAY_DOCUMENTS": "sqlite:/state/documents.db", "SlipwayStorage": "UseDevelopmentStorage=true"}
GRACE_S = Settings.from_env(MINIMAL).sweep_grace_s
KEPT = RetentionPolicy()


def minutes(seconds: float) -> str:
    """So many minutes as the documents say it."""
    return f"{WORDS[round(seconds / 60)]} minute{'s' if seconds > 60 else ''}"


def limit(rule: AlertRule, number: int = 0) -> float:
    """Where a rule that holds for every endpoint fires."""
    found = STANDARD[rule][number].above
    assert found is not None
    return found


FACTS = [
    ("operations.md", f"is tried again, {WORDS[HOST['extensions']['queues']['maxDequeueCount']]} times in all"),
    (
        "operations.md",
        f"`keep_latest` newest validated versions (default {KEPT.keep_latest})".replace("`", "`retention.", 1),
    ),
    ("operations.md", f"younger than `retention.keep_days` (default {KEPT.keep_days:g})"),
    ("operations.md", f"`retention.keep_reports_days` ({KEPT.keep_reports_days:g})"),
    ("operations.md", f"roll-ups of hours, of days | {HOURLY_DAYS} days, {DAILY_DAYS} days"),
    ("operations.md", f"windows | {WINDOW_DAYS} days"),
    ("operations.md", f"Of a model {reports.MOST_BLOBS} reports"),
    ("operations.md", f"of windows {reports.MOST_WINDOWS:,} a call"),
    ("operations.md", f"archives at most {MAX_VERSIONS} versions and deletes at most {MAX_BLOBS:,} blobs"),
    ("operations.md", f"One look at artifacts hashes {BUDGET_BYTES / 1e9:g} GB"),
    ("operations.md", f"A document has at most {MAX_DOCUMENT_BYTES / 1e6:g} MB"),
    ("operations.md", f"nothing looked at a rollout for {minutes(LAG_S)}"),
    ("operations.md", f"is not delivered for {minutes(UNDELIVERED_S)}"),
    ("operations.md", f"was not all counted for {minutes(BEHIND.total_seconds())}"),
    ("operations.md", f"over {limit(AlertRule.ERROR_RATE):.0%} of its requests failed".replace("%", " %")),
    ("operations.md", f"95th percentile latency is over {limit(AlertRule.SLOW) / 1_000:g} s"),
    ("operations.md", f"uses {limit(AlertRule.RESOURCES):.0%} of its memory".replace("%", " %")),
    ("operations.md", f"refuse over {limit(AlertRule.RESOURCES, 1):.0%} of requests".replace("%", " %")),
    ("observability.md", f"at most {_MOST:,} of a kind"),
    ("disaster-recovery.md", f"the sweep asks again after {minutes(GRACE_S)} (`SLIPWAY_SWEEP_GRACE_S`)"),
    ("disaster-recovery.md", f"pods reported in the last {_REPORTED_WITHIN.total_seconds() / 60:g} minutes"),
    ("deployment.md", f"found by the sweep, {minutes(GRACE_S)} old"),
    ("runbooks/a-rollout-is-stuck.md", f"reported within the last {FRESH_S:g} seconds"),
    ("runbooks/a-rollout-is-stuck.md", f"the sweep sends what was lost again after {minutes(GRACE_S)}"),
    ("runbooks/an-alert-fired.md", f"fit in its {minutes(CALL_S)}"),
    ("runbooks/an-alert-fired.md", f"{WORDS[REFUSALS]} tries over {WORDS[REFUSED_FOR // timedelta(hours=1)]} hours"),
    ("runbooks/an-alert-fired.md", f"every {_LONGEST_WAIT // timedelta(minutes=1)} minutes at the longest"),
    ("kubernetes.md", f"until they were sent no request for {minutes(LINGER_S)}"),
    ("kubernetes.md", f"`validation.max_size_bytes` ({ValidationPolicy().max_size_bytes / 1e6:g} MB by default)"),
]


@pytest.mark.parametrize(("page", "fact"), FACTS)
def test_a_number_is_the_codes(page: str, fact: str) -> None:
    assert fact in " ".join((ROOT / "docs" / page).read_text().split())


def test_prometheus_alerts_at_the_limits_of_slipways_own_rules() -> None:
    asked = {rule["alert"]: rule["expr"] for file in rule_files() for rule in rules(file)}
    for name, most in (
        ("ModelErrorRate", limit(AlertRule.ERROR_RATE)),
        ("ModelSlow", limit(AlertRule.SLOW) / 1_000),
        ("SlipwayDecisionLag", LAG_S),
        ("SlipwayOutboxOld", UNDELIVERED_S),
    ):
        assert asked[name].endswith(f" > {most:g}"), name
    burnt = [expression for name, expression in asked.items() if name.startswith("ModelErrorBudgetBurns")]
    assert len(burnt) == 3
    allowed = f"{1 - ErrorBudget().objective:g}"
    assert all(re.findall(r"> [\d.]+ \* ([\d.]+)", one) == [allowed, allowed] for one in burnt)


def test_what_is_deleted_waits_three_times_the_longest_that_a_function_takes() -> None:
    longest = read_host_json(ROOT, {}).function_timeout_s
    assert longest is not None
    assert [one.GRACE.total_seconds() for one in (service, reports)] == [3 * longest, 3 * longest]
    assert timedelta(hours=2) == service.GRACE, "operations.md says two hours"
    assert timedelta(hours=1) == FORGOTTEN, "the documents say an hour"


def test_a_pod_stops_in_the_time_that_the_guide_says() -> None:
    resources = overlay("production")
    (deployment,) = servers(resources)
    pause_s = serving(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
    drained_s = pause_s + int(settings(resources)["SLIPWAY_DRAIN_S"])
    finished_s = drained_s + int(FINISH_S)
    guide = " ".join((ROOT / "docs" / "kubernetes.md").read_text().split())
    killed_s = pod_of(deployment)["spec"]["terminationGracePeriodSeconds"]

    for fact in (
        f"for {pause_s} it goes on as ever",
        f"{pause_s} SIGTERM: not ready, answers on for {settings(resources)['SLIPWAY_DRAIN_S']} ",
        f"{drained_s} the port closes; what is in flight has {FINISH_S:g} more",
        f"no request may take longer than {settings(resources)['SLIPWAY_TIMEOUT_S']} ",
        f"{finished_s}..{finished_s + int(server._END_S)} the last windows are sent",
        f"would be killed after {killed_s}",
    ):
        assert fact in guide


def test_a_version_that_memory_refuses_beside_others_lies_on_the_disk_all_the_same(tmp_path: Path) -> None:
    storage, cache, data = MemoryStorage(), DiskCache(tmp_path), models.scaler(1.0)
    storage.put(data)
    route = models.route(1, data)
    full = Room(3 * len(data), used=lambda: Usage(private_bytes=2 * len(data), shared_bytes=0))

    with pytest.raises(LoadError) as caught:
        Loader(storage, cache, room=full).load("churn", route)

    assert caught.value.code is LoadCode.MEMORY
    assert cache.has_artifact(route.artifact_digest)
