"""Retention: shows what it would do, and does exactly that.

`run` carries out the plan that was shown, or refuses where the world has changed since. First its versions are
archived, then, a grace later, its blobs are deleted. Each step may be done again, so that a run which dies anywhere is
carried on by the next call or by the timer, and what is gone already is fine.

Why a version in use is never touched. Archiving refuses one that an endpoint or an alias uses. What uses it is looked
at again right after, and once more before anything is deleted: whoever read it as validated before it was archived,
and makes use of it after, does so within `grace`, for no function lives longer than host.json's functionTimeout, which
is shorter. By then its use shows, the version is taken back into its state, and none of its bytes went.

Why a blob that a registration counts on is never deleted. A registration stores each part or, finding it there,
touches it, and only then makes the version's document. Let E be the ETag that the plan read, and let the touch come

- before E was read: that is at least `grace` before the deletion. The registration has ended since, within
  functionTimeout, and the look at what versions stand on, right before the deletion, sees its version. If it died
  instead, it begins anew, and touches anew;
- after E was read and before the deletion: the ETag is not E any more, and the deletion does nothing;
- after the deletion: it finds nothing to touch, and the registration stores the part again.

An archived version's bytes count as referenced for `grace` too, so that the same holds across models; and a blob that
is younger than `grace` is not planned, so that what goes on just now does not overtake the plan. `grace` must be longer
than functionTimeout by more than any two clocks differ.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from functools import partial

from pydantic import ValidationError

from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, ConflictError, NotFoundError, SlipwayError
from shared.core.ids import ModelName, VersionNumber
from shared.core.verdict import Outcome
from shared.registration.documents import Drop, DropState
from shared.registry.documents import ModelVersion, VersionState, version_id
from shared.registry.policy import RetentionPolicy
from shared.registry.service import RegistryService
from shared.retention.deeds import deeds_of, store_deeds
from shared.retention.documents import MAX_SPARED, PlannedBlob, RetentionPlan, RetentionRun, RunState, run_id
from shared.retention.plan import DropBlobs, chosen, plan_of
from shared.retention.uses import Uses, UsesOf, digests_of
from shared.rollout.service import RolloutService
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.store.repository import AggregatePage, Repository

GRACE = timedelta(hours=2)
"""Three times host.json's functionTimeout."""

_PREFIX = "sha256/"
_MAX_REASON = 500


