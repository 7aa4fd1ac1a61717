"""What the control plane tells of itself: how its rollouts stand, and whether it keeps up with them.

Pure. Everything is read from the documents at a scrape, so that any host answers alike and nothing is lost in a crash.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.rollbacks import Rollback, Trigger
from shared.rollout.standing import standing
from shared.routing.plan import FULL_WEIGHT_BP

type Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric of one name: its type, what it is, and its values by their labels."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An endpoint, and every rollback that it has had."""

    endpoint: Endpoint
    rollbacks: Sequence[Rollback]


def families(seen: Sequence[Seen], outboxes: Mapping[str, int], now: datetime) -> list[Family]:
    """The metrics. `outboxes` counts, by container, the documents with something still to be delivered."""
    active = [(one.endpoint, rollout) for one in seen if (rollout := one.endpoint.active)]
    latest = [(one.endpoint, rollout) for one in seen if (rollout := one.endpoint.rollout)]
    ticking = [(one.endpoint, rollout) for one in seen if (rollout := one.endpoint.ticking)]
    stands = [(endpoint, rollout, standing(endpoint, rollout, now)) for endpoint, rollout in active]
    return [
        _gauge(
            "slipway_rollout_state",
            "1 for the state that an endpoint's latest rollout is in, 0 for every other.",
            [
                ((*_of(endpoint, rollout), ("state", state)), float(state is rollout.state))
                for endpoint, rollout in latest
                for state in RolloutState
            ],
        ),
        _gauge(
            "slipway_rollout_weight",
            "The candidate's share of the traffic, 0 to 1, of a rollout under way.",
            [(_of(endpoint, rollout), rollout.weight_bp / FULL_WEIGHT_BP) for endpoint, rollout in active],
        ),
        _gauge(
            "slipway_rollout_stage",
            "The stage that a rollout under way is in, from 1; 0 before the first.",
            [
                (_of(endpoint, rollout), 0.0 if rollout.stage is None else rollout.stage + 1.0)
                for endpoint, rollout in active
            ],
        ),
        _gauge(
            "slipway_rollout_stage_age_seconds",
            "Since the stage's time began; since its plan was published where the pods have not applied that yet.",
            [(_of(e, r), s.stage_age_s) for e, r, s in stands if s.stage_age_s is not None],
        ),
        _gauge(
            "slipway_rollout_stage_limit_seconds",
            "The longest that the stage, or the loading, may last. Absent where nothing bounds it.",
            [(_of(e, r), s.stage_limit_s) for e, r, s in stands if s.stage_limit_s is not None],
        ),
        _gauge(
            "slipway_rollout_halted_seconds",
            "Since when a rollout is paused, held or awaits an approval.",
            [(_of(e, r), max(0.0, (now - r.halted_at).total_seconds())) for e, r in active if r.halted_at],
        ),
        _gauge(
            "slipway_rollout_decision_lag_seconds",
            "By how much a rollout's next tick is overdue; 0 where it is not.",
            [(_of(e, r), max(0.0, (now - r.next_tick_at).total_seconds())) for e, r in ticking],
        ),
        _gauge(
            "slipway_rollout_failed_checks",
            "Checks that failed in this stage without a pass between.",
            [(_of(e, r), float(r.failed_checks)) for e, r in active],
        ),
        _gauge(
            "slipway_rollout_errored_checks",
            "Ticks, in a row, with a gate that could not be asked.",
            [(_of(e, r), float(r.errored_checks)) for e, r in active],
        ),
        _gauge(
            "slipway_quarantined",
            "Versions that failed, and that nobody cleared since.",
            [((("endpoint", one.endpoint.endpoint),), float(len(one.endpoint.quarantined))) for one in seen],
        ),
        _gauge(
            "slipway_outbox_pending",
            "Documents of a container with something still to be delivered.",
            [((("container", name),), float(count)) for name, count in sorted(outboxes.items())],
        ),
        Family(
            name="slipway_rollbacks_total",
            kind="counter",
            help="Rollbacks, by what called for them.",
            samples=tuple(sample for one in seen for sample in _rollbacks(one)),
        ),
    ]


def _gauge(name: str, text: str, samples: Sequence[tuple[Labels, float]]) -> Family:
    return Family(name=name, kind="gauge", help=text, samples=tuple(samples))


def _of(endpoint: Endpoint, rollout: Rollout) -> Labels:
    return (("endpoint", endpoint.endpoint), ("version", str(rollout.candidate.version)))


def _rollbacks(one: Seen) -> list[tuple[Labels, float]]:
    # Triggers that did not occur are there with 0: a counter that appears with 1 shows no increase.
    counted = Counter(rollback.trigger for rollback in one.rollbacks)
    name = one.endpoint.endpoint
    return [((("endpoint", name), ("trigger", trigger.value)), float(counted[trigger])) for trigger in Trigger]
