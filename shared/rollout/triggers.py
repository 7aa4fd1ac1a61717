"""The triggers: limits on the candidate alone, whatever stage it is in, and while it is watched with all traffic.

A rate is over its limit where that is proven at every look, of what was counted since the stage began or of what the
latest tick took in: a long good time hides no fault, and a short bad one by chance is none. A proof at level 0.01 is
one failed check; one at a millionth ends the rollout at once. Where stable breaks the limit too, at the same time, the
candidate is held to what stable may come to, the upper end of its interval. Once stable has no traffic, what it did
when it last had some stands for it: up to three times that concludes nothing, for times change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import Triggers
from shared.rollout.convergence import fresh
from shared.rollout.documents import Rollout
from shared.rollout.losses import losses
from shared.rollout.predictions import psi_verdict
from shared.rollout.progress import PodSeen
from shared.rollout.rates import Judged, slow
from shared.rollout.traffic import Traffic, answered, traffic_of
from shared.sequential.intervals import exceeds, quantile_interval, rate_interval
from shared.telemetry.histogram import bucket_value, quantile
from shared.telemetry.window import VersionCounts

LEVEL, PROOF_LEVEL = 0.01, 1e-6
SEASON = 3.0
"""How many times the failures of an earlier time those of a version that is no worse may come to."""
_P99 = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class _Share:
    """How many of how many."""

    n: int
    over: int

    @property
    def rate(self) -> float:
        return self.over / self.n if self.n else 0.0

    def exceeds(self, rate: float, level: float) -> bool:
        return exceeds(self.over, self.n, rate, level=level)


type _Measure = Callable[[VersionCounts], _Share]


def triggered(rollout: Rollout, least: int, now: datetime) -> list[Judged]:
    """The verdicts of the triggers that hold for the rollout as it stands."""
    limits, found = rollout.policy.triggers, standing_by(rollout, now)
    if rollout.weight_bp:
        traffic = traffic_of(rollout)
        of_traffic = (errors(traffic, limits, least), p99(traffic, limits, least), _psi(traffic, limits, least))
        found = [*(one for one in of_traffic if one is not None), *found]
    return found


def standing_by(rollout: Rollout, now: datetime) -> list[Judged]:
    """The verdicts of those triggers that need no traffic."""
    limits = rollout.policy.triggers
    found = (memory(rollout, limits, now), health(rollout, limits, now))
    return [one for one in found if one is not None]


def errors(traffic: Traffic, limits: Triggers, least: int) -> Judged | None:
    """The candidate's error rate."""
    limit = limits.error_rate
    if limit is None:
        return None
    measure: _Measure = _errors
    counted = measure(traffic.candidate)
    interval = rate_interval(counted.over, counted.n, confidence=1 - LEVEL)
    said = f"the candidate failed {counted.over} of {counted.n} requests ({counted.rate:.2%})"
    outcome, then, is_proof = _held_against(traffic, measure, limit, least)
    verdict = Verdict(
        check="trigger_error_rate",
        outcome=outcome,
        sentence=f"{said}, the limit is {limit:.2%}: {then}",
        n=counted.n,
        value=counted.rate if counted.n else None,
        limit=limit,
        interval=interval,
    )
    return Judged(verdict=verdict, is_proof=is_proof)


def p99(traffic: Traffic, limits: Triggers, least: int) -> Judged | None:
    """The candidate's p99 latency: it is over its limit where more than 1 % of the answers are."""
    limit = limits.p99_ms
    if limit is None:
        return None

    def measure(counts: VersionCounts) -> _Share:
        return _Share(n=answered(counts), over=slow(counts, limit))

    found = quantile(traffic.candidate.latency_ms, _P99)
    low, high = quantile_interval(traffic.candidate.latency_ms, _P99, confidence=1 - LEVEL)
    outcome, then, is_proof = _held_against(traffic, measure, 1 - _P99, least)
    n = answered(traffic.candidate)
    p99_said = f"{found:.1f} ms" if found is not None else "unknown"
    verdict = Verdict(
        check="trigger_p99_ms",
        outcome=outcome,
        sentence=f"the candidate's p99 is {p99_said} over {n} answers, the limit is {limit:g} ms: {then}",
        n=n,
        value=found,
        limit=limit,
        interval=(bucket_value(low), bucket_value(high)) if low is not None and high is not None else None,
    )
    return Judged(verdict=verdict, is_proof=is_proof)


def memory(rollout: Rollout, limits: Triggers, now: datetime) -> Judged | None:
    """The share of its memory that the fullest pod uses, of those that hold the candidate."""
    limit = limits.memory_share
    if limit is None:
        return None
    version = rollout.candidate.version
    shares = {
        name: seen.memory_share
        for name, seen in _fresh(rollout, now).items()
        if seen.memory_share is not None and version in seen.loaded
    }
    check = "trigger_memory"
    if not shares:
        said = f"no pod that reports and holds the candidate has a memory limit; the trigger's is {limit:.0%}"
        return Judged(
            verdict=Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, n=0, limit=limit, advisory=True)
        )
    fullest = max(shares, key=lambda name: (shares[name], name))
    value = shares[fullest]
    return Judged(
        verdict=Verdict(
            check=check,
            outcome=Outcome.FAIL if value > limit else Outcome.PASS,
            sentence=f"of {len(shares)} pods {fullest} has the fullest memory, {value:.0%}; the limit is {limit:.0%}",
            n=len(shares),
            value=value,
            limit=limit,
        )
    )


