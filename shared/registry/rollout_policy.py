"""The rollout part of a model's policy: the strategy, its stages, the gates, the triggers, and who has a say.

One specification for every strategy; `shared.rollout.schedule` makes the stages of it. A rollout keeps the policy that
was in force when it started.
"""

from enum import StrEnum
from typing import Annotated, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from shared.routing.plan import FULL_WEIGHT_BP, Guard

LONGEST_S = 30 * 86_400.0

type Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
type Duration = Annotated[float, Field(ge=0, le=LONGEST_S)]


class PolicyPart(BaseModel):
    """Base of the parts of a policy: an unknown field is refused, and so is what is no finite number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Strategy(StrEnum):
    """How a version takes over the traffic."""

    ALL_AT_ONCE = "all-at-once"
    """All traffic as soon as it is loaded."""
    CANARY = "canary"
    """A growing share of the subjects, stage by stage."""
    BLUE_GREEN = "blue-green"
    """Warm beside stable without traffic, to be tried by the override header; then all traffic at once."""
    ROLLING = "rolling"
    """All traffic on a growing share of the pods, stage by stage."""
    SHADOW = "shadow"
    """Copies of requests, whose answers are compared and dropped; then, where policy says so, a canary."""
    SPLIT = "split"
    """A share of the subjects, held until somebody ends it: an A/B test."""


class GateName(StrEnum):
    """The gates that Slipway measures by itself."""

    ERROR_RATE = "error_rate"
    SLOW_RATE = "slow_rate"
    P99_MS = "p99_ms"
    PREDICTION_PSI = "prediction_psi"
    DISAGREEMENT = "disagreement"
    SMOKE = "smoke"
    FEEDBACK = "feedback"


class Placement(StrEnum):
    """Which pods a candidate is loaded in."""

    SHARED = "shared"
    """Those that endpoints share: stable is in the same processes, unless it has pods of its own."""
    DEDICATED = "dedicated"
    """The endpoint's own, blue or green, in which stable is not: no process has both."""


APART = frozenset({Strategy.ALL_AT_ONCE, Strategy.CANARY, Strategy.BLUE_GREEN})
"""The strategies that a candidate and a stable version in different pods can have. The others need both in one process:
to choose among pods, to copy requests, or to keep a subject with its version."""


RESERVED = frozenset({*GateName, "convergence", "evidence", "guard"})
"""Names of checks that no query takes, nor one that begins with trigger_ or disagreement_."""


class GateMode(StrEnum):
    """What the error rate, the slow rate and feedback must show for a PASS."""

    NO_PROVEN_HARM = "no-proven-harm"
    """That the candidate is worse than stable is not proven."""
    NOT_WORSE = "not-worse"
    """That the candidate exceeds stable by less than the margin is proven."""


class Provider(StrEnum):
    """Who answers a query."""

    PROMETHEUS = "prometheus"
    """Azure Managed Prometheus, or any other that speaks its HTTP API; the query is PromQL."""
    LOG_ANALYTICS = "log-analytics"
    """A Log Analytics workspace; the query is KQL."""


class QueryGate(PolicyPart):
    """A number asked of a metrics store at each tick, held against a limit.

    The query may name `{endpoint}`, `{version}`, `{stable}` and `{seconds}` (the time since the stage began), and must
    answer one number. Where it answers none, the gate is INCONCLUSIVE; where it cannot be asked, ERROR.
    """

    name: Name
    provider: Provider = Provider.PROMETHEUS
    query: str = Field(min_length=1, max_length=4_000)
    at_most: float | None = None
    at_least: float | None = None
    dry_run: bool = False
    """Recorded only: it neither holds nor ends anything."""

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.at_most is None and self.at_least is None:
            raise ValueError(f"query {self.name} has no limit: give at_most, at_least or both")
        return self


