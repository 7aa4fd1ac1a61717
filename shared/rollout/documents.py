"""The endpoint and its rollout, one document: who serves, what is being rolled out, and the plan that says so."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of, digest_of_bytes
from shared.core.errors import ConflictError
from shared.core.ids import RolloutId
from shared.core.messages import MoveAlias, RolloutCommand
from shared.core.verdict import Verdict
from shared.registry.policy import ServingPolicy
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage, Strategy
from shared.rollout.machine import RolloutState
from shared.rollout.progress import Progress
from shared.rollout.rollbacks import Quarantine, Reverted, Rollback, Unapplied
from shared.rollout.schedule import QuietStage, schedule_of
from shared.routing.plan import (
    FULL_WEIGHT_BP,
    ArtifactFile,
    FileName,
    Guard,
    Role,
    Route,
    RoutePlan,
    Sha256,
    Signing,
    SubjectSource,
)
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

ENDPOINT_ID = "endpoint"
_HEARD_KEPT = 1_000


class Target(BaseModel):
    """A version as the plan names it to the servers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    artifact_digest: Sha256
    size_bytes: int
    golden_digest: Sha256 | None
    model_file: FileName = "model.onnx"
    external: tuple[ArtifactFile, ...] = ()
    signing: Signing | None = None
    allow_nan: bool = True
    """As the policy's `validation.allow_nan` was when its rollout started."""

    def route(self, role: Role, weight_bp: int) -> Route:
        """Its route under a role and a weight."""
        return Route(role=role, weight_bp=weight_bp, **self.model_dump())

    def shadow_route(self, mirror_bp: int) -> Route:
        """Its route as a shadow."""
        return Route(role=Role.SHADOW, weight_bp=0, mirror_bp=mirror_bp, **self.model_dump())


class StageApproval(BaseModel):
    """That somebody approved of a stage, or of the switch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage: int
    by: str
    at: AwareDatetime
    link_id: str = ""
    """Of the signed link that was used; it serves once."""


class Rollout(BaseModel):
    """One rollout: a candidate against the version that was stable when it started, under the policy of that moment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    rollout_id: str
    command_id: str
    candidate: Target
    stable: Target | None
    policy: RolloutPolicy
    policy_version: int = 0
    """The number of that policy; 0 is the default one."""
    serving: ServingPolicy = ServingPolicy()
    """How the server answers from its start on, until the next rollout."""
    forced: bool = False
    """Whether it was started although the candidate's signature breaks stable's callers."""
    overridden: bool = False
    """Whether somebody let it go on through freeze windows and a spent error budget."""
    shadows: tuple[Target, ...] = ()
    """Further versions that get copies of requests while the candidate does."""
    state: RolloutState = RolloutState.LOADING
    stage: int | None = None
    """Index into its stages, from the first one on."""
    set_weight_bp: int | None = None
    """The share that somebody gave the candidate, until a stage has a larger one."""
    rolled: tuple[str, ...] = ()
    """For a rolling one: the pods that give the candidate all their traffic."""
    started_at: AwareDatetime
    published_at: AwareDatetime
    """When the plan in force was."""
    stage_started_at: AwareDatetime | None = None
    """When the pods had applied the stage's plan; None while they have not."""
    guards: int = Field(default=1, ge=1)
    """Among how many guards that plan divides the policy's level."""
    resumed_at: AwareDatetime | None = None
    """When somebody last had it go on: the pods then have as long again to apply the plan."""
    halted_at: AwareDatetime | None = None
    """Since when it is paused, held or awaiting approval."""
    ended_at: AwareDatetime | None = None
    tick: int = 0
    """The number of the last tick that was looked at."""
    next_tick_at: AwareDatetime
    progress: Progress = Progress()
    failed_checks: int = 0
    """Checks that failed in this stage without a pass between."""
    errored_checks: int = 0
    """Ticks, in a row, with a gate that could not be asked."""
    failing_since: AwareDatetime | None = None
    """When the first of those failed checks was."""
    verdicts: list[Verdict] = Field(default_factory=list)
    reason: str = ""
    blocked: str = ""
    """Why no candidate could get more traffic at the last tick, in words; empty where it could."""
    requested_by: str
    approvals: list[StageApproval] = Field(default_factory=list)
    heard: list[str] = Field(default_factory=list)
    """The ids of the commands that it has heard."""
    promoted_by: str = ""
    """Who gave the candidate all traffic whatever the gates said; empty where they passed."""
    ended_by: str = ""
    """The id of the command that ended it; empty where Slipway ended it by itself."""
    reverted: Reverted | None = None
    """That the version that it promoted was taken back before another rollout began; None where it was not."""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that its strategy comes to."""
        return schedule_of(self.policy)

    @property
    def current(self) -> Stage | None:
        """The stage that it is in; None before the first and after the last."""
        is_staged = self.stage is not None and not (self.state.is_over or self.state is RolloutState.WATCHING)
        return self.stages[self.stage] if is_staged and self.stage is not None else None

    @property
    def gates(self) -> Gates:
        """The gates of its stage."""
        stage = self.current
        return stage.gates if stage and stage.gates else self.policy.gates

    @property
    def least_requests(self) -> int:
        """Requests that a side needs before a gate of its stage concludes anything."""
        stage = self.current
        return stage.min_requests if stage and stage.min_requests is not None else self.policy.min_requests

    @property
    def weight_bp(self) -> int:
        """The candidate's share of the traffic."""
        if self.state is RolloutState.WATCHING:
            return FULL_WEIGHT_BP
        if self.current is None:
            return 0
        return self.current.weight_bp if self.set_weight_bp is None else self.set_weight_bp

    @property
    def mirror_bp(self) -> int:
        """The share of the requests of which the candidate gets a copy."""
        stage = self.current
        return stage.mirror_bp if isinstance(stage, QuietStage) and not self.weight_bp else 0

    @property
    def next_stage(self) -> int:
        """The index of the stage after this one; the count of stages means the switch.

        With no stable version there is nothing to share traffic with: the switch is all that there is.
        """
        if self.stable is None:
            return len(self.stages)
        return 0 if self.stage is None else self.stage + 1

    def needs_approval(self, stage: int) -> bool:
        """Whether somebody must approve of a stage, or of the switch, which with no stable version passes them all."""
        if stage < len(self.stages):
            return self.stages[stage].approval
        return self.policy.switch_approval or (self.stable is None and any(one.approval for one in self.stages))

    def is_approved(self, stage: int) -> bool:
        """Whether a stage, or the switch, needs no approval, or has it."""
        return not self.needs_approval(stage) or any(approval.stage == stage for approval in self.approvals)


