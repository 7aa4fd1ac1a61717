"""Replays: the ticks of a past rollout decided again, under its own policy or another.

Pure. Each tick's evidence is taken from its record, the running tests are bet again block by block, and `decide` is
asked as it was then. Under the rollout's own policy that gives what was decided, tick for tick.

Under another policy it shows what that would have decided on the evidence that there was. Once it decides otherwise, or
would have given the candidate other traffic, the rollout parts from its record: no later tick saw the traffic that it
would then have had. Such ticks are still decided, each from where the rollout then stood, and are told apart. What
becomes of the rollout is said as far as the parting tick settles it, and is otherwise unknown.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shared.registry.rollout_policy import Gates, Provider, QueryGate, RolloutPolicy, Strategy
from shared.rollout.blocks import why_blocked
from shared.rollout.decide import Decision, decide
from shared.rollout.documents import Rollout
from shared.rollout.machine import OVER, RolloutState, next_state
from shared.rollout.progress import Progress, counts_of
from shared.rollout.queries import QueryAnswer
from shared.rollout.rates import of_next_stage
from shared.rollout.schedule import schedule_of
from shared.rollout.tickrecord import Decided, TickRecord
from shared.rollout.ticks import took_in
from shared.telemetry.window import Window

_NOT_JUDGED = (
    "automatic",
    "approvals",
    "when_busy",
    "guard",
    "tick_s",
    "error_budget",
    "approval_link_s",
    "late_feedback_s",
)
"""Parts of a policy of which the records show nothing, or that no tick decides."""
_SETTLED = frozenset({RolloutState.HELD, RolloutState.AWAITING})
"""States in which a rollout stays until somebody says what is to be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedTick:
    """A tick as it was decided, and as it is decided now."""

    record: TickRecord
    now: Decided
    is_comparable: bool
    """Whether the other policy gives the candidate the same traffic where the rollout then stood."""
    is_after_parting: bool

    @property
    def is_flip(self) -> bool:
        """Whether another event is decided."""
        return self.is_comparable and self.now.event is not self.record.decided.event


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A rollout's ticks decided again. Without a `parted_at` it ends as it did."""

    rollout: Rollout
    ticks: tuple[ReplayedTick, ...]
    parted_at: int | None
    """The first tick that is decided otherwise, or at which the candidate would have had other traffic."""
    would_be: RolloutState | None
    """How it ends, or where it waits for somebody; None where nothing can tell."""
    why: str
    not_judged: tuple[str, ...]
    """Parts of the other policy that differ and that a replay cannot judge; queries that nobody asked then."""

    @property
    def flips(self) -> tuple[ReplayedTick, ...]:
        """The ticks that are decided otherwise."""
        return tuple(tick for tick in self.ticks if tick.is_flip)


def replay(rollout: Rollout, records: Iterable[TickRecord], policy: RolloutPolicy) -> Replay:
    """Decide a rollout's ticks again under a policy. `records` are all of its ticks from the first on, in order."""
    unasked: set[str] = set()
    ticks: list[ReplayedTick] = []
    parted_at: int | None = None
    for record, decision, is_comparable in _decisions(rollout, records, policy, unasked):
        tick = ReplayedTick(
            record=record,
            now=Decided.of(decision),
            is_comparable=is_comparable,
            is_after_parting=parted_at is not None,
        )
        ticks.append(tick)
        if parted_at is None and (tick.is_flip or not is_comparable):
            parted_at = record.tick
    parting = next((tick for tick in ticks if tick.record.tick == parted_at), None)
    would_be, why = _outcome(rollout, parting, policy)
    return Replay(
        rollout=rollout,
        ticks=tuple(ticks),
        parted_at=parted_at,
        would_be=would_be,
        why=why,
        not_judged=(*_differing(rollout.policy, policy), *(f"query {name}" for name in sorted(unasked))),
    )


