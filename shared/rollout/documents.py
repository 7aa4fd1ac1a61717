"""The endpoint and its rollout, one document: who serves, what is being rolled out, and the plan that says so."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of_bytes
from shared.core.ids import RolloutId
from shared.core.messages import MoveAlias
from shared.core.verdict import Verdict
from shared.registry.policy import RolloutPolicy, ServingPolicy
from shared.rollout.machine import RolloutState
from shared.routing.plan import ArtifactFile, FileName, Guard, Role, Route, RoutePlan, Sha256, Signing, SubjectSource
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

ENDPOINT_ID = "endpoint"


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
    state: RolloutState = RolloutState.LOADING
    stage: int | None = None
    """Index into the policy's stages while progressing."""
    started_at: AwareDatetime
    stage_started_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None
    tick: int = 0
    """The number of the last tick that was looked at."""
    next_tick_at: AwareDatetime
    failed_checks: int = 0
    """Checks that failed, in a row, in this stage."""
    verdicts: list[Verdict] = Field(default_factory=list)
    reason: str = ""
    requested_by: str
    ended_by: str = ""
    """The id of the command that ended it; empty where Slipway ended it by itself."""

    @property
    def weight_bp(self) -> int:
        """The candidate's share of the traffic."""
        if self.state is RolloutState.PROGRESSING and self.stage is not None:
            return self.policy.stages[self.stage].weight_bp
        return 0


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
    """An endpoint. Its stable version changes in one way only: a rollout that is promoted."""

    container: ClassVar[Container] = Container.ENDPOINTS

    id: str = ENDPOINT_ID
    kind: Literal["endpoint"] = "endpoint"
    endpoint: str
    stable: Target | None = None
    rollout: Rollout | None = None
    """The active rollout, or the latest one."""
    queued_version: int | None = None
    """The version whose automatic rollout starts when the active one is over."""
    refused: RefusedStart | None = None
    """The latest start that policy asked for and that was refused, until a rollout begins."""
    alias_calls: list[AliasCall] = Field(default_factory=list)
    """Those that are not known to be heard, in the order of their generations."""
    withdrawn: list[int] = Field(default_factory=list)
    """Versions that are just being archived: no rollout of one begins."""
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

    def calls_for(self, alias: str) -> list[MoveAlias]:
        """The calls for an alias that are not known to be heard, in their order."""
        return [call.move for call in self.alias_calls if call.move.alias == alias]

    def plan(self) -> RoutePlan | None:
        """The route plan that this state calls for; None before the first rollout."""
        if self.generation == 0:
            return None
        routes: list[Route] = []
        weight_bp = self.active.weight_bp if self.active else 0
        if self.stable:
            routes.append(self.stable.route(Role.STABLE, 10_000 - weight_bp))
        if self.active:
            routes.append(self.active.candidate.route(Role.CANDIDATE, weight_bp))
        return RoutePlan(
            endpoint=self.endpoint,
            generation=self.generation,
            rollout_id=self.active.rollout_id if self.active else None,
            salt=self.active.rollout_id if self.active else "",
            routes=tuple(routes),
            subject=self.rollout.serving.subject if self.rollout else SubjectSource(),
            guard=self.active.policy.guard if self.active else Guard(),
        )


def rollout_id_of(command_id: str, version: int) -> RolloutId:
    """The id of the rollout that a start command leads to: the same command, the same rollout."""
    return RolloutId(f"rollout-{version:06d}-{digest_of_bytes(command_id.encode())[:12]}")


def automatic_command_id(model: str, version: int) -> str:
    """The id of the command that starts a version's rollout by policy."""
    return f"automatic:{model}:{version}"
