"""Rollouts with evidence, as the gates and triggers find them at a tick."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Strategy, Triggers
from shared.rollout.documents import Rollout, Target
from shared.rollout.gates import judge
from shared.rollout.machine import RolloutState
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.rates import Judged, advanced
from shared.telemetry.histogram import bucket_index
from shared.telemetry.window import ShadowCounts, VersionCounts, Window

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
STABLE, CANDIDATE, OTHER = 1, 2, 3

type Counts = Mapping[int, VersionCounts]


def target(version: int, golden: str | None = None) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=golden)


def counted(
    requests: int,
    errors: int = 0,
    ms: Mapping[float, float] | None = None,
    predictions: Mapping[str, int] | None = None,
    **changes: Any,
) -> VersionCounts:
    """Counts of a version, its answers spread over latencies by shares; 5 ms where none are given."""
    answered = requests - errors
    shares = ms or {5.0: 1.0}
    latency_ms = {bucket_index(at): round(answered * share) for at, share in shares.items()}
    return VersionCounts(
        requests=requests, errors=errors, latency_ms=latency_ms, predictions=dict(predictions or {}), **changes
    )


def shadow(**counts: Any) -> VersionCounts:
    return VersionCounts(shadow=ShadowCounts(**counts))


def pod(age_s: float = 1.0, **changes: Any) -> PodSeen:
    fields: dict[str, Any] = {
        "sequence": 1,
        "generation": 3,
        "at": NOW - timedelta(seconds=age_s),
        "loaded": (STABLE, CANDIDATE),
    }
    return PodSeen(**(fields | changes))


def window(sequence: int, generation: int, versions: Counts) -> Window:
    """A window of the pod `q` that ended just now."""
    return Window(
        endpoint="digits",
        pod="q",
        sequence=sequence,
        generation=generation,
        started_at=NOW - timedelta(seconds=5),
        ended_at=NOW,
        loaded=[STABLE, CANDIDATE],
        versions=dict(versions),
    )


def rollout(
    counts: Counts | None = None,
    *,
    gates: Gates | None = None,
    triggers: Triggers | None = None,
    policy: Mapping[str, Any] | None = None,
    block: Counts | None = None,
    both: Counts | None = None,
    pods: Mapping[str, PodSeen] | None = None,
    **changes: Any,
) -> Rollout:
    """A rollout in its first stage, at 10 % of the traffic, that has counted so much since the stage began."""
    counts = dict(counts or {})
    gates = gates or Gates()
    candidate, stable = (counts.get(version, VersionCounts()) for version in (CANDIDATE, STABLE))
    fields: dict[str, Any] = {
        "rollout_id": "rollout-000002-0",
        "command_id": "c",
        "candidate": target(CANDIDATE),
        "stable": target(STABLE),
        "policy": RolloutPolicy(
            gates=gates,
            triggers=triggers or Triggers(),
            **({"stages": (Stage(weight_bp=1_000, duration_s=60),)} | dict(policy or {})),
        ),
        "state": RolloutState.PROGRESSING,
        "stage": 0,
        "started_at": NOW - timedelta(seconds=100),
        "published_at": NOW - timedelta(seconds=100),
        "stage_started_at": NOW - timedelta(seconds=60),
        "next_tick_at": NOW,
        "requested_by": "test",
        "progress": Progress(
            generation=3,
            pods={"p": pod()} if pods is None else dict(pods),
            counts=counts,
            block=dict(block or {}),
            both=dict(both or {}),
            tests=advanced({}, candidate, stable, gates),
        ),
    }
    return Rollout(**(fields | changes))


def watching(counts: VersionCounts, both: Counts, **changes: Any) -> Rollout:
    """A rollout whose candidate has all traffic, after a time when both had some."""
    return rollout({CANDIDATE: counts}, both=both, state=RolloutState.WATCHING, **changes)


def previewing(counts: VersionCounts, **changes: Any) -> Rollout:
    """A blue-green rollout whose candidate is warm without traffic."""
    return rollout({CANDIDATE: counts}, policy={"strategy": Strategy.BLUE_GREEN}, **changes)


def shadowing(counts: Counts, **changes: Any) -> Rollout:
    """A shadow rollout in the stage that mirrors."""
    return rollout(counts, policy={"strategy": Strategy.SHADOW}, **changes)


def judged(found: Rollout, check: str) -> Judged:
    """The verdict of one check."""
    return next(one for one in judge(found, {}, NOW) if one.verdict.check == check)


def verdict(found: Rollout, check: str) -> Verdict:
    return judged(found, check).verdict


def outcome(found: Rollout, check: str) -> Outcome:
    return verdict(found, check).outcome


def binding(found: Rollout) -> set[Outcome]:
    """The outcomes that decide something."""
    return {one.verdict.outcome for one in judge(found, {}, NOW) if not one.verdict.advisory}
