"""What the ticks of a rollout have taken in so far: each pod's latest word, the stage's counts, and the running tests.

Each window is taken once: a pod's windows are numbered and come in order, so its highest number is the mark. What comes
later under a lower one is left out; lateness does not depend on outcomes, so the tests stay valid.
"""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.sequential.excess import ExcessState
from shared.telemetry.window import VersionCounts, Window, merge_counts


class PodSeen(BaseModel):
    """A pod's latest word."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sequence: int
    generation: int
    at: AwareDatetime
    loaded: tuple[int, ...] = ()
    failed: dict[int, str] = Field(default_factory=dict)
    tripped: dict[int, str] = Field(default_factory=dict)
    memory_share: float | None = None
    """The share of its memory limit that it uses."""


class TestName(StrEnum):
    """The running tests."""

    ERRORS_WORSE = "errors_worse"
    ERRORS_NOT_WORSE = "errors_not_worse"
    SLOW_WORSE = "slow_worse"
    SLOW_NOT_WORSE = "slow_not_worse"


class Progress(BaseModel):
    """The evidence of a rollout, as far as it was taken in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    generation: int = 0
    """The generation of the plan that `counts` are of."""
    pods: dict[str, PodSeen] = Field(default_factory=dict)
    counts: dict[int, VersionCounts] = Field(default_factory=dict)
    """By version, of this stage."""
    block: dict[int, VersionCounts] = Field(default_factory=dict)
    """What the latest tick took in, by version."""
    both: dict[int, VersionCounts] = Field(default_factory=dict)
    """By version, of the latest stage in which both had traffic: what the predictions of a switched candidate are held
    against."""
    tests: dict[TestName, ExcessState] = Field(default_factory=dict)
    """Over the whole rollout."""

    def of(self, version: int) -> VersionCounts:
        """A version's counts in this stage; zeros where nothing was reported."""
        return self.counts.get(version, VersionCounts())

    def tripped(self, version: int) -> str:
        """Which pod took a version out of traffic under this generation, and why; empty where none did."""
        for name in sorted(self.pods):
            seen = self.pods[name]
            if seen.generation == self.generation and version in seen.tripped:
                return f"pod {name}: {seen.tripped[version]}"
        return ""


def taken(progress: Progress, windows: Iterable[Window], generation: int) -> Progress:
    """The progress with windows taken in that it had not. Those of another generation count for their pods alone.

    Another generation than before begins the stage's counts anew. The running tests are left to the gates.
    """
    counts = dict(progress.counts) if progress.generation == generation else {}
    pods = dict(progress.pods)
    block: dict[int, list[VersionCounts]] = {}
    for window in sorted({(w.pod, w.sequence): w for w in windows}.values(), key=lambda w: (w.pod, w.sequence)):
        seen = pods.get(window.pod)
        if seen is not None and window.sequence <= seen.sequence:
            continue
        pods[window.pod] = _seen(window, seen)
        if window.generation == generation:
            for version, found in window.versions.items():
                block.setdefault(version, []).append(found)
    merged = {version: merge_counts(parts) for version, parts in block.items()}
    for version, found in merged.items():
        counts[version] = merge_counts([counts.get(version, VersionCounts()), found])
    both = counts if sum(found.requests > 0 for found in counts.values()) > 1 else progress.both
    return progress.model_copy(
        update={"generation": generation, "pods": pods, "counts": counts, "block": merged, "both": both}
    )


def _seen(window: Window, before: PodSeen | None) -> PodSeen:
    # A run that outlasts its plan is reported late, under the older generation and a higher sequence.
    if before is not None and window.generation < before.generation:
        return before.model_copy(update={"sequence": window.sequence, "at": max(before.at, window.ended_at)})
    # What a pod's guard tripped stays tripped under its generation, whatever later windows say.
    tripped = dict(before.tripped) if before is not None and before.generation == window.generation else {}
    return PodSeen(
        sequence=window.sequence,
        generation=window.generation,
        at=window.ended_at,
        loaded=tuple(window.loaded),
        failed=dict(window.failed),
        tripped=tripped | dict(window.tripped),
        memory_share=window.memory_share,
    )