class FeedbackGate(PolicyPart):
    """What feedback on predictions (POST /feedback on the model server) must show: a business metric.

    Its mean is that of the values, from 0 to 1, of which 1 is best: a conversion is 1, a label that was predicted
    rightly is 1. Only predictions count that the rollout's own plans assigned; late feedback counts for the plan under
    which its prediction was made. Feedback that names a user and no prediction does not count.
    """

    harm: float = Field(default=0.0, ge=0, lt=1)
    """By how much the candidate's mean must provably be below stable's to be harmful."""
    margin: float = Field(default=0.01, ge=0, lt=1)
    """The margin of mode not-worse: how far the candidate's mean may be below stable's; 0 is refused there."""
    min_feedback: int = Field(default=100, ge=1, le=1_000_000_000)
    """How much feedback with a value each side needs, on predictions of a stage, before the gate concludes anything."""
    at_least: float | None = Field(default=None, gt=0, le=1)
    """The least mean of the candidate: below it, and not by chance, is a failed check. One that stable misses too, at
    the same time, is no fault of the candidate's. None leaves it unchecked."""


class Gates(PolicyPart):
    """What holds or ends a stage, measured beside stable over the same time.

    The error rate, the slow rate and feedback are tested by an anytime-valid test over the whole rollout
    (shared.sequential), a shadow's disagreement by an interval that holds at every look: what they prove ends the
    rollout at once. The other gates end it after `failure_limit` failed checks without a pass between.
    """

    mode: GateMode = GateMode.NO_PROVEN_HARM
    level: float = Field(default=0.05, gt=0, le=0.5)
    """At most the probability that a rollout of a version that is no worse is ended by these tests, however often they
    are looked at. Each of the two rates has half of it, or where any stage asks for feedback, each of the three a
    third, divided among its tests where stages differ in their margins. In mode not-worse also at most the probability
    that a worse one passes in a stage, divided among the stages. The pods' guards have a level of their own,
    `guard.level`, beside it."""
    error_rate: float = Field(default=0.01, ge=0, lt=1)
    """The margin of mode not-worse: how far the candidate's error rate may exceed stable's; 0 is refused there."""
    error_harm: float = Field(default=0.0, ge=0, lt=1)
    """By how much more the candidate must provably fail to be harmful."""
    slow_ms: float = Field(default=200.0, gt=0, le=3_600_000)
    """An answer that takes longer is slow."""
    slow_rate: float = Field(default=0.01, ge=0, lt=1)
    """The margin of mode not-worse for the share of slow answers; 0 is refused there."""
    slow_harm: float = Field(default=0.0, ge=0, lt=1)
    """By how much more of the candidate's answers must provably be slow to be harmful."""
    p99_ms: float = Field(default=200.0, gt=0, le=3_600_000)
    """The candidate's 99th percentile latency must not exceed both this and `p99_ratio` times stable's."""
    p99_ratio: float = Field(default=1.5, ge=1, le=1_000)
    """Stable's latency holds its waits for the candidate: in a process, runs of 1 to 20 ms go one at a time."""
    prediction_psi: float | None = Field(default=0.1, gt=0, le=100)
    """PSI of the candidate's predictions against stable's at the same time. None leaves it unchecked."""
    disagreement: float | None = Field(default=0.05, ge=0, le=1)
    """The largest share of mirrored requests to which a shadow may give another answer. None leaves it unchecked."""
    feedback: FeedbackGate | None = None
    """What feedback on predictions must show. None leaves it unchecked."""
    smoke_requests: int = Field(default=0, ge=0, le=1_000_000)
    """Requests that must have named the candidate, and been answered by it, while blue-green previews it."""
    queries: tuple[QueryGate, ...] = Field(default=(), max_length=20)
    dry_run: tuple[GateName, ...] = ()
    """Gates that are recorded only."""

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [query.name for query in self.queries]
        taken = {name for name in names if name in RESERVED or name.startswith(("trigger_", "disagreement_"))}
        if len(set(names)) != len(names) or taken:
            raise ValueError(f"two checks have one name among {sorted([*names, *taken])}: name each query differently")
        return self