class RetentionService:
    """Plans and runs retention. Two runs at once do no harm."""

    def __init__(
        self,
        *,
        registry: RegistryService,
        rollouts: RolloutService,
        versions: Repository[ModelVersion],
        drops: Repository[Drop],
        runs: Repository[RetentionRun],
        uses: Uses,
        blobs: BlobStore,
        clock: Clock,
        grace: timedelta = GRACE,
    ) -> None:
        self._registry = registry
        self._rollouts = rollouts
        self._versions = versions
        self._drops = drops
        self._runs = runs
        self._uses = uses
        self._blobs = blobs
        self._clock = clock
        self._grace = grace

    def plan(self, model: str) -> RetentionPlan:
        """What retention would do to a model now. Nothing is changed. Raises NotFoundError."""
        policy = self._registry.model(model).policy.retention
        now = self._clock.now()
        # The ETags first, what stands on the blobs after: see above.
        stored = {info.name: info for info in self._blobs.list(BlobContainer.ARTIFACTS, _PREFIX)}
        drops = list(self._ended_drops(model, policy))
        versions = list(self._versions.where(partition=model))
        choice = chosen(versions, self._uses.of(model), policy, now)
        return plan_of(
            model=model,
            policy=policy,
            versions=versions,
            choice=choice,
            stored=stored,
            referenced=self._referenced(but={(model, version.version) for version in choice.archive}),
            drops=drops,
            now=now,
            grace=self._grace,
        )

    def run(self, model: str, plan_id: str, *, by: str) -> RetentionRun:
        """Carry out a plan that was shown. Again: carry on, or tell how it ended.

        Raises NotFoundError for an absent model, ConflictError where the plan is not what would be done now.
        """
        found = self._runs.find(model, run_id(plan_id))
        if found and not found.state.is_over:
            return self._carry_on(found)
        plan = self.plan(model)
        if plan.plan_id == plan_id:
            return self._carry_on(self._begin(plan, by))
        # Another call may have begun it since: what it did is why the plan is another one.
        found = found or self._runs.find(model, run_id(plan_id))
        if found:
            return found
        raise ConflictError(
            f"the plan {plan_id[:12]!r} is not what retention of {model} would do now, which is {plan.plan_id[:12]!r}: "
            "look at the new plan, and run that"
        )

    def runs(self, model: str, continuation: str | None = None) -> AggregatePage[RetentionRun]:
        """A page of a model's runs."""
        return self._runs.page(partition=model, continuation=continuation)

    def one(self, model: str, identity: str) -> RetentionRun:
        """One run, by its id. Raises NotFoundError."""
        found = self._runs.find(model, identity)
        if found is None:
            raise NotFoundError(f"the retention run {identity[:80]!r} of {model!r}")
        return found

    def resume(self) -> int:
        """Carry on each run that is not over, as far as it may go now. Returns how many there were.

        One that fails keeps no other from going on; what went wrong is raised together at the end.
        """
        runs = list(self._unfinished())
        failures: list[Exception] = []
        for run in runs:
            try:
                self._carry_on(run)
            except (SlipwayError, ValidationError) as error:
                error.add_note(f"carrying on {run.id} of {run.model}")
                failures.append(error)
        if failures:
            raise ExceptionGroup("not every retention run could be carried on", failures)
        return len(runs)

    def _begin(self, plan: RetentionPlan, by: str) -> RetentionRun:
        now = self._clock.now()
        fresh = RetentionRun(
            id=run_id(plan.plan_id),
            model=plan.model,
            plan_id=plan.plan_id,
            versions=[version.version for version in plan.deeds.archive],
            blobs=len(plan.deeds.delete),
            size_bytes=plan.deeds.size_bytes,
            requested_by=by,
            started_at=now,
        )
        facts = {
            "plan_id": plan.plan_id,
            "by": by,
            "versions": fresh.versions,
            "blobs": fresh.blobs,
            "size_bytes": fresh.size_bytes,
        }
        fresh.record("retention_started", now, **facts)

        def again(run: RetentionRun) -> bool:
            # What a run that ended had spared is to be done after all.
            if not run.state.is_over:
                return False
            run.state, run.requested_by, run.started_at, run.ended_at = RunState.ARCHIVING, by, now, None
            run.deleted, run.deleted_bytes, run.archived, run.spared = 0, 0, [], []
            run.record("retention_started", now, **facts)
            return True

        # Before the run, which needs them; a run that does not come leaves them to the next of this plan.
        store_deeds(self._blobs, plan)
        self._runs.find_or_create(fresh)
        return self._runs.change(plan.model, fresh.id, again)

    def _carry_on(self, run: RetentionRun) -> RetentionRun:
        if run.state is RunState.ARCHIVING:
            run = self._archive(run)
        if run.state is RunState.WAITING and run.delete_after and self._clock.now() >= run.delete_after:
            run = self._delete(run)
        return run

    def _archive(self, run: RetentionRun) -> RetentionRun:
        policy = self._registry.model(run.model).policy.retention
        versions = list(self._versions.where(partition=run.model))
        reason = f"retention plan {run.plan_id[:12]}"
        # Carried on after a while, it leaves alone what may not be archived any more.
        choice = chosen(versions, self._uses.of(run.model), policy, self._clock.now())
        held = {kept.version: "; ".join(kept.reasons) for kept in choice.keep if kept.version in run.versions}
        model, by = ModelName(run.model), run.requested_by
        for one in choice.archive:
            if one.version not in run.versions:
                continue
            number, only = VersionNumber(one.version), VersionState(one.state)
            try:
                self._rollouts.archive(model, number, by=by, reason=reason, only=only)
            except ConflictError as error:
                held[number] = str(error)
        self._revive_used(run)
        now = self._clock.now()
        archived = [number for number in run.versions if self._is_archived(run.model, number)]

        def wait(current: RetentionRun) -> bool:
            if current.state is not RunState.ARCHIVING:
                return False
            current.state, current.delete_after, current.archived = RunState.WAITING, now + self._grace, archived
            current.held = {number: why[:_MAX_REASON] for number, why in held.items() if number not in archived}
            if not current.blobs:
                current.delete_after = now
            current.record("retention_archived", now, versions=archived)
            return True

        return self._runs.change(run.model, run.id, wait)

    def _delete(self, run: RetentionRun) -> RetentionRun:
        held = self._revive_used(run) | run.held
        archived = [number for number in run.versions if self._is_archived(run.model, number)]
        spared = [
            f"version {number} stays: {held.get(number, 'it is not archived any more')[:_MAX_REASON]}"
            for number in run.versions
            if number not in archived
        ]
        referenced = self._referenced()
        kept_bytes, kept = 0, 0
        for blob in deeds_of(self._blobs, run).delete:
            why = self._spares(blob, referenced)
            if why:
                kept, kept_bytes = kept + 1, kept_bytes + blob.size_bytes
                spared.append(f"{blob.container}/{blob.name} stays: {why}")
        more = len(spared) - MAX_SPARED
        told = [*spared[:MAX_SPARED], f"and {more} more"] if more > 0 else spared
        now = self._clock.now()

        def end(current: RetentionRun) -> bool:
            if current.state is not RunState.WAITING:
                return False
            current.state, current.ended_at, current.archived, current.spared = RunState.DONE, now, archived, told
            current.deleted, current.deleted_bytes = current.blobs - kept, current.size_bytes - kept_bytes
            current.record(
                "retention_done",
                now,
                versions=archived,
                deleted=current.deleted,
                deleted_bytes=current.deleted_bytes,
                spared=told,
            )
            return True

        return self._runs.change(run.model, run.id, end)

    def _spares(self, blob: PlannedBlob, referenced: dict[str, str]) -> str:
        """Delete a blob, or say why it stays. One that is gone is deleted."""
        if blob.container is BlobContainer.ARTIFACTS:
            user = referenced.get(blob.name.removeprefix(_PREFIX))
            if user:
                return f"{user} stands on it"
        try:
            self._blobs.delete(blob.container, blob.name, etag=blob.etag)
        except ChangedMeanwhileError:
            return "it is not what it was when the plan was made"
        except ConflictError as error:
            return f"protected: {error}"
        return ""

    def _revive_used(self, run: RetentionRun) -> dict[int, str]:
        """Take back the archiving of versions that came into use while it was done; what uses each."""
        now = self._clock.now()
        uses = self._uses.of(run.model)
        used = {number: "; ".join(uses[number]) for number in run.versions if number in uses}
        for number, reason in used.items():
            self._versions.change(run.model, version_id(number), partial(_revive, now=now, reason=reason))
        return used

    def _is_archived(self, model: str, number: int) -> bool:
        return self._registry.version(model, VersionNumber(number)).state is VersionState.ARCHIVED

    def _referenced(self, *, but: Iterable[tuple[str, int]] = ()) -> dict[str, str]:
        """For each digest that must stay, a version that stands on it, of whatever model."""
        left_out = set(but)
        found: dict[str, str] = {}
        uses: dict[str, UsesOf] = {}
        for version in self._versions.where():
            if (version.model, version.version) in left_out:
                continue
            if version.state is VersionState.ARCHIVED and not self._is_recent(version):
                if version.model not in uses:
                    uses[version.model] = self._uses.of(version.model)
                if version.version not in uses[version.model]:
                    continue
            for digest in digests_of(version):
                found.setdefault(digest, f"version {version.version} of {version.model}")
        return found

    def _is_recent(self, version: ModelVersion) -> bool:
        return version.archived_at is not None and self._clock.now() - version.archived_at < self._grace

    def _ended_drops(self, model: str, policy: RetentionPolicy) -> Iterator[DropBlobs]:
        """The drops that ended longer ago than policy keeps, with those of their blobs that lie there unchanged."""
        age = timedelta(days=policy.keep_days)
        for drop in self._drops.where(partition=model, state=DropState.REGISTERED.value):
            if self._clock.now() - drop.attempted_at >= age:
                yield DropBlobs(drop=drop, blobs=tuple(self._blobs_of_drop(drop)))

    def _blobs_of_drop(self, drop: Drop) -> Iterator[BlobInfo]:
        # A name that is a prefix of another lists that one too: the ETag tells them apart.
        wanted = {drop.blob + name: seen.etag for name, seen in drop.files.items()} or {drop.blob: drop.etag}
        for info in self._blobs.list(BlobContainer.INCOMING, drop.blob):
            if wanted.get(info.name) == info.etag:
                yield info

    def _unfinished(self) -> Iterator[RetentionRun]:
        for state in RunState:
            if not state.is_over:
                yield from self._runs.readable(state=state.value)


def _revive(version: ModelVersion, *, now: datetime, reason: str) -> bool:
    """Take a version's archiving back."""
    if version.state is not VersionState.ARCHIVED:
        return False
    passed = version.validation is not None and version.validation.outcome is Outcome.PASS
    version.state = VersionState.VALIDATED if passed else VersionState.REJECTED
    version.archived_at = None
    version.record("version_revived", now, version=version.version, reason=reason)
    return True
