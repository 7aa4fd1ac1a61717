"""What the ticks of a rollout have taken in so far: each pod's latest word, the stage's counts, and the running tests.

Each window is taken once: a pod's windows are numbered and come in order, so its highest number is the mark. What comes
later under a lower one is left out; lateness does not depend on outcomes, so the tests stay valid.
"""

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.slots import Slot
from shared.routing.plan import FULL_WEIGHT_BP
from shared.sequential.excess import ExcessState
from shared.telemetry.feedback import MILLION, FeedbackCounts, hour_of
from shared.telemetry.window import Deaths, VersionCounts, Window, added_names, merge_counts

FORGOTTEN = timedelta(hours=1)
"""A pod that has been silent for longer is forgotten."""
_SAID = 200
"""Characters that are kept of what a pod says of a version: a thousand pods must fit into one document."""
_ELSEWHERE = "elsewhere"
"""What a pod counts requests under that it refused since other pods have the version."""


class PodSeen(BaseModel):
    """A pod's latest word."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int
    generation: int
    at: AwareDatetime
    since: AwareDatetime | None = None
    """When it applied that generation: the start of the first window under it."""
    loaded: tuple[int, ...] = ()
    failed: dict[int, str] = Field(default_factory=dict)
    tripped: dict[int, str] = Field(default_factory=dict)
    memory_share: float | None = None
    """The share of its memory limit that it uses."""
    deaths: Deaths | None = None
    """The processes before it in the same place that ended unbidden."""
    slot: Slot | None = Field(default=None, exclude_if=lambda slot: slot is None)
    """The slot that it is of."""
    late_at: AwareDatetime | None = Field(default=None, exclude_if=lambda at: at is None)
    """Until when the Gateway sent it requests that the plan then in force had not for it: kept where versions are, or
    were, in pods of their own. One that has nothing loaded any more is sent them too.
    """


class TestName(StrEnum):
    """The running tests."""

    ERRORS_WORSE = "errors_worse"
    ERRORS_NOT_WORSE = "errors_not_worse"
    SLOW_WORSE = "slow_worse"
    SLOW_NOT_WORSE = "slow_not_worse"
    FEEDBACK_WORSE = "feedback_worse"
    FEEDBACK_NOT_WORSE = "feedback_not_worse"


class FeedbackRow(BaseModel):
    """Feedback with a value, on the predictions of a version that one plan of the rollout assigned it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int
    """Of the plan under which they were made, whichever is in force when the feedback comes."""
    version: int
    role: str
    count: int
    good: int


class Exposures(BaseModel):
    """Requests that were assigned to each side while both had a share, over the whole rollout, whatever became of them.
    None are kept where the Gateway assigns, which hears of a share later than the pods.

    Neither what names its version is among them, nor copies, nor what stable answered in place of the candidate. Of a
    plan's last windows those are left out that a pod wrote after the next plan was made.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    candidate: int = 0
    stable: int = 0
    expected: float = 0.0
    """How many would have been the candidate's by the shares in force."""

    def and_more(self, candidate: int, stable: int, weight_bp: int) -> Self:
        """With requests that came while the candidate had a share of `weight_bp`."""
        return self.model_copy(
            update={
                "candidate": self.candidate + candidate,
                "stable": self.stable + stable,
                "expected": self.expected + (candidate + stable) * weight_bp / FULL_WEIGHT_BP,
            }
        )


class Progress(BaseModel):
    """The evidence of a rollout, as far as it was taken in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    first_generation: int = 0
    """That of the rollout's first plan: what pods tell of earlier ones is not of this rollout."""
    generation: int = 0
    """The generation of the plan that `counts` are of."""
    looked_at: AwareDatetime | None = None
    """When the latest tick looked for windows."""
    since: AwareDatetime | None = None
    """When the earliest window of the latest tick's block began."""
    pods: dict[str, PodSeen] = Field(default_factory=dict)
    counts: dict[int, VersionCounts] = Field(default_factory=dict)
    """By version, of this stage."""
    block: dict[int, VersionCounts] = Field(default_factory=dict)
    """What the latest tick took in, by version."""
    both: dict[int, VersionCounts] = Field(default_factory=dict)
    """By version, of the latest stage in which stable had traffic: what one with all traffic is held against."""
    tests: dict[TestName, ExcessState] = Field(default_factory=dict)
    """Over the whole rollout."""
    feedback: tuple[FeedbackRow, ...] = ()
    """On predictions of the plan that `counts` are of."""
    feedback_block: tuple[FeedbackRow, ...] = ()
    """What the latest tick took in, on predictions of any plan of the rollout."""
    feedback_waiting: tuple[FeedbackRow, ...] = ()
    """What the tests wait with, until there is feedback on both versions' predictions under that plan."""
    exposures: Exposures = Exposures()
    overrides: dict[int, dict[str, int]] = Field(default_factory=dict)
    """Requests whose signed override named a version, by who signed it: of the windows that the latest tick took in."""

    def of(self, version: int) -> VersionCounts:
        """A version's counts in this stage; zeros where nothing was reported."""
        return self.counts.get(version, VersionCounts())

    def tripped(self, version: int) -> str:
        """Which pod took a version out of traffic since the rollout began, and why; empty where none did."""
        for name in sorted(self.pods):
            if version in self.pods[name].tripped:
                return f"pod {name}: {self.pods[name].tripped[version]}"
        return ""

    def without_pods(self) -> Self:
        """Without what each pod said last: of interest no longer once a rollout is over, and large."""
        return self.model_copy(update={"pods": {}, "block": {}, "feedback_block": (), "overrides": {}})