class Triggers(PolicyPart):
    """What takes a candidate back whatever stage it is in, and through the watch period after the switch.

    Limits on the candidate alone; one that stable breaks too, at the same time, is no fault of the candidate's.
    They end the rollout after `failure_limit` failed checks without a pass between, memory after two at the most; too
    few healthy pods, and an error rate or a p99 that is proven beyond its limit at a level of one in a million, at
    once. None leaves one unchecked.
    """

    error_rate: float | None = Field(default=0.05, gt=0, le=1)
    p99_ms: float | None = Field(default=500.0, gt=0, le=3_600_000)
    memory_share: float | None = Field(default=0.90, gt=0, le=1)
    """The share of a pod's memory limit that it may use, on any pod."""
    healthy_share: float | None = Field(default=0.95, gt=0, le=1)
    """The least share of the pods that serve the candidate that are healthy."""
    prediction_psi: float | None = Field(default=0.2, gt=0, le=100)
    """PSI of the candidate's predictions against stable's, of the time when both had traffic."""


class Stage(PolicyPart):
    """A step of a rollout: the candidate's share, and how long it must hold up there."""

    weight_bp: int = Field(ge=1, le=FULL_WEIGHT_BP)
    """The share of the subjects in basis points; of the pods where the strategy is rolling."""
    duration_s: Duration
    """The least time."""
    max_duration_s: Annotated[float, Field(gt=0, le=LONGEST_S)] | None = None
    """The most; without it the policy's `max_stage_s`."""
    min_requests: int | None = Field(default=None, ge=0, le=1_000_000_000)
    """Without it the policy's."""
    gates: Gates | None = None
    """Without it the policy's."""
    approval: bool = False
    """Whether somebody must approve before it begins."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.max_duration_s is not None and self.max_duration_s < self.duration_s:
            raise ValueError(f"max_duration_s is {self.max_duration_s}, less than duration_s, {self.duration_s}")
        return self


class Otherwise(StrEnum):
    """What becomes of a rollout that cannot go on by itself."""

    ABORT = "abort"
    """It is taken back."""
    HOLD = "hold"
    """It stays as it is until somebody says what is to be."""


class WhenBusy(StrEnum):
    """What becomes of a start while another rollout is under way."""

    REFUSE = "refuse"
    """Who asks is told so; what policy itself asks for waits."""
    QUEUE = "queue"
    """It waits for the end of the other."""
    SUPERSEDE = "supersede"
    """The other is aborted."""


class Weekday(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class FreezeWindow(PolicyPart):
    """A time in which no candidate gets more traffic: once, from one instant to another, or weekly.

    Weekly: on `days` from `start` to `end` (HH:MM, in `timezone`); an end at or before the start is on the next day.
    """

    name: Name
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    days: tuple[Weekday, ...] = ()
    start: Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "00:00"
    end: Annotated[str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "00:00"
    timezone: Annotated[str, StringConstraints(max_length=64)] = "UTC"

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        once = self.since is not None and self.until is not None
        if once == bool(self.days):
            raise ValueError(f"freeze window {self.name} needs either since and until, or days")
        if not _is_timezone(self.timezone):
            raise ValueError(
                f"freeze window {self.name} is in the time zone {self.timezone!r}, which is not known: use a name of "
                "the IANA database, as in Europe/Vienna or UTC"
            )
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError(f"freeze window {self.name} ends at {self.until}, before it begins at {self.since}")
        return self


def _is_timezone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


class ErrorBudget(PolicyPart):
    """How many of an endpoint's requests may fail within a time; with the budget spent no candidate gets more traffic.

    Counted over every version, from the pods' windows.
    """

    objective: float = Field(default=0.999, gt=0, lt=1)
    """The share of requests that must not fail."""
    hours: int = Field(default=24, ge=1, le=720)


class RolloutPolicy(PolicyPart):
    """How a validated version is rolled out."""

    automatic: bool = True
    """Whether a rollout starts by itself once a version is validated."""
    approvals: int = Field(default=0, ge=0, le=20)
    """How many people other than the version's author must have approved it before it is rolled out."""
    strategy: Strategy = Strategy.CANARY
    placement: Placement = Field(default=Placement.SHARED, exclude_if=lambda placed: placed is Placement.SHARED)
    """Which pods the candidate is loaded in: `dedicated` goes with all-at-once, canary and blue-green. The Gateway then
    draws for each request anew, and no subject keeps its version."""
    stages: tuple[Stage, ...] = Field(
        default=(Stage(weight_bp=1_000, duration_s=300), Stage(weight_bp=5_000, duration_s=600)), max_length=100
    )
    """For canary and rolling; for shadow what follows where `shadow_then` is canary; a split holds the first."""
    mirror_bp: int = Field(default=FULL_WEIGHT_BP, ge=1, le=FULL_WEIGHT_BP)
    """For shadow: the share of the requests of which the candidate gets a copy."""
    shadow_s: Annotated[float, Field(gt=0, le=LONGEST_S)] = 600.0
    """For shadow: how long."""
    shadow_then: Strategy | None = None
    """For shadow: canary, or nothing: the rollout then ends without a promotion."""
    preview_s: Duration = 0.0
    """For blue-green: how long the candidate is warm without traffic before the switch."""
    switch_approval: bool = False
    """Whether somebody must approve before the candidate gets all traffic."""
    watch_s: Duration = 300.0
    """How long the candidate is watched with all traffic, stable being kept warm, before it becomes stable."""
    late_feedback_s: Duration = 0.0
    """How long after a candidate became stable feedback on the rollout's own predictions may still prove it worse, and
    take it back to the version before; until another rollout begins. It needs `gates.feedback`."""
    gates: Gates = Gates()
    triggers: Triggers = Triggers()
    guard: Guard = Guard()
    tick_s: float = Field(default=30.0, ge=0.5, le=3_600)
    """How often the gates look at the evidence."""
    min_requests: int = Field(default=100, ge=1, le=1_000_000_000)
    """Requests that each side needs in a stage before a gate concludes anything."""
    failure_limit: int = Field(default=3, ge=1, le=1_000)
    """Failed checks of a stage, without a pass between, that take the candidate back."""
    error_limit: int = Field(default=5, ge=1, le=1_000)
    """Ticks in a row with a gate that could not be asked, after which the stage holds."""
    max_stage_s: float = Field(default=3_600.0, gt=0, le=LONGEST_S)
    """A stage without a conclusion by then ends or holds the rollout: no data never promotes."""
    on_inconclusive: Otherwise = Otherwise.ABORT
    """What becomes of a stage without a conclusion at its longest."""
    load_timeout_s: float = Field(default=600.0, gt=0, le=LONGEST_S)
    """A candidate that the pods have not loaded by then, or a plan that they have not applied, counts as failed."""
    on_load_failure: Otherwise = Otherwise.ABORT
    """What becomes of a candidate that a pod cannot load, or not in time."""
    quorum: float = Field(default=1.0, gt=0, le=1)
    """The share of the pods that report that must have applied a plan before its stage begins."""
    max_unavailable: int = Field(default=0, ge=0, le=10_000)
    """For rolling: pods that may be silent or failing while more get the candidate."""
    when_busy: WhenBusy = WhenBusy.REFUSE
    freezes: tuple[FreezeWindow, ...] = Field(default=(), max_length=50)
    error_budget: ErrorBudget | None = None
    approval_link_s: Annotated[float, Field(gt=0, le=LONGEST_S)] = 86_400.0
    """How long a signed approval link holds."""

    @model_validator(mode="after")
    def _stages_ramp_up(self) -> Self:
        if self.placement is Placement.DEDICATED and self.strategy not in APART:
            raise ValueError(
                f"placement is dedicated and strategy is {self.strategy}, which needs candidate and stable in one "
                f"process: use {', '.join(sorted(APART))}, or placement shared"
            )
        weights = [stage.weight_bp for stage in self.stages]
        staged = {Strategy.CANARY, Strategy.ROLLING, Strategy.SPLIT}
        if (self.strategy in staged or self.shadow_then is not None) and not weights:
            raise ValueError(f"a {self.shadow_then or self.strategy} needs at least one stage")
        if weights != sorted(set(weights)):
            raise ValueError(f"the weights of the stages must rise, and are {weights}")
        if self.shadow_then not in {None, Strategy.CANARY}:
            raise ValueError(f"shadow_then is {self.shadow_then}: use canary or null")
        longest = max((stage.duration_s for stage in self.stages if stage.max_duration_s is None), default=0.0)
        if self.max_stage_s < longest:
            raise ValueError(f"max_stage_s is {self.max_stage_s}, less than the longest stage's {longest}")
        return self
