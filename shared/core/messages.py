"""The queue messages, one model each, and the queue that each travels on.

Every message may come twice, late or never: it names what to look at, and the handler decides from the documents.
The queues carry base64 (host.json: messageEncoding), which the queue adapter and the functions host apply. A body may
hold a `traceparent` beside its message's fields (shared.core.tracing): the queue edge takes it off.
"""

from enum import StrEnum

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field


class Queue(StrEnum):
    """The names of the queues."""

    REGISTRATIONS = "registrations"
    VALIDATIONS = "validations"
    ROLLOUT_COMMANDS = "rollout-commands"
    ROLLOUT_TICKS = "rollout-ticks"
    ALIAS_MOVES = "alias-moves"
    LIFECYCLE_EVENTS = "lifecycle-events"
    ALERT_NEWS = "alert-news"
    DROP_EVENTS = "drop-events"
    """Event Grid fills it (shared.registration.dropevents); nothing in Slipway sends to it but replays."""
    RETRAINING = "retraining"
    """Who trains models takes from it; nothing in Slipway does."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RegisterDrop(_Message):
    """Look at a blob of the `incoming` container that no event led to a registration."""

    blob: str


class ValidateVersion(_Message):
    """Validate a version that has no verdict yet."""

    model: str
    version: int


class CommandKind(StrEnum):
    """What a rollout command asks for."""

    START = "start"
    """Begin a rollout."""
    PROMOTE = "promote"
    """Give the candidate all traffic, whatever the gates say; while it is watched: make it stable now."""
    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    """Begin the next stage, whatever the gates say."""
    SET_WEIGHT = "set-weight"
    """Give the candidate another share within its stage."""
    APPROVE = "approve"
    REJECT = "reject"
    ABORT = "abort"
    """Take the candidate back; nothing is held against it."""
    ROLLBACK = "rollback"
    """Take the candidate, or the stable version, back because it fails: it is quarantined."""


UNNAMED_CALLER = "api"
"""Who a command is said to come from whose caller gave no name: nobody in particular."""


class RolloutCommand(_Message):
    """A command to an endpoint's rollout, carried out once under its `command_id`.

    `version` is wanted by START; ROLLBACK may name the version to go back to. The others act on the active rollout, on
    `rollout_id` where given.
    """

    command: CommandKind
    command_id: str = Field(min_length=1, max_length=200)
    endpoint: str
    version: int | None = None
    rollout_id: str | None = None
    requested_by: str
    reason: str = ""
    force: bool = False
    """Whether START goes ahead although the version's signature breaks its callers. It then needs a reason."""
    override: bool = False
    """Whether it goes ahead in a freeze window or with the error budget spent. It then needs a reason."""
    shadows: tuple[int, ...] = Field(default=(), max_length=10)
    """For START of a shadow: further versions that get copies of requests beside the candidate."""
    weight_bp: int | None = Field(default=None, ge=0, le=10_000)
    """For SET_WEIGHT."""
    stage: int | None = Field(default=None, ge=0)
    """For APPROVE and REJECT: the stage that is meant, from 0; the count of stages means the switch. Without it: the
    one that waits."""
    link_id: str = ""
    """For APPROVE and REJECT: the signed link that was used, which serves once."""


class RolloutTick(_Message):
    """Look at the evidence of a rollout. `tick` numbers the ticks of one rollout, from 1: an older one is stale."""

    endpoint: str
    rollout_id: str
    tick: int


class MoveAlias(_Message):
    """Move an alias as a rollout calls for. Of an endpoint's moves of one alias the latest `generation` holds."""

    model: str
    alias: str
    version: int | None
    only_from: int | None = None
    """Where given: the alias moves only if it names this version."""
    generation: int
    """The generation of the endpoint's plan that the rollout's step led to."""
    rollout_id: str
    at: AwareDatetime
    """When the rollout took its step."""
    reason: str = ""


class PublishEvent(_Message):
    """Tell a sink of an audit event, by its stream and number."""

    stream: str
    seq: int = Field(ge=1)
    sink: str


class TellNews(_Message):
    """There is news of an alert to tell the sinks of alerts."""

    model: str
    alert_id: str
    news: int = Field(ge=1)


class RequestRetraining(_Message):
    """Train a model anew. One request for one cause: who has heard `request_id` before does nothing."""

    model: str
    version: int
    """The version whose traffic or answers changed."""
    request_id: str
    reason: str
    report_id: str
    """The drift report that shows it."""


type Message = (
    RegisterDrop
    | ValidateVersion
    | RolloutCommand
    | RolloutTick
    | MoveAlias
    | PublishEvent
    | TellNews
    | RequestRetraining
)

QUEUE_OF: dict[type[_Message], Queue] = {
    RegisterDrop: Queue.REGISTRATIONS,
    ValidateVersion: Queue.VALIDATIONS,
    RolloutCommand: Queue.ROLLOUT_COMMANDS,
    RolloutTick: Queue.ROLLOUT_TICKS,
    MoveAlias: Queue.ALIAS_MOVES,
    PublishEvent: Queue.LIFECYCLE_EVENTS,
    TellNews: Queue.ALERT_NEWS,
    RequestRetraining: Queue.RETRAINING,
}