def _decisions(
    rollout: Rollout, records: Iterable[TickRecord], policy: RolloutPolicy, unasked: set[str]
) -> Iterator[tuple[TickRecord, Decision, bool]]:
    progress, failed, errored = Progress(), 0, 0
    before: TickRecord | None = None
    for record in records:
        failed, errored = _counted_on(failed, errored, before, record)
        if before is not None and (_place(before) != _place(record) or _is_republished(before, record)):
            progress = progress.model_copy(update={"tests": of_next_stage(progress.tests)})
        then = _as_found(rollout, record, rollout.policy, progress)
        is_comparable = _has_same_traffic(then, policy)
        judging = policy if is_comparable else _with_its_gates(rollout.policy, policy)
        judging, answers = _with_answers(judging, then, record, unasked)
        found = _as_found(rollout, record, judging, progress).model_copy(
            update={"failed_checks": failed, "errored_checks": errored}
        )
        progress = _advanced(found, record)
        found.progress = progress
        decision = decide(
            found,
            record.at,
            altered=record.altered,
            blocked=_blocked(rollout, policy, record),
            answers=answers,
        )
        failed, errored = decision.failed_checks, decision.errored_checks
        yield record, decision, is_comparable
        before = record


def _counted_on(failed: int, errored: int, before: TickRecord | None, record: TickRecord) -> tuple[int, int]:
    """Failed and errored checks as a tick finds them: where a stage or the watch began, both are counted anew.

    What somebody did since, a share that was set or a resumption, forgets the errored ones alone. Another plan that a
    tick made in the same stage, for pods that are gone, forgets neither.
    """
    if before is None or _place(before) != _place(record):
        return 0, 0
    is_touched = _is_republished(before, record) or before.left["resumed_at"] != record.found["resumed_at"]
    return failed, 0 if is_touched else errored


def _is_republished(before: TickRecord, record: TickRecord) -> bool:
    """Whether somebody had a plan published between two ticks."""
    return bool(before.left["published_at"] != record.found["published_at"])


def _place(record: TickRecord) -> tuple[int | None, bool]:
    return record.stage, record.state is RolloutState.WATCHING


def _as_found(rollout: Rollout, record: TickRecord, policy: RolloutPolicy, progress: Progress) -> Rollout:
    fixed = rollout.model_dump(
        include={"rollout_id", "command_id", "candidate", "stable", "serving", "forced", "shadows", "requested_by"}
    )
    times = {"started_at": rollout.started_at, "next_tick_at": record.at, "tick": record.tick}
    return Rollout.model_validate({**fixed, **times, **record.found, "policy": policy, "progress": progress})


def _advanced(rollout: Rollout, record: TickRecord) -> Progress:
    """The evidence after a tick: its block taken in as one window, and the pods as the tick saw them."""
    block = Window(
        endpoint=record.endpoint,
        pod="replay",
        sequence=record.tick,
        generation=record.generation,
        started_at=record.at,
        ended_at=record.at,
        loaded=[],
        versions=record.block,
        feedback=[counts_of(row, record.at) for row in record.feedback],
    )
    rollout.progress = rollout.progress.model_copy(update={"pods": {}})
    return took_in(rollout, [block], record.generation, now=record.at).model_copy(update={"pods": record.pods_seen})


def _has_same_traffic(then: Rollout, policy: RolloutPolicy) -> bool:
    """Whether a policy gives the candidate, where the rollout stood, the traffic that it had."""
    if then.stage is None or then.state is RolloutState.WATCHING:
        return True
    stages = schedule_of(policy)
    if then.stage >= len(stages):
        return False
    is_rolling = policy.strategy is Strategy.ROLLING, then.policy.strategy is Strategy.ROLLING
    mirrored = getattr(stages[then.stage], "mirror_bp", 0), getattr(then.stages[then.stage], "mirror_bp", 0)
    same_weight = stages[then.stage].weight_bp == then.stages[then.stage].weight_bp
    return same_weight and is_rolling[0] is is_rolling[1] and mirrored[0] == mirrored[1]


