"""A witness of an endpoint's life: looks after every write, and holds what was written to what nothing may break.

It keeps its own account of what the pods told of and of who acts, and asks none of the code that decides.
"""

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil

from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, RolloutTick
from shared.core.verdict import Outcome, joined
from shared.registry.documents import VersionState
from shared.registry.rollout_policy import QueryGate
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import ENDPOINT_ID, Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.queries import QueryAnswer
from shared.rollout.schedule import QuietStage
from shared.routing.plan import FULL_WEIGHT_BP, RoutePlan, plan_blob_name
from shared.store.aggregate import PublishEntry
from shared.store.ports import BlobContainer, Container
from shared.telemetry.window import Window, window_blob_name
from tests.world.fakes import FakeBlobs, FakeClock, Fuse
from tests.world.world import ENDPOINT, MODEL, Pod, World

PEOPLE = ("bob", "cy")
ASKS = "ann"
"""Who starts rollouts, and so may not approve of their stages."""
_ONWARD = {
    RolloutState.PROGRESSING,
    RolloutState.AWAITING,
    RolloutState.WATCHING,
    RolloutState.PROMOTED,
    RolloutState.CONCLUDED,
}
_HALTED = {RolloutState.PAUSED, RolloutState.HELD}
_BY_NAME = {CommandKind.PROMOTE, CommandKind.SKIP, CommandKind.APPROVE}
_SILENT_AFTER = timedelta(seconds=30)


@dataclass
class Watch(Fuse):
    """A fuse that has a witness look before each port call, and so after every write."""

    witness: "Witness | None" = None

    def before_call(self) -> None:
        """Look, and die here if it is time. What the witness asks itself counts for nothing."""
        if self.witness is not None and not self.witness.is_looking:
            self.witness.look()
            super().before_call()


@dataclass
class ToldPod(Pod):
    """A pod whose windows the witness reads too."""

    tell: Callable[[Window], None] = lambda _: None

    def report(self, blobs: FakeBlobs, clock: FakeClock, endpoint: str) -> None:
        """Report, and tell what was written."""
        number = self.sequence
        super().report(blobs, clock, endpoint)
        if self.sequence > number:
            name = window_blob_name(endpoint, clock.now(), self.name, number)
            self.tell(Window.model_validate_json(blobs.held[BlobContainer.TELEMETRY, name].data))