def taken(
    progress: Progress,
    windows: Iterable[Window],
    generation: int,
    *,
    now: datetime | None = None,
    idle: Collection[Slot | None] | None = None,
) -> Progress:
    """The progress with windows taken in that it had not. Those of another generation count for their pods alone.

    `idle` are the slots in which the plan in force has a version without a share; None where the rollout has all of its
    versions in the shared pods, to which the Gateway sends whatever it has heard.

    Another generation than before begins the stage's counts anew. The running tests are left to the gates. Pods that
    have been silent for an hour by `now` are forgotten, and what ended as long ago is left out: its mark would be
    forgotten at once, and the next tick would take it in again.
    """
    counts = dict(progress.counts) if progress.generation == generation else {}
    pods = dict(progress.pods)
    block: dict[int, list[VersionCounts]] = {}
    began: list[datetime] = []
    overrides: dict[int, list[dict[str, int]]] = {}
    feedback: list[FeedbackRow] = []
    for window in sorted({(w.pod, w.sequence): w for w in windows}.values(), key=lambda w: (w.pod, w.sequence)):
        seen = pods.get(window.pod)
        if (seen is not None and window.sequence <= seen.sequence) or (now and now - window.ended_at > FORGOTTEN):
            continue
        pods[window.pod] = _seen(window, seen, progress.first_generation, generation, idle)
        for version, found in window.versions.items():
            if found.overrides:
                overrides.setdefault(version, []).append(found.overrides)
        feedback += _rated(window.feedback, progress.first_generation, generation)
        if window.generation == generation:
            began.append(window.started_at)
            for version, found in window.versions.items():
                block.setdefault(version, []).append(found)
    merged = {version: merge_counts(parts) for version, parts in block.items()}
    for version, found in merged.items():
        counts[version] = merge_counts([counts.get(version, VersionCounts()), found])
    if now is not None:
        pods = {name: seen for name, seen in pods.items() if now - seen.at <= FORGOTTEN}
    return progress.model_copy(
        update={
            "generation": generation,
            "pods": pods,
            "counts": counts,
            "block": merged,
            "feedback": added_feedback(row for row in (*progress.feedback, *feedback) if row.generation == generation),
            "feedback_block": added_feedback(feedback),
            "overrides": {version: added_names(parts) for version, parts in overrides.items()},
            "since": min(began, default=None),
            "looked_at": now or progress.looked_at,
        }
    )


def added_feedback(rows: Iterable[FeedbackRow]) -> tuple[FeedbackRow, ...]:
    """The sum of rows, one for each plan, version and role."""
    total: dict[tuple[int, int, str], FeedbackRow] = {}
    for row in rows:
        key = row.generation, row.version, row.role
        before = total.get(key)
        if before is not None:
            row = row.model_copy(update={"count": before.count + row.count, "good": before.good + row.good})  # noqa: PLW2901
        total[key] = row
    return tuple(total[key] for key in sorted(total))


def _rated(feedback: Iterable[FeedbackCounts], first_generation: int, generation: int) -> list[FeedbackRow]:
    """What came with a value on what the rollout's plans assigned: not on answers in another's place, nor to those who
    named a version, not of a user alone, whom another version may have answered, and not on what earlier plans gave.
    """
    return [
        FeedbackRow(generation=row.generation, version=row.version, role=row.role, count=row.valued, good=row.good)
        for row in feedback
        if row.valued and row.reason == "assigned" and first_generation <= row.generation <= generation
    ]


def counts_of(row: FeedbackRow, at: datetime) -> FeedbackCounts:
    """A row as a window carries it, as far as a rollout reads it; `at` stands for the predictions' hour."""
    fields = {"generation": row.generation, "version": row.version, "role": row.role, "reason": "assigned"}
    counts = {"count": row.count, "valued": row.count, "good": row.good, "value_millionths": row.good * MILLION}
    return FeedbackCounts.model_validate({**fields, **counts, "hour": hour_of(at)})


def _seen(
    window: Window,
    before: PodSeen | None,
    first_generation: int,
    generation: int,
    idle: Collection[Slot | None] | None,
) -> PodSeen:
    # What a pod's guard tripped stays tripped for the whole rollout, whatever later windows say: a trip that is read
    # after the next plan was made is proof no less.
    tripped = dict(before.tripped) if before is not None else {}
    if window.generation >= first_generation:
        tripped |= {version: why[:_SAID] for version, why in window.tripped.items()}
    # A run that outlasts its plan is reported late, under the older generation and a higher sequence.
    if before is not None and window.generation < before.generation:
        at = max(before.at, window.ended_at)
        said = {"sequence": window.sequence, "at": at, "tripped": tripped, "deaths": window.deaths or before.deaths}
        if _is_refusing(window):
            said["late_at"] = at
        return before.model_copy(update=said)
    is_new = before is None or window.generation > before.generation
    return PodSeen(
        sequence=window.sequence,
        generation=window.generation,
        at=window.ended_at,
        since=window.started_at if is_new else before and before.since,
        loaded=tuple(window.loaded),
        failed={version: why[:_SAID] for version, why in window.failed.items()},
        tripped=tripped,
        memory_share=window.memory_share,
        deaths=window.deaths,
        slot=window.slot,
        late_at=window.ended_at if _is_late(window, generation, idle) else before and before.late_at,
    )


def _is_late(window: Window, generation: int, idle: Collection[Slot | None] | None) -> bool:
    """Whether the pod was sent what the plan in force has not for it."""
    if window.slot is None and idle is None:
        return False
    is_unasked = window.generation < generation or window.slot in (idle or ())
    is_sent = is_unasked and any(counts.requests for counts in window.versions.values())
    return is_sent or _is_refusing(window)


def _is_refusing(window: Window) -> bool:
    """Whether the pod has nothing and is sent requests. One that has a version refuses those that name another."""
    return not window.loaded and bool(window.refused.get(_ELSEWHERE))
