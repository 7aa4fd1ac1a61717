"""Tick records: what each tick of a rollout saw and decided, kept so that the decision can be made again.

A record holds all that the decision was made from but for what the rollout keeps for good (its policy, its versions)
and what the records before it add up to. It is written once, with the tick's change, and never changed. A rollout that
is over has no further ticks on record.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.verdict import Verdict
from shared.rollout.convergence import convergence, fresh
from shared.rollout.decide import Decision
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.progress import PodSeen
from shared.rollout.queries import QueryAnswer
from shared.rollout.rollbacks import Trigger
from shared.store.aggregate import PublishEntry
from shared.store.ports import BlobContainer
from shared.telemetry.window import VersionCounts

MAX_RECORD_BYTES = 4_000_000
MAX_WAITING = 3
MAX_WAITING_BYTES = 250_000
MAX_REASONS = 20
"""Texts of pods that are kept for each version."""
OTHER_REASON = "another reason: too many differ for each to be kept"
FOLDER = "rollouts"
_KEPT_BY_THE_ROLLOUT = {
    "rollout_id",
    "command_id",
    "candidate",
    "stable",
    "policy",
    "policy_version",
    "serving",
    "forced",
    "shadows",
    "started_at",
    "requested_by",
}
_NOT_DECIDED_FROM = {
    "verdicts",
    "heard",
    "reason",
    "blocked",
    "ended_at",
    "ended_by",
    "promoted_by",
    "tick",
    "next_tick_at",
    "reverted",
}

_log = logging.getLogger(__name__)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PodMark(_Part):
    """What differs from pod to pod."""

    sequence: int
    at: AwareDatetime
    since: AwareDatetime | None = None
    memory_share: float | None = None
    died: dict[str, tuple[int, ...]] = Field(default_factory=dict)


class PodGroup(_Part):
    """Pods of which the latest word is the same."""

    generation: int
    loaded: tuple[int, ...] = ()
    failed: dict[int, str] = Field(default_factory=dict)
    tripped: dict[int, str] = Field(default_factory=dict)
    leaves: bool = False
    pods: dict[str, PodMark]


class PodsSummary(_Part):
    """How the pods stood, in numbers."""

    reporting: int
    ready: int
    failing: int
    silent: int
    greatest_memory_share: float | None


class Answered(_Part):
    """What a query came to."""

    value: float | None = None
    error: str = ""


class Decided(_Part):
    """What the tick decided."""

    event: RolloutEvent | None
    trigger: Trigger | None
    is_settled: bool
    failed_checks: int
    errored_checks: int
    reason: str
    verdicts: tuple[Verdict, ...]

    @classmethod
    def of(cls, decision: Decision) -> Self:
        """A decision in the form that is kept."""
        return cls(
            event=decision.event,
            trigger=decision.trigger,
            is_settled=decision.is_settled,
            failed_checks=decision.failed_checks,
            errored_checks=decision.errored_checks,
            reason=decision.reason,
            verdicts=decision.verdicts,
        )


class TickRecord(_Part):
    """What a tick saw and decided."""

    schema_version: Literal[1] = 1
    endpoint: str
    rollout_id: str
    tick: int
    at: AwareDatetime
    version: int
    stable: int | None
    state: RolloutState
    stage: int | None
    weight_bp: int
    mirror_bp: int
    generation: int
    lasted_s: float | None
    """Since the stage began; None while the pods have not applied its plan."""
    block: dict[int, VersionCounts]
    """What this tick took in, by version."""
    pods: PodsSummary
    seen: tuple[PodGroup, ...]
    tripped: str
    answers: dict[str, Answered]
    altered: str
    blocked: str
    decided: Decided
    found: dict[str, Any]
    """The rollout's changing fields as the tick found them."""
    left: dict[str, Any]
    """And as it left them: where the next tick finds others, somebody acted in between."""

    @property
    def blob_name(self) -> str:
        """Where it is stored, within the reports container."""
        return blob_name(self.endpoint, self.rollout_id, self.tick)

    @property
    def pods_seen(self) -> dict[str, PodSeen]:
        """The pods' latest words."""
        return {
            name: PodSeen(
                sequence=mark.sequence,
                generation=group.generation,
                at=mark.at,
                since=mark.since,
                loaded=group.loaded,
                failed=group.failed,
                tripped=group.tripped,
                memory_share=mark.memory_share,
                died=mark.died,
                leaves=group.leaves,
            )
            for group in self.seen
            for name, mark in group.pods.items()
        }

    @property
    def query_answers(self) -> dict[str, QueryAnswer]:
        """What the queries came to, by name."""
        return {name: QueryAnswer(value=got.value, error=got.error) for name, got in self.answers.items()}


def blob_name(endpoint: str, rollout_id: str, tick: int) -> str:
    """Where the record of a tick is stored, within the reports container."""
    return f"{folder_of(endpoint, rollout_id)}{tick:06d}.json"


def folder_of(endpoint: str, rollout_id: str) -> str:
    """Where a rollout's records are stored, within the reports container; their names are in the order of the ticks."""
    return f"{FOLDER}/{endpoint}/{rollout_id}/"


def with_evidence(decision: Decision, endpoint: Endpoint, rollout: Rollout) -> Decision:
    """The decision, each of its verdicts naming the record of the tick."""
    name = f"{BlobContainer.REPORTS}/{blob_name(endpoint.endpoint, rollout.rollout_id, rollout.tick)}"
    verdicts = tuple(verdict.model_copy(update={"evidence": name}) for verdict in decision.verdicts)
    return replace(decision, verdicts=verdicts)


