"""A rollout, as its endpoint's document holds it, and as it is archived once it is over."""

from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared.core.canonical import digest_of_bytes
from shared.core.ids import RolloutId
from shared.core.slots import Slot
from shared.core.verdict import Verdict
from shared.registry.policy import ServingPolicy
from shared.registry.rollout_policy import Gates, RolloutPolicy, Stage
from shared.rollout.findings import DriftEvidence
from shared.rollout.machine import RolloutState
from shared.rollout.progress import PodSeen, Progress
from shared.rollout.rollbacks import Reverted
from shared.rollout.schedule import QuietStage, schedule_of
from shared.routing.plan import (
    FULL_WEIGHT_BP,
    MAX_FILE_NAME_LENGTH,
    ArtifactFile,
    Role,
    Route,
    Signing,
)

type Sha256 = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
type FileName = Annotated[str, StringConstraints(max_length=MAX_FILE_NAME_LENGTH)]
"""As shared.routing.plan has them."""


class Target(BaseModel):
    """A version as the plan names it to the servers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    artifact_digest: Sha256
    size_bytes: int
    golden_digest: Sha256 | None
    profile_digest: Sha256 | None = None
    model_file: FileName = "model.onnx"
    external: tuple[ArtifactFile, ...] = ()
    signing: Signing | None = None
    allow_nan: bool = True
    """As the policy's `validation.allow_nan` was when its rollout started."""
    slot: Slot | None = Field(default=None, exclude_if=lambda slot: slot is None)
    """The endpoint's own pods that have it; None: those that endpoints share. A target of none says nothing, so that
    the app of an older release reads it."""

    def in_slot(self, slot: Slot | None) -> Self:
        """It in the pods of a slot."""
        return self.model_copy(update={"slot": slot})

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
    feedback_until: AwareDatetime | None = None
    """Until when late feedback may take back what it promoted."""
    tick: int = 0
    """The number of the last tick that was looked at."""
    trace: str | None = None
    """The `traceparent` of what started it; of its version's registration where policy did."""
    next_tick_at: AwareDatetime
    progress: Progress = Progress()
    failed_checks: int = 0
    """Checks that failed in this stage without a pass between."""
    errored_checks: int = 0
    """Ticks, in a row, with a gate that could not be asked."""
    failing_since: AwareDatetime | None = None
    """When the first of those failed checks was."""
    drift: DriftEvidence | None = None
    """What watching had found at the last tick, where something is to follow from it."""
    drift_excused: AwareDatetime | None = None
    """Since when the drift stood that it was let go on in spite of."""
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
    """That the version that it promoted was taken back; None where it was not. Where another rollout began before that,
    or since, shared.rollout.history tells it from the rollbacks."""

    @property
    def slots(self) -> frozenset[Slot | None]:
        """Those that its plans have versions in, while it is under way: pods of another have no part in it."""
        return frozenset(target.slot for target in (self.candidate, self.stable) if target is not None)

    @property
    def pods(self) -> dict[str, PodSeen]:
        """The latest words of the pods of these slots."""
        slots = self.slots
        return {name: seen for name, seen in self.progress.pods.items() if seen.slot in slots}

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


def rollout_id_of(command_id: str, version: int) -> RolloutId:
    """The id of the rollout that a start command leads to: the same command, the same rollout."""
    return RolloutId(f"rollout-{version:06d}-{digest_of_bytes(command_id.encode())[:12]}")


def automatic_command_id(model: str, version: int) -> str:
    """The id of the command that starts a version's rollout by policy."""
    return f"automatic:{model}:{version}"
