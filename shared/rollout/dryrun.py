"""Policy dry-runs: what another policy would have decided in an endpoint's latest rollouts, from their tick records.

Reads alone, and a bounded number of records. A rollout of which a record is absent is named and not judged.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import ValidationError

from shared.core.errors import IntegrityError, InvalidInputError, NotFoundError
from shared.core.ids import EndpointName
from shared.core.threads import side_by_side
from shared.registry.rollout_policy import RolloutPolicy
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState
from shared.rollout.replay import Replay, replay
from shared.rollout.tickrecord import MAX_RECORD_BYTES, TickRecord, blob_name
from shared.store.ports import BlobContainer, BlobStore

MAX_ROLLOUTS = 20
MAX_TICKS = 5_000
"""Records that one dry-run reads at most."""
PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NotJudged:
    """A rollout that is not replayed, and why."""

    rollout: Rollout
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TickPage:
    """A page of a rollout's tick records, in their order. `following` is the next page's first; None on the last."""

    items: list[TickRecord]
    following: int | None


class DryRuns:
    """Reads tick records, and replays rollouts under other policies."""

    def __init__(
        self,
        *,
        rollouts: Callable[[EndpointName], list[Rollout]],
        rollout: Callable[[EndpointName, str], Rollout],
        blobs: BlobStore,
    ) -> None:
        """`rollouts` are an endpoint's, in the order of their start; `rollout` is one of them by its id.

        Both raise NotFoundError for what is not there.
        """
        self._rollouts = rollouts
        self._rollout = rollout
        self._blobs = blobs

    def tick(self, endpoint: EndpointName, rollout_id: str, tick: int) -> TickRecord:
        """The record of a tick. Raises NotFoundError, IntegrityError."""
        record = self._read(endpoint, self._rollout(endpoint, rollout_id), tick)
        if record is None:
            raise NotFoundError(f"tick {tick} of rollout {rollout_id}")
        return record

    def ticks(self, endpoint: EndpointName, rollout_id: str, first: int = 1) -> TickPage:
        """The records of a rollout's ticks from one on, those that are there. Raises NotFoundError, IntegrityError."""
        rollout = self._rollout(endpoint, rollout_id)
        first, last = max(1, first), rollout.tick
        until = min(last, first + PAGE - 1)
        items = [record for record in self._records(endpoint, rollout, first, until) if record is not None]
        return TickPage(items=items, following=until + 1 if until < last else None)

    def dry_run(self, endpoint: EndpointName, policy: RolloutPolicy, *, last: int) -> list[Replay | NotJudged]:
        """The endpoint's `last` rollouts replayed under a policy, the latest first.

        Raises NotFoundError, IntegrityError; InvalidInputError where `last` is not from 1 to MAX_ROLLOUTS.
        """
        if not 1 <= last <= MAX_ROLLOUTS:
            raise InvalidInputError(f"{last} rollouts were asked for: ask for 1 to {MAX_ROLLOUTS}")
        left, found = MAX_TICKS, list[Replay | NotJudged]()
        for rollout in reversed(self._rollouts(endpoint)[-last:]):
            if rollout.tick > left:
                why = f"it has {rollout.tick} ticks, and one dry-run reads at most {MAX_TICKS}: ask for fewer rollouts"
                found.append(NotJudged(rollout=rollout, why=why))
                continue
            left -= rollout.tick
            found.append(self._replayed(endpoint, rollout, policy))
        return found

    def _replayed(self, endpoint: EndpointName, rollout: Rollout, policy: RolloutPolicy) -> Replay | NotJudged:
        records = list(self._records(endpoint, rollout, 1, rollout.tick))
        # Ticks after its end look for a rollback alone and leave no record; that of the latest may be on its way.
        while records and records[-1] is None:
            records.pop()
        there = [record for record in records if record is not None]
        if len(there) < len(records):
            absent = next(number for number, record in enumerate(records, 1) if record is None)
            return NotJudged(rollout=rollout, why=f"the record of its tick {absent} is gone, or was never kept")
        if _ended_by_a_tick(rollout) and not (there and there[-1].decided.event):
            return NotJudged(rollout=rollout, why="the record of the tick that ended it is gone, or was never kept")
        return replay(rollout, there, policy)

    def _records(self, endpoint: str, rollout: Rollout, first: int, last: int) -> Iterator[TickRecord | None]:
        yield from side_by_side(lambda tick: self._read(endpoint, rollout, tick), range(first, last + 1))

    def _read(self, endpoint: str, rollout: Rollout, tick: int) -> TickRecord | None:
        name = blob_name(endpoint, rollout.rollout_id, tick)
        blob = self._blobs.read(BlobContainer.REPORTS, name, max_bytes=MAX_RECORD_BYTES)
        if blob is None:
            return None
        try:
            return TickRecord.model_validate_json(blob.data)
        except ValidationError:
            raise IntegrityError(
                f"{BlobContainer.REPORTS}/{name} does not hold a tick's record: find out who changed it"
            ) from None


def _ended_by_a_tick(rollout: Rollout) -> bool:
    return rollout.state.is_over and not rollout.ended_by and rollout.state is not RolloutState.ABORTED
