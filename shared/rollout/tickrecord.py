"""Tick records: what each tick of a rollout saw and decided, kept so that the decision can be made again.

A record holds all that the decision was made from but for what the rollout keeps for good (its policy, its versions)
and what the records before it add up to. It is written once, with the tick's change, and never changed. A rollout that
is over has no further ticks on record.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import accumulate
from typing import Any, Literal, Self

from pydantic import AwareDatetime

from shared.core.verdict import Verdict
from shared.rollout.decide import Decision
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutEvent, RolloutState
from shared.rollout.podrecord import PodGroup, PodsSummary, RecordPart, groups_of, pods_of, summary_of
from shared.rollout.progress import FeedbackRow, PodSeen
from shared.rollout.queries import QueryAnswer
from shared.rollout.rollbacks import Trigger
from shared.store.aggregate import PublishEntry
from shared.store.ports import BlobContainer
from shared.telemetry.window import VersionCounts

MAX_RECORD_BYTES = 4_000_000
MAX_WAITING = 3
MAX_WAITING_BYTES = 250_000
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
    "feedback_until",
}

_log = logging.getLogger(__name__)


class Answered(RecordPart):
    """What a query came to."""

    value: float | None = None
    error: str = ""


class Decided(RecordPart):
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


class TickRecord(RecordPart):
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
    feedback: tuple[FeedbackRow, ...] = ()
    """What it took in of feedback."""
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
        return pods_of(self.seen)

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
        feedback=rollout.progress.feedback_block,
        pods=summary_of(rollout, now),
        seen=groups_of(rollout.progress.pods, now),
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
