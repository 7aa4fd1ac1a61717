"""Did each user keep its version? Judged from the answers and the audit trail alone.

The server's hash is not asked: what counts is which versions a user met, and which the plan allowed. Under one
generation of the plan a user belongs to one version; from one generation to the next of a rollout it may move to the
candidate, as the candidate's weight rises, and never back; a promotion or a rollback takes everybody to the version
that is stable then. A rollback may reach a user before its plan does: where the pod's own guard takes the candidate out
of traffic, its users meet stable under the same generation, and the candidate no more.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from local.demo.answers import Answer

_FULL_BP = 10_000
_ENDS = frozenset({"rollout_rolled_back", "rollout_aborted"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFacts:
    """What one generation of an endpoint's plan said. `candidate` and `rollout_id` are None where none was active."""

    generation: int
    stable: int | None
    candidate: int | None = None
    weight_bp: int = 0
    rollout_id: str | None = None
    taken_back: bool = False
    """Whether the candidate was taken back under this generation."""

    def allows(self, version: int) -> bool:
        """Whether a user may belong to the version."""
        if version == self.candidate:
            return self.weight_bp > 0
        return version == self.stable and self.weight_bp < _FULL_BP


def plans_of(events: Iterable[Mapping[str, Any]]) -> dict[int, PlanFacts]:
    """Each generation of an endpoint's plan, from the events of its audit stream, in order.

    Raises ValueError where an event names another generation than the one that the events before it lead to.
    """
    plans: dict[int, PlanFacts] = {}
    stable: int | None = None
    for event in events:
        kind, data, generation = event["kind"], event["data"], len(plans) + 1
        if kind == "rollout_started":
            stable = data["stable"]
            facts = PlanFacts(
                generation=generation, stable=stable, candidate=data["version"], rollout_id=data["rollout_id"]
            )
        elif kind == "stage_started":
            facts = PlanFacts(
                generation=generation,
                stable=stable,
                candidate=data["version"],
                weight_bp=data["weight_bp"],
                rollout_id=data["rollout_id"],
            )
        elif kind == "rollout_promoted":
            stable = data["version"]
            facts = PlanFacts(generation=generation, stable=stable)
        elif kind in _ENDS:
            plans[generation - 1] = replace(plans[generation - 1], taken_back=True)
            facts = PlanFacts(generation=generation, stable=stable)
        else:
            continue
        if data.get("generation", generation) != generation:
            raise ValueError(
                f"the event {kind} is of generation {data['generation']}, and the events before it lead to {generation}"
            )
        plans[generation] = facts
    return plans


def assigned(answer: Answer, plans: Mapping[int, PlanFacts]) -> int | None:
    """The version that the user of an answer belonged to; None where the plan knows none such."""
    if not answer.fallback:
        return answer.version
    plan = plans.get(answer.generation)
    return plan.candidate if plan else None


def unsticky(answers: Iterable[Answer], plans: Mapping[int, PlanFacts]) -> dict[str, str]:
    """The users who changed version other than by the ramp, each with the first thing that was wrong."""
    by_user: dict[str, list[Answer]] = defaultdict(list)
    last: dict[int, float] = {}
    for answer in answers:
        by_user[answer.user].append(answer)
        plan = plans.get(answer.generation)
        if plan is not None and assigned(answer, plans) == plan.candidate:
            last[answer.generation] = max(answer.sent_s, last.get(answer.generation, answer.sent_s))
    found = {user: _wrong(history, plans, last) for user, history in by_user.items()}
    return {user: wrong for user, wrong in found.items() if wrong is not None}


def _wrong(
    history: Sequence[Answer], plans: Mapping[int, PlanFacts], last_candidate_s: Mapping[int, float]
) -> str | None:
    """`last_candidate_s` says when the last request was sent, under each generation, that was the candidate's."""
    met: dict[int, list[tuple[int, Answer]]] = defaultdict(list)
    for answer in sorted(history, key=lambda answer: answer.sent_s):
        plan, version = plans.get(answer.generation), assigned(answer, plans)
        if plan is None:
            return f"an answer of generation {answer.generation}, which the audit trail does not know"
        if version is None or not plan.allows(version):
            return f"version {version} under generation {answer.generation}, which did not allow it"
        met[answer.generation].append((version, answer))
    for generation, answers in met.items():
        if change := _wrong_change(answers, plans[generation], last_candidate_s):
            return f"versions {change[0]} and {change[1]} under generation {generation}"
    return _wrong_move(met, plans, last_candidate_s) or _wrong_return(history, plans)


def _was_taken(answer: Answer, plan: PlanFacts, last_candidate_s: Mapping[int, float]) -> bool:
    """Whether the candidate may have been out of traffic already when stable gave this answer: nobody was given the
    candidate by a request that was sent afterwards.
    """
    return plan.taken_back and answer.answered_s > last_candidate_s.get(plan.generation, -math.inf)


def _wrong_change(
    answers: Sequence[tuple[int, Answer]], plan: PlanFacts, last_candidate_s: Mapping[int, float]
) -> tuple[int, int] | None:
    """Two versions that a user met under one generation, and should not have.

    Where the candidate was taken out of traffic, the user goes from it to stable once. Requests that were under way
    together may have met the two in either order.
    """
    for index, (later, answer) in enumerate(answers):
        for earlier, before in answers[:index]:
            if earlier == later:
                continue
            by_stable = answer if later == plan.stable else before
            if not _was_taken(by_stable, plan, last_candidate_s):
                return earlier, later
    return None


def _wrong_move(
    met: Mapping[int, Sequence[tuple[int, Answer]]],
    plans: Mapping[int, PlanFacts],
    last_candidate_s: Mapping[int, float],
) -> str | None:
    """A move within a rollout that its ramp does not explain."""
    for earlier, later in pairwise(sorted(met)):
        before, after = plans[earlier], plans[later]
        was, (became, answer) = met[earlier][0][0], met[later][0]
        if before.rollout_id is None or before.rollout_id != after.rollout_id or was == became:
            continue
        if became == after.stable and _was_taken(answer, after, last_candidate_s):
            continue
        if became != after.candidate or after.weight_bp <= before.weight_bp:
            return (
                f"from version {was} to {became} while the candidate's weight went from "
                f"{before.weight_bp} to {after.weight_bp} basis points"
            )
    return None


def _wrong_return(history: Sequence[Answer], plans: Mapping[int, PlanFacts]) -> str | None:
    """A request sent after a newer plan had answered, and answered under an older one by another version."""
    events = sorted(
        [(answer.answered_s, 0, answer) for answer in history] + [(answer.sent_s, 1, answer) for answer in history],
        key=lambda event: event[:2],
    )
    newest: Answer | None = None
    for _, is_sent, answer in events:
        if not is_sent:
            if newest is None or answer.generation > newest.generation:
                newest = answer
        elif (
            newest is not None
            and answer.generation < newest.generation
            and assigned(answer, plans) != assigned(newest, plans)
        ):
            return (
                f"version {assigned(answer, plans)} of generation {answer.generation} after version "
                f"{assigned(newest, plans)} of generation {newest.generation}"
            )
    return None