def _with_its_gates(then: RolloutPolicy, policy: RolloutPolicy) -> RolloutPolicy:
    """The policy of then, whose stages the rollout was in, with another's gates and triggers."""
    return then.model_copy(update={"gates": policy.gates, "triggers": policy.triggers})


def _with_answers(
    policy: RolloutPolicy, then: Rollout, record: TickRecord, unasked: set[str]
) -> tuple[RolloutPolicy, dict[str, QueryAnswer]]:
    """The policy without the queries of this stage that nobody asked then, and the answers to the others."""
    given = record.query_answers
    asked: dict[tuple[Provider, str], QueryAnswer | None] = {
        (query.provider, query.query): given.get(query.name) for query in then.gates.queries
    }
    stages = schedule_of(policy)
    number = then.stage if then.current is not None else None
    gates = (stages[number].gates if number is not None else None) or policy.gates
    known = tuple(query for query in gates.queries if (query.provider, query.query) in asked)
    unasked |= {query.name for query in gates.queries if query not in known}
    answers = {query.name: answer for query in known if (answer := asked[query.provider, query.query]) is not None}
    if len(known) == len(gates.queries):
        return policy, answers
    return _with_queries(policy, gates, known), answers


def _with_queries(policy: RolloutPolicy, gates: Gates, queries: tuple[QueryGate, ...]) -> RolloutPolicy:
    """The policy, with fewer queries in the gates of one stage."""
    fewer = gates.model_copy(update={"queries": queries})
    if gates is policy.gates:
        return policy.model_copy(update={"gates": fewer})
    stages = tuple(
        stage.model_copy(update={"gates": fewer}) if stage.gates is gates else stage for stage in policy.stages
    )
    return policy.model_copy(update={"stages": stages})


def _blocked(rollout: Rollout, policy: RolloutPolicy, record: TickRecord) -> str:
    """Why no candidate may have got more traffic: as recorded, but for freeze windows that differ."""
    if policy.freezes == rollout.policy.freezes or record.found.get("overridden"):
        return record.blocked
    return why_blocked(policy.model_copy(update={"error_budget": None}), record.at)


def _differing(then: RolloutPolicy, policy: RolloutPolicy) -> tuple[str, ...]:
    return tuple(name for name in _NOT_JUDGED if getattr(then, name) != getattr(policy, name))


def _outcome(rollout: Rollout, parting: ReplayedTick | None, policy: RolloutPolicy) -> tuple[RolloutState | None, str]:
    """What becomes of a rollout, as far as it can be known, and why."""
    if parting is None:
        return rollout.state, "every tick is decided as it was"
    record, event = parting.record, parting.now.event
    if not parting.is_comparable:
        return None, f"{_other_traffic(record, policy)}: how it would have fared nobody knows"
    if event is None:
        return None, f"no {record.decided.event}, it would have stayed where it was: {parting.now.reason}"
    state = next_state(RolloutState(record.state), event)
    if state in OVER | _SETTLED:
        return state, parting.now.reason
    return None, f"{event} would have given it other traffic from then on: {parting.now.reason}"


def _other_traffic(record: TickRecord, policy: RolloutPolicy) -> str:
    stages = schedule_of(policy)
    if record.stage is None or record.stage >= len(stages):
        return f"it has no stage {record.stage}"
    weight = stages[record.stage].weight_bp / 100
    return (
        f"a {policy.strategy} gives the candidate {weight:g} % in stage {record.stage}, which had "
        f"{record.weight_bp / 100:g} %"
    )


def without_evidence(decided: Decided) -> Decided:
    """A decision whose verdicts name no record, as one that is made again."""
    verdicts = tuple(verdict.model_copy(update={"evidence": None}) for verdict in decided.verdicts)
    return decided.model_copy(update={"verdicts": verdicts})
