"""The pods in a tick's record: what each said last, those that said the same together, and how they stood in numbers.

What decisions name of them comes back exactly. Of texts that differ from pod to pod a few are kept.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.slots import Slot
from shared.rollout.convergence import convergence, fresh
from shared.rollout.documents import Rollout
from shared.rollout.progress import PodSeen
from shared.telemetry.window import Deaths

MAX_REASONS = 20
"""Texts of pods that are kept for each version."""
OTHER_REASON = "another reason: too many differ for each to be kept"


class RecordPart(BaseModel):
    """Base of the parts of a record."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PodMark(RecordPart):
    """What differs from pod to pod."""

    sequence: int
    at: AwareDatetime
    since: AwareDatetime | None = None
    memory_share: float | None = None
    deaths: Deaths | None = None
    late_at: AwareDatetime | None = Field(default=None, exclude_if=lambda at: at is None)


class PodGroup(RecordPart):
    """Pods of which the latest word is the same."""

    generation: int
    loaded: tuple[int, ...] = ()
    failed: dict[int, str] = Field(default_factory=dict)
    tripped: dict[int, str] = Field(default_factory=dict)
    slot: Slot | None = Field(default=None, exclude_if=lambda slot: slot is None)
    pods: dict[str, PodMark]


class PodsSummary(RecordPart):
    """How the pods stood, in numbers."""

    reporting: int
    ready: int
    failing: int
    silent: int
    greatest_memory_share: float | None


def summary_of(rollout: Rollout, now: datetime) -> PodsSummary:
    """How the pods of a rollout stand."""
    progress = rollout.progress
    found = convergence(
        rollout.pods,
        generation=progress.generation,
        versions=(rollout.candidate.version,),
        slots=rollout.slots,
        slot=rollout.candidate.slot,
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


def groups_of(pods: Mapping[str, PodSeen], now: datetime) -> tuple[PodGroup, ...]:
    """The pods, those of which the latest word is the same together."""
    return _grouped(_told(pods, now))


def pods_of(groups: Iterable[PodGroup]) -> dict[str, PodSeen]:
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
            deaths=mark.deaths,
            slot=group.slot,
            late_at=mark.late_at,
        )
        for group in groups
        for name, mark in group.pods.items()
    }


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


def _grouped(pods: Mapping[str, PodSeen]) -> tuple[PodGroup, ...]:
    marks: dict[str, dict[str, PodMark]] = defaultdict(dict)
    said: dict[str, PodSeen] = {}
    for name, seen in pods.items():
        key = seen.model_dump_json(exclude={"sequence", "at", "since", "memory_share", "deaths", "late_at"})
        said.setdefault(key, seen)
        marks[key][name] = PodMark(
            sequence=seen.sequence,
            at=seen.at,
            since=seen.since,
            memory_share=seen.memory_share,
            deaths=seen.deaths,
            late_at=seen.late_at,
        )
    return tuple(
        PodGroup(
            generation=seen.generation,
            loaded=seen.loaded,
            failed=seen.failed,
            tripped=seen.tripped,
            slot=seen.slot,
            pods=marks[key],
        )
        for key, seen in said.items()
    )
