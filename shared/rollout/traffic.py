"""The evidence of a rollout's traffic as the gates and triggers read it: candidate beside stable."""

from dataclasses import dataclass
from datetime import datetime

from shared.core.slots import Slot
from shared.rollout.convergence import fresh, still_sent
from shared.rollout.documents import Rollout
from shared.routing.plan import FULL_WEIGHT_BP
from shared.telemetry.window import VersionCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Counts since the stage began, and those that the latest tick took in. Zeros where nothing was counted."""

    candidate: VersionCounts
    stable: VersionCounts
    candidate_block: VersionCounts
    stable_block: VersionCounts
    is_concurrent: bool
    """Whether stable's are of the same time; else they are of the latest stage in which it had traffic."""

    @property
    def when(self) -> str:
        """What time stable's counts are of, in words."""
        return "at the same time" if self.is_concurrent else "when it last had traffic"


def traffic_of(rollout: Rollout) -> Traffic:
    """The traffic of a rollout as it stands."""
    progress, candidate = rollout.progress, rollout.candidate.version
    stable = rollout.stable.version if rollout.stable else -1
    has_stable = bool(progress.of(stable).requests) or not _has_every_pod(rollout)
    is_concurrent = rollout.weight_bp < FULL_WEIGHT_BP and has_stable
    before = progress.both.get(stable, VersionCounts())
    return Traffic(
        candidate=progress.of(candidate),
        stable=progress.of(stable) if is_concurrent else before,
        candidate_block=progress.block.get(candidate, VersionCounts()),
        stable_block=progress.block.get(stable, VersionCounts()) if is_concurrent else before,
        is_concurrent=is_concurrent,
    )


def _has_every_pod(rollout: Rollout) -> bool:
    """Whether a rolling one has come to every pod that reports, whatever its share: none is left to stable.

    A pod of stable's that is late for a tick looks like that too: what it counted in this stage tells them apart.
    """
    progress = rollout.progress
    reporting = fresh(rollout.pods, progress.looked_at) if progress.looked_at else ()
    return bool(rollout.rolled) and set(reporting) <= set(rollout.rolled)


def sharing(rollout: Rollout) -> frozenset[Slot | None]:
    """The slots to which the plan of a rollout that is under way gives a share of the requests."""
    if rollout.stable is None:
        return rollout.slots
    shares = {rollout.candidate.slot: rollout.weight_bp, rollout.stable.slot: FULL_WEIGHT_BP - rollout.weight_bp}
    if len(shares) == 1:
        return rollout.slots
    return frozenset(slot for slot, share_bp in shares.items() if share_bp)


def idle_slots(rollout: Rollout) -> frozenset[Slot | None] | None:
    """The slots in which the plan has a version of the rollout without a share; None where both are in shared pods."""
    if rollout.slots == {None}:
        return None
    return frozenset() if rollout.state.is_over else rollout.slots - sharing(rollout)


def unheard(rollout: Rollout, now: datetime) -> tuple[str, ...]:
    """The pods that the Gateway still sends requests although the plan of a rollout that is under way gives their
    version no share; none where both versions are in the same pods, which go by the plan themselves.
    """
    return still_sent(rollout.pods, sharing(rollout), now)


def answered(counts: VersionCounts) -> int:
    """Assigned requests that were answered."""
    return sum(counts.latency_ms.values())