def health(rollout: Rollout, limits: Triggers, now: datetime) -> Judged | None:
    """The share of the pods that have the candidate ready, of those that have or cannot.

    A pod that still loads serves no candidate; one that cannot load stable either has a fault of its own. What pods say
    of themselves is no chance: a share below the limit is a proof. Processes that end again and again with the
    candidate in memory are none: see shared.rollout.losses. Where the candidate has pods of its own and none reports,
    nobody answers its share of the requests: that is one too, whatever the limit.
    """
    pods = _fresh(rollout, now)
    if not pods and (gone := _gone(rollout, now)):
        return gone
    limit = limits.healthy_share
    if limit is None:
        return None
    version = rollout.candidate.version
    stable = rollout.stable.version if rollout.stable else None
    ready = [name for name, seen in pods.items() if version in seen.loaded]
    failing = {
        name: seen.failed[version]
        for name, seen in sorted(pods.items())
        if version in seen.failed and version not in seen.loaded and stable not in seen.failed
    }
    n = len(ready) + len(failing)
    value = len(ready) / n if n else None
    said = f"{len(ready)} of {n} pods that report have the candidate ready, {limit:.0%} are needed"
    if failing:
        pod, why = next(iter(failing.items()))
        said += f"; pod {pod} has not: {why}"
    outcome = Outcome.INCONCLUSIVE if value is None else Outcome.FAIL if value < limit else Outcome.PASS
    if outcome is not Outcome.FAIL and (lost := losses(rollout)).are_too_many:
        n, value = lost.places, 1 - lost.restless / lost.places
        verdict = Verdict(
            check="trigger_health", outcome=Outcome.FAIL, sentence=lost.sentence, n=n, value=value, limit=limit
        )
        return Judged(verdict=verdict)
    return Judged(
        verdict=Verdict(check="trigger_health", outcome=outcome, sentence=said, n=n, value=value, limit=limit),
        is_proof=outcome is Outcome.FAIL,
    )


def _gone(rollout: Rollout, now: datetime) -> Judged | None:
    """That no pod of the candidate's slot reports, though it has a share; None where stable's report no more either:
    then it is not known who answers.
    """
    slot, stable = rollout.candidate.slot, rollout.stable
    if stable is None or stable.slot is slot or not rollout.weight_bp:
        return None
    if not any(rollout.progress.pods[name].slot is stable.slot for name in fresh(rollout.progress.pods, now)):
        return None
    named = f"no pod of slot {slot}" if slot else "no shared pod"
    said = f"{named} reports any more, and the candidate there has {rollout.weight_bp / 100:g} % of the requests"
    verdict = Verdict(check="trigger_health", outcome=Outcome.FAIL, sentence=said, n=0)
    return Judged(verdict=verdict, is_proof=True)


def _psi(traffic: Traffic, limits: Triggers, least: int) -> Judged | None:
    limit = limits.prediction_psi
    if limit is None:
        return None
    return Judged(verdict=psi_verdict("trigger_prediction_psi", traffic, limit=limit, least=least))


def _held_against(traffic: Traffic, measure: _Measure, limit: float, least: int) -> tuple[Outcome, str, bool]:
    """The outcome, why, and whether it is a proof."""
    total, latest = measure(traffic.candidate), measure(traffic.candidate_block)
    stable, stable_latest = measure(traffic.stable), measure(traffic.stable_block)
    season = None if traffic.is_concurrent else SEASON
    bar = _excused(stable, limit, least, season)
    bar_now = max(bar, _excused(stable_latest, limit, least, season))
    is_over, is_over_now = total.exceeds(bar, LEVEL), latest.exceeds(bar_now, LEVEL)
    if is_over or is_over_now:
        is_proof = total.exceeds(bar, PROOF_LEVEL) or latest.exceeds(bar_now, PROOF_LEVEL)
        when = "" if is_over else f", with {latest.over} of {latest.n} since the last tick"
        more = f", and more than stable's {stable.rate:.2%} {traffic.when} excuses" if bar > limit else ""
        return Outcome.FAIL, f"over it{more}, which is no chance{when}", is_proof
    if total.exceeds(limit, LEVEL) or latest.exceeds(limit, LEVEL):
        said = f"over it, and stable is too {traffic.when} ({stable.rate:.2%})"
        return (Outcome.PASS if traffic.is_concurrent else Outcome.INCONCLUSIVE), said, False
    if total.n < least:
        return Outcome.INCONCLUSIVE, f"it needs {least}", False
    if total.rate <= limit:
        return Outcome.PASS, "within it", False
    if stable.n >= max(least, 1) and rate_interval(stable.over, stable.n, confidence=1 - LEVEL)[1] > limit:
        return Outcome.PASS, f"no proof that it is over, and stable may be too {traffic.when}", False
    return Outcome.INCONCLUSIVE, "over it, perhaps by chance", False


def _excused(stable: _Share, limit: float, least: int, season: float | None) -> float:
    """What the candidate is held to: the limit, or what stable may come to, where enough shows that it is over too."""
    if stable.n < max(least, 1) or stable.rate <= limit:
        return limit
    if season is not None:
        return min(1.0, season * stable.rate)
    return rate_interval(stable.over, stable.n, confidence=1 - LEVEL)[1]


def _errors(counts: VersionCounts) -> _Share:
    return _Share(n=counts.requests, over=counts.errors)


def _fresh(rollout: Rollout, now: datetime) -> dict[str, PodSeen]:
    """The pods that report, of the candidate's slot."""
    slot = rollout.candidate.slot
    pods = rollout.progress.pods
    return {name: pods[name] for name in fresh(pods, now) if pods[name].slot is slot}