def record_of(
    endpoint: Endpoint,
    rollout: Rollout,
    now: datetime,
    decision: Decision,
    *,
    altered: str = "",
    blocked: str = "",
    answers: Mapping[str, QueryAnswer] | None = None,
) -> TickRecord:
    """The record of a tick whose decision is not carried out yet: `left` says how the rollout stands before it is."""
    version = rollout.candidate.version
    started_at = rollout.stage_started_at
    return TickRecord(
        endpoint=endpoint.endpoint,
        rollout_id=rollout.rollout_id,
        tick=rollout.tick,
        at=now,
        version=version,
        stable=rollout.stable.version if rollout.stable else None,
        state=rollout.state,
        stage=rollout.stage,
        weight_bp=rollout.weight_bp,
        mirror_bp=rollout.mirror_bp,
        generation=endpoint.generation,
        lasted_s=(now - started_at).total_seconds() if started_at else None,
        block=rollout.progress.block,
        pods=_summary(rollout, now),
        seen=_groups(_told(rollout.progress.pods, now)),
        tripped=rollout.progress.tripped(version),
        answers={name: Answered(value=got.value, error=got.error) for name, got in (answers or {}).items()},
        altered=altered,
        blocked=blocked,
        decided=Decided.of(decision),
        found=changing(rollout),
        left=changing(rollout),
    )


def changing(rollout: Rollout) -> dict[str, Any]:
    """The fields of a rollout that decisions are made from and that change, but for its progress."""
    return rollout.model_dump(mode="json", exclude=_KEPT_BY_THE_ROLLOUT | _NOT_DECIDED_FROM | {"progress"})


def publish(endpoint: Endpoint, record: TickRecord) -> None:
    """Have a record written with the endpoint's change.

    Of records that storage does not take, the latest waits in the endpoint, and those before it up to MAX_WAITING and
    MAX_WAITING_BYTES together: a document that outgrew its store could never be changed again, nor its candidate be
    taken back.
    """
    endpoint.publish(
        BlobContainer.REPORTS, record.blob_name, record.model_dump(mode="json"), generation=max(1, record.tick)
    )
    waiting = [
        entry
        for entry in endpoint.outbox
        if isinstance(entry, PublishEntry) and entry.container is BlobContainer.REPORTS
    ]
    given_up = waiting[: len(waiting) - _kept(waiting)]
    if given_up:
        _log.error("%d tick records of %s are given up: storage takes none", len(given_up), record.endpoint)
        endpoint.strike({entry.number for entry in given_up})


def _kept(waiting: Sequence[PublishEntry]) -> int:
    """How many of the latest records are kept."""
    sizes = accumulate(len(entry.model_dump_json()) for entry in reversed(waiting[-MAX_WAITING:]))
    return max(1, sum(size <= MAX_WAITING_BYTES for size in sizes))


def _summary(rollout: Rollout, now: datetime) -> PodsSummary:
    progress = rollout.progress
    found = convergence(
        progress.pods,
        generation=progress.generation,
        versions=(rollout.candidate.version,),
        quorum=rollout.policy.quorum,
        now=now,
    )
    shares = [share for name in found.reporting if (share := progress.pods[name].memory_share) is not None]
    return PodsSummary(
        reporting=len(found.reporting),
        ready=len(found.ready),
        failing=len(found.failing),
        silent=len(found.silent),
        greatest_memory_share=max(shares, default=None),
    )


def _told(pods: Mapping[str, PodSeen], now: datetime) -> dict[str, PodSeen]:
    """The pods, with MAX_REASONS texts for each version: of those first that decisions name.

    A thousand pods that each fail with a text of their own would otherwise fill the endpoint's document.
    """
    reporting = set(fresh(pods, now))
    failing = sorted(pods, key=lambda name: (name not in reporting, -pods[name].generation, name))
    failed = _cut((name, pods[name].failed) for name in failing)
    tripped = _cut((name, pods[name].tripped) for name in sorted(pods))
    return {
        name: seen.model_copy(update={"failed": failed[name], "tripped": tripped[name]}) for name, seen in pods.items()
    }


def _cut(said: Iterable[tuple[str, Mapping[int, str]]]) -> dict[str, dict[int, str]]:
    kept: dict[int, set[str]] = defaultdict(set)
    found: dict[str, dict[int, str]] = {}
    for name, reasons in said:
        for version, why in reasons.items():
            if len(kept[version]) < MAX_REASONS:
                kept[version].add(why)
        found[name] = {v: why if why in kept[v] else OTHER_REASON for v, why in reasons.items()}
    return found


def _groups(pods: Mapping[str, PodSeen]) -> tuple[PodGroup, ...]:
    marks: dict[str, dict[str, PodMark]] = defaultdict(dict)
    said: dict[str, PodSeen] = {}
    for name, seen in pods.items():
        key = seen.model_dump_json(exclude={"sequence", "at", "since", "memory_share", "died"})
        said.setdefault(key, seen)
        marks[key][name] = PodMark(
            sequence=seen.sequence, at=seen.at, since=seen.since, memory_share=seen.memory_share, died=seen.died
        )
    return tuple(
        PodGroup(
            generation=seen.generation,
            loaded=seen.loaded,
            failed=seen.failed,
            tripped=seen.tripped,
            leaves=seen.leaves,
            pods=marks[key],
        )
        for key, seen in said.items()
    )