class RolloutRecord(BaseModel):
    """A rollout that is over, archived as a document beside its endpoint."""

    model_config = ConfigDict(extra="forbid")

    id: str
    kind: Literal["rollout"] = "rollout"
    endpoint: str
    version: int
    rollout: Rollout


class RefusedStart(BaseModel):
    """A rollout that policy asked for and that does not begin by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    reason: str
    at: AwareDatetime


class AliasCall(BaseModel):
    """A call for a move of an alias, kept until it is known to be heard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    move: MoveAlias
    sent_at: AwareDatetime


class Endpoint(Aggregate):
    """An endpoint. Its stable version changes in two ways only: a promotion, and a rollback of stable."""

    container: ClassVar[Container] = Container.ENDPOINTS

    id: str = ENDPOINT_ID
    kind: Literal["endpoint"] = "endpoint"
    endpoint: str
    stable: Target | None = None
    rollout: Rollout | None = None
    """The active rollout, or the latest one."""
    queued_version: int | None = None
    """The version whose rollout starts when the active one is over."""
    queued_command: RolloutCommand | None = None
    """What asked for it; None where policy did."""
    refused: RefusedStart | None = None
    """The latest start that policy asked for and that was refused, until a rollout begins."""
    alias_calls: list[AliasCall] = Field(default_factory=list)
    """Those that are not known to be heard, in the order of their generations."""
    withdrawn: list[int] = Field(default_factory=list)
    """Versions that are just being archived: no rollout of one begins."""
    good: list[Target] = Field(default_factory=list)
    """Versions that became stable and were not found to fail since, the latest last."""
    quarantined: list[Quarantine] = Field(default_factory=list)
    """Versions that failed: no rollout of one begins."""
    rollback: Rollback | None = None
    """The latest one, until the pods that report have applied it."""
    unapplied: Unapplied | None = None
    """The latest abort or conclusion of a rollout, until the pods that report have applied it."""
    heard: list[str] = Field(default_factory=list)
    """Digests of the commands that it has heard, of the id and of what was asked, the latest last: one that comes
    again finds its own, also when another rollout has begun since."""
    generation: int = 0

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"endpoint:{self.endpoint}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.endpoint

    @property
    def active(self) -> Rollout | None:
        """The rollout that is under way, or None."""
        return self.rollout if self.rollout and not self.rollout.state.is_over else None

    @property
    def ticking(self) -> Rollout | None:
        """The rollout that is looked at: the active one, or the latest while the pods have not applied what ended it,
        or a rollback.
        """
        return self.rollout if self.active or self.rollback or self.unapplied else None

    def calls_for(self, alias: str) -> list[MoveAlias]:
        """The calls for an alias that are not known to be heard, in their order."""
        return [call.move for call in self.alias_calls if call.move.alias == alias]

    def has_heard(self, command: RolloutCommand) -> bool:
        """Whether a command was heard, as far as it is remembered. Raises ConflictError where its id was another's."""
        known = next((heard for heard in self.heard if heard.startswith(_id_of(command))), None)
        # What a signed link led to is told of as such.
        if known is not None and known != _heard_as(command) and not command.link_id:
            raise ConflictError(
                f"the command id {command.command_id!r} was used for another command to {self.endpoint}: give each "
                "command an id of its own, and the same id only where the same is asked for again"
            )
        return known is not None

    def hear(self, command: RolloutCommand) -> None:
        """Remember a command."""
        if not self.has_heard(command):
            self.heard = [*self.heard, _heard_as(command)][-_HEARD_KEPT:]

    def plan(self) -> RoutePlan | None:
        """The route plan that this state calls for; None before the first rollout."""
        if self.generation == 0:
            return None
        active = self.active
        return RoutePlan(
            endpoint=self.endpoint,
            generation=self.generation,
            rollout_id=active.rollout_id if active else None,
            salt=active.rollout_id if active else "",
            routes=tuple(self._routes()),
            pods=active.rolled if active and _rolls(active) else None,
            subject=self.rollout.serving.subject if self.rollout else SubjectSource(),
            guard=_guard(active) if active else Guard(),
        )

    def is_quarantined(self, version: int) -> bool:
        """Whether a version failed, and nobody cleared it since."""
        return any(found.version == version for found in self.quarantined)

    def last_good(self, *, but: int) -> Target | None:
        """The last known good version other than one."""
        return next((t for t in reversed(self.good) if t.version != but and not self.is_quarantined(t.version)), None)

    @property
    def fallback(self) -> Target | None:
        """The version that a rollback of stable would go back to; None where there is none."""
        return self.last_good(but=self.stable.version) if self.stable else None

    def _routes(self) -> list[Route]:
        routes: list[Route] = []
        active = self.active
        weight_bp = active.weight_bp if active else 0
        if self.stable:
            routes.append(self.stable.route(Role.STABLE, FULL_WEIGHT_BP - weight_bp))
        if active is None:
            return routes
        if active.mirror_bp:
            routes += [target.shadow_route(active.mirror_bp) for target in (active.candidate, *active.shadows)]
        else:
            routes.append(active.candidate.route(Role.CANDIDATE, weight_bp))
        return routes


def _guard(rollout: Rollout) -> Guard:
    """The guard of each pod under a plan: all of them together keep the policy's level."""
    guard = rollout.policy.guard
    return guard.model_copy(update={"level": guard.level / rollout.guards})


def _rolls(rollout: Rollout) -> bool:
    return (
        rollout.policy.strategy is Strategy.ROLLING
        and rollout.current is not None
        and rollout.state is not RolloutState.WATCHING
    )


def _id_of(command: RolloutCommand) -> str:
    return f"{digest_of_bytes(command.command_id.encode())[:16]}:"


def _heard_as(command: RolloutCommand) -> str:
    asked = digest_of([command.command, command.version, command.weight_bp, command.stage])
    return f"{_id_of(command)}{asked[:8]}"


def rollout_id_of(command_id: str, version: int) -> RolloutId:
    """The id of the rollout that a start command leads to: the same command, the same rollout."""
    return RolloutId(f"rollout-{version:06d}-{digest_of_bytes(command_id.encode())[:12]}")


def automatic_command_id(model: str, version: int) -> str:
    """The id of the command that starts a version's rollout by policy."""
    return f"automatic:{model}:{version}"
