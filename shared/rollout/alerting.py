"""Alerts on rollouts: each is read off the state of its endpoint, so that a crash in between is made good by the next
look, and what is over is resolved by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from shared.alerts.documents import AlertRule
from shared.alerts.ports import Alerts
from shared.core.clock import Clock
from shared.rollout.approvers import stage_named
from shared.rollout.convergence import convergence, fresh, still_sent
from shared.rollout.documents import Rollout
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.rollout.standing import is_watched_without_end
from shared.rollout.traffic import unheard
from shared.store.repository import Repository

RULES = {
    AlertRule.ROLLOUT_ROLLED_BACK: "another rollout has begun, or somebody cleared the version",
    AlertRule.ROLLOUT_HELD: "the rollout goes on, or is over",
    AlertRule.APPROVAL_OVERDUE: "the rollout waits for no approval any more",
    AlertRule.VERSION_UNLOADABLE: "no pod says any more that it cannot load the version, or its rollout is over",
    AlertRule.PLAN_UNAPPLIED: "the pods that report have applied the plan",
    AlertRule.VERSION_QUARANTINED: "somebody cleared the version",
}
"""The rules on rollouts, and why an alert of each is over."""


_APPLIED_WITHIN_S = 60.0
"""A pod that reports applies a plan in seconds."""
_HEARD_WITHIN_S = 300.0
"""The Gateway hears of its routes within a minute or two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Something about a rollout that a person should look at."""

    rule: AlertRule
    subject: str
    sentence: str
    evidence: dict[str, Any] = field(default_factory=dict)


class RolloutAlerts:
    """Has the alerts say how the endpoints stand."""

    def __init__(self, *, endpoints: Repository[Endpoint], alerts: Alerts, clock: Clock) -> None:
        self._endpoints = endpoints
        self._alerts = alerts
        self._clock = clock

    def settle(self) -> None:
        """Fire what holds and resolve what does not."""
        now = self._clock.now()
        holds: set[tuple[AlertRule, str]] = set()
        # Those that fire are read first: what begins after that is not taken for over.
        firing = [alert for rule in RULES for alert in list(self._alerts.firing(rule))]
        unread: set[str] = set()
        for endpoint in list(self._endpoints.readable(left_out=unread)):
            for found in troubles(endpoint, now):
                holds.add((found.rule, found.subject))
                self._alerts.fire(
                    found.rule,
                    found.subject,
                    found.sentence,
                    model=endpoint.endpoint,
                    evidence=found.evidence,
                    looked_at=now,
                )
        for alert in firing:
            if (alert.rule, alert.subject) not in holds and alert.model not in unread:
                self._alerts.resolve(alert.rule, alert.subject, RULES[alert.rule], model=alert.model, looked_at=now)


def troubles(endpoint: Endpoint, now: datetime) -> list[Trouble]:
    """What about an endpoint a person should look at now."""
    found = [
        Trouble(
            rule=AlertRule.VERSION_QUARANTINED,
            subject=f"version:{endpoint.endpoint}:{quarantine.version}",
            sentence=f"version {quarantine.version} of {endpoint.endpoint} is quarantined: {quarantine.reason}; clear "
            f"it if it is fit: slipway quarantine clear {endpoint.endpoint} {quarantine.version}",
            evidence={"version": quarantine.version, "rollout_id": quarantine.rollout_id},
        )
        for quarantine in endpoint.quarantined
    ]
    rollout = endpoint.rollout
    return found + (_of_rollout(endpoint, rollout, now) if rollout else [])


def _of_rollout(endpoint: Endpoint, rollout: Rollout, now: datetime) -> list[Trouble]:
    found = []
    named = f"the rollout of version {rollout.candidate.version} on {endpoint.endpoint}"

    def add(rule: AlertRule, sentence: str, **evidence: object) -> None:
        found.append(
            Trouble(
                rule=rule,
                subject=f"endpoint:{endpoint.endpoint}",
                sentence=sentence,
                evidence={"rollout_id": rollout.rollout_id, "version": rollout.candidate.version, **evidence},
            )
        )

    if rollout.state is RolloutState.ROLLED_BACK and endpoint.is_quarantined(rollout.candidate.version):
        add(AlertRule.ROLLOUT_ROLLED_BACK, f"{named} was rolled back: {rollout.reason}")
    if rollout.state is RolloutState.HELD:
        said = f"{named} is held at {rollout.weight_bp / 100:g} %: resume, skip or abort it"
        add(AlertRule.ROLLOUT_HELD, said, weight_bp=rollout.weight_bp)
    elif is_watched_without_end(rollout, now):
        said = (
            f"{named} is watched with all traffic, and that it is fit is not concluded: see what its gates lack, "
            "promote it or take it back"
        )
        add(AlertRule.ROLLOUT_HELD, said, weight_bp=rollout.weight_bp)
    if rollout.state is RolloutState.AWAITING and _is_overdue(rollout, now):
        said = f"{named} awaits an approval of {stage_named(rollout, rollout.next_stage)}: approve or reject it"
        add(AlertRule.APPROVAL_OVERDUE, said, stage=rollout.next_stage)
    if unapplied := _unapplied(endpoint, rollout, now):
        said, generation = unapplied
        add(AlertRule.PLAN_UNAPPLIED, said, generation=generation)
    if not rollout.state.is_over:
        pods = _failing(rollout, now)
        if pods:
            # Which pods they are and how much memory each lacks differs from look to look: the trouble is the same.
            pod, why = next(iter(pods.items()))
            add(AlertRule.VERSION_UNLOADABLE, f"{named}: pod {pod} cannot load it: {why}")
    return found


def _is_overdue(rollout: Rollout, now: datetime) -> bool:
    """Whether an approval is awaited for longer than a link holds, so that the first one has expired."""
    since = rollout.halted_at or rollout.published_at
    return now - since > timedelta(seconds=rollout.policy.approval_link_s)


def _unapplied(endpoint: Endpoint, rollout: Rollout, now: datetime) -> tuple[str, int] | None:
    """That a pod, or the Gateway, has not applied in time what takes traffic from a version, in words, and the
    generation that is lacking.
    """
    rollback, ended = endpoint.rollback, endpoint.unapplied
    waited_for = [(rollback.generation, rollback.detected_at)] if rollback else []
    waited_for += [(ended.generation, ended.at)] if ended else []
    pods = rollout.progress.pods
    # As the latest tick saw them: the next one may be a while off.
    reporting = fresh(pods, rollout.progress.looked_at or now)
    sent = still_sent(pods, endpoint.slots, rollout.progress.looked_at or now)
    for generation, since in waited_for:
        waited_s = (now - since).total_seconds()
        late = [n for n in reporting if pods[n].slot in endpoint.slots and pods[n].generation < generation]
        if late and waited_s > _APPLIED_WITHIN_S:
            said = (
                f"pod {late[0]} of {endpoint.endpoint} reports and goes on with a plan before generation {generation}, "
                "which takes traffic from a candidate: see its log, or restart it"
            )
            return said, generation
        if sent and waited_s > _HEARD_WITHIN_S:
            return _sent(endpoint, sent[0], "which has no version of it", generation), generation
    if not rollout.state.is_over and (now - rollout.published_at).total_seconds() > _HEARD_WITHIN_S:
        sent = unheard(rollout, rollout.progress.looked_at or now)
        if sent:
            return _sent(endpoint, sent[0], "whose version has no share", endpoint.generation), endpoint.generation
    return None


def _sent(endpoint: Endpoint, pod: str, which: str, generation: int) -> str:
    """That the Gateway has not heard of a plan, in words."""
    return (
        f"the Gateway still sends requests of {endpoint.endpoint} to pod {pod}, {which} by generation {generation}: "
        "see whether Flux applies what the container manifests holds"
    )


def _failing(rollout: Rollout, now: datetime) -> Mapping[str, str]:
    return convergence(
        rollout.pods,
        generation=rollout.progress.generation,
        versions=(rollout.candidate.version,),
        slots=rollout.slots,
        slot=rollout.candidate.slot,
        quorum=rollout.policy.quorum,
        now=now,
    ).failing