@dataclass
class Witness:
    """What was seen of one endpoint."""

    world: World
    actor: RolloutCommand | RolloutTick | None = None
    """What is being handled."""
    edits: int = 0
    states: set[RolloutState] = field(default_factory=set)
    answers: dict[str, QueryAnswer] = field(default_factory=dict)
    """What each query was answered last."""
    plans: dict[int, RoutePlan] = field(default_factory=dict)
    """By generation: what the endpoint's state called for, and what was to be published of it."""
    converged: set[str | None] = field(default_factory=set)
    """Rollouts whose candidate the quorum had ready when its first stage began, or was to begin."""
    latest: dict[str, Window] = field(default_factory=dict)
    served: defaultdict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    """Requests by generation and version, as the windows tell of them."""
    copied: defaultdict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    pinned: defaultdict[int, Counter[int]] = field(default_factory=lambda: defaultdict(Counter))
    before: Endpoint | None = None
    published: int = 0
    """The generation of the plan that the servers see."""
    _etag: str = ""
    _plan_etag: str = ""
    is_looking: bool = False
    problem: AssertionError | None = None
    """What did not hold, whoever has caught it since."""

    def told(self, window: Window) -> None:
        """A pod wrote a window."""
        self.latest[window.pod] = window
        for version, counts in window.versions.items():
            self.served[window.generation][version] += counts.requests
            self.pinned[window.generation][version] += counts.pinned
            self.copied[window.generation][version] += counts.shadow.compared if counts.shadow else 0

    def look(self) -> None:
        """See whether the endpoint or its published plan changed, and whether that holds."""
        self.is_looking = True
        try:
            self._look()
        except AssertionError as error:
            self.problem = error
            raise
        finally:
            self.is_looking = False

    def _look(self) -> None:
        stored = self.world.documents.held.get((Container.ENDPOINTS, ENDPOINT, ENDPOINT_ID))
        if stored is not None and stored.etag != self._etag:
            self._etag = stored.etag
            self._changed(Endpoint.from_body(stored.body))
        blob = self.world.blobs.held.get((BlobContainer.ROUTES, plan_blob_name(MODEL)))
        if blob is not None and blob.info.etag != self._plan_etag:
            self._plan_etag = blob.info.etag
            plan = RoutePlan.model_validate_json(blob.data)
            assert plan.generation >= self.published
            assert plan == self.plans[plan.generation]
            self.published = plan.generation

    def _changed(self, after: Endpoint) -> None:
        before, self.before = self.before, after
        entries = [e for e in after.outbox if isinstance(e, PublishEntry) and e.container is BlobContainer.ROUTES]
        told = {entry.generation: RoutePlan.model_validate(entry.body) for entry in entries}
        if (plan := after.plan()) is not None:
            assert told.get(after.generation, plan) == plan
            told[after.generation] = plan
        if before is None:
            self.plans |= told
            return
        self.edits += 1
        assert after.generation >= before.generation
        self._check_step(before, after)
        self._check_stable(before, after)
        for generation, plan in told.items():
            if generation not in self.plans:
                self._check_plan(plan)
            assert self.plans.setdefault(generation, plan) == plan

    def _check_plan(self, plan: RoutePlan) -> None:
        """The weights add up, and the candidate has traffic only where it is validated and its pods had it ready."""
        assert sum(route.weight_bp for route in plan.routes) == (FULL_WEIGHT_BP if plan.stable else 0)
        if plan.candidate is not None and plan.candidate.weight_bp:
            assert plan.rollout_id in self.converged, plan
            version = self.world.registry.version(MODEL, VersionNumber(plan.candidate.version))
            assert version.state is VersionState.VALIDATED

    def _check_stable(self, before: Endpoint, after: Endpoint) -> None:
        """What is stable changes by a promotion, or back to a good version."""
        if after.stable is None or after.stable == before.stable:
            assert after.stable is not None or before.stable is None
            return
        rollout = after.rollout
        assert rollout is not None
        if rollout.state is RolloutState.PROMOTED and before.active:
            assert after.stable == rollout.candidate
        else:
            assert after.stable in before.good
            assert not after.is_quarantined(after.stable.version)
            assert isinstance(self.actor, RolloutTick) or (
                self.actor is not None and self.actor.command is CommandKind.ROLLBACK
            )

    def _check_step(self, before: Endpoint, after: Endpoint) -> None:
        """A rollout goes on by the word of somebody who is named, or where the evidence passes."""
        was, now = before.rollout, after.rollout
        assert now is not None
        self.states.add(now.state)
        if was is None or was.rollout_id != now.rollout_id:
            assert (now.state, now.stage, now.weight_bp) == (RolloutState.LOADING, None, 0)
            return
        if (now.state, now.stage) == (was.state, was.stage) or now.state not in _ONWARD:
            return
        actor = self.actor
        if was.state in _HALTED and now.state is RolloutState.PROGRESSING and now.stage == was.stage:
            assert isinstance(actor, RolloutCommand)
            assert actor.command is CommandKind.RESUME
        elif isinstance(actor, RolloutCommand):
            self._check_by_name(was, now, actor)
        else:
            assert isinstance(actor, RolloutTick)
            assert joined(now.verdicts) is Outcome.PASS, now.verdicts
            self._check_evidence(before, was)

    def _check_by_name(self, was: Rollout, now: Rollout, command: RolloutCommand) -> None:
        assert command.command in _BY_NAME, (was.state, now.state, command)
        assert command.requested_by in PEOPLE
        if was.state is RolloutState.AWAITING:
            assert command.command is CommandKind.APPROVE
        if now.state in {RolloutState.PROGRESSING, RolloutState.WATCHING, RolloutState.PROMOTED}:
            reached = now.stage if now.state is RolloutState.PROGRESSING else len(now.stages)
            assert reached is not None
            is_needed = now.stages[reached].approval if reached < len(now.stages) else now.policy.switch_approval
            is_given = any(given.stage == reached and given.by in PEOPLE for given in now.approvals)
            assert is_given or not is_needed or was.state is RolloutState.WATCHING

    def _check_evidence(self, before: Endpoint, was: Rollout) -> None:
        """There was enough of what the stage goes by: no data never promotes, nor does what is inconclusive."""
        assert self._is_converged(before, was), (was.state, self.latest)
        self.converged.add(was.rollout_id)
        if was.state is RolloutState.LOADING:
            return
        generation, version, stage = before.generation, was.candidate.version, was.current
        if isinstance(stage, QuietStage):
            found = self.copied[generation][version] if stage.mirror_bp else self.pinned[generation][version]
            assert found >= (was.least_requests if stage.mirror_bp else was.gates.smoke_requests)
        else:
            assert self.served[generation][version] >= was.least_requests
        for query in was.gates.queries:
            assert query.dry_run or _is_met(query, self.answers[query.query])

    def _is_converged(self, before: Endpoint, rollout: Rollout) -> bool:
        now = self.world.clock.now()
        known = [window for window in self.latest.values() if window.ended_at >= rollout.started_at]
        reporting = [window for window in known if now - window.ended_at <= _SILENT_AFTER]
        version = rollout.candidate.version
        ready = [w for w in reporting if w.generation >= before.generation and version in w.loaded]
        return len(ready) >= max(1, ceil(rollout.policy.quorum * len(reporting) - 1e-9))


def _is_met(query: QueryGate, answer: QueryAnswer) -> bool:
    value = answer.value
    if value is None or answer.error:
        return False
    low, high = query.at_least, query.at_most
    return (low is None or value >= low) and (high is None or value <= high)
