"""The endpoint: who serves, what is being rolled out, and the plan that says so. One document, one writer."""

from typing import ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from shared.core.canonical import digest_of, digest_of_bytes
from shared.core.errors import ConflictError
from shared.core.messages import MoveAlias, RolloutCommand
from shared.core.slots import Slot
from shared.registry.rollout_policy import Strategy
from shared.rollout.documents import Rollout, Target
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Quarantine, Rollback, Unapplied
from shared.routing.plan import FULL_WEIGHT_BP, Guard, Role, Route, RoutePlan, SubjectSource
from shared.store.aggregate import Aggregate
from shared.store.ports import Container

ENDPOINT_ID = "endpoint"
_HEARD_KEPT = 1_000


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
    is_gated: bool = Field(default=False, exclude_if=lambda is_gated: not is_gated)
    """Whether the Gateway has routes of its own for it, as since the first plan with a version in a slot. One that has
    none says nothing, so that the app of an older release reads it."""

    @property
    def stream(self) -> str:
        """The name of its audit stream."""
        return f"endpoint:{self.endpoint}"

    @property
    def partition(self) -> str:
        """Its container's partition key."""
        return self.endpoint

    @property
    def parent_trace(self) -> str | None:
        """See Aggregate."""
        return self.ticking.trace if self.ticking else None

    @property
    def active(self) -> Rollout | None:
        """The rollout that is under way, or None."""
        return self.rollout if self.rollout and not self.rollout.state.is_over else None

    @property
    def ticking(self) -> Rollout | None:
        """The rollout that is looked at: the active one, or the latest while the pods have not applied what ended it,
        or a rollback, and while late feedback on it is heard.
        """
        listens = self.rollout is not None and self.rollout.feedback_until is not None
        return self.rollout if self.active or self.rollback or self.unapplied or listens else None

    def calls_for(self, alias: str) -> list[MoveAlias]:
        """The calls for an alias that are not known to be heard, in their order."""
        return [call.move for call in self.alias_calls if call.move.alias == alias]

    def has_heard(self, command: RolloutCommand) -> bool:
        """Whether a command was heard, as far as it is remembered. Raises ConflictError where its id was another's."""
        same_id, of_old = _id_of(command), _id_of(command).removesuffix(":")
        known = next((heard for heard in self.heard if heard == of_old or heard.startswith(same_id)), None)
        # What a signed link led to is told of as such, and of what was asked an older document says nothing.
        if known not in {None, of_old, _heard_as(command)} and not command.link_id:
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
            trace=self.rollout.trace if self.rollout else None,
        )

    @property
    def slots(self) -> frozenset[Slot | None]:
        """Those that its plan has versions in; all of them where it has no version, which every pod is to hear."""
        return frozenset(route.slot for route in self._routes()) or frozenset({None, *Slot})

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
