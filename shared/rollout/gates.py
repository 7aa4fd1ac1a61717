"""The gates of a stage and the triggers of a rollout: which are asked when, and the verdict of each.

Evidence is the candidate's counts beside stable's over the same time: what touches both at once, a busy hour, a slow
network, a season, is no fault of the candidate's. What is proven by a bound that holds at every look ends the rollout
at once; any other FAIL is one failed check. Whatever else is left unchecked, or only recorded, a stage needs evidence:
no data never passes.
"""

from collections.abc import Mapping
from datetime import datetime

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import GateName, Gates
from shared.rollout.documents import Rollout
from shared.rollout.feedback import feedback_verdicts
from shared.rollout.machine import RolloutState
from shared.rollout.predictions import psi_verdict
from shared.rollout.queries import NOT_ASKED, QueryAnswer
from shared.rollout.rates import Judged, errors_block, rate_verdict, slow, slow_block
from shared.rollout.schedule import QuietStage
from shared.rollout.shadows import compared, disagreements
from shared.rollout.traffic import Traffic, answered, traffic_of
from shared.rollout.triggers import standing_by, triggered
from shared.sequential.intervals import exceeds, quantile_interval, rate_interval
from shared.telemetry.histogram import bucket_value, quantile
from shared.telemetry.window import VersionCounts

EVIDENCE = "evidence"
"""The check that there is any."""
P99_LEVEL = 0.01
_P99 = 0.99


def judge(rollout: Rollout, answers: Mapping[str, QueryAnswer], now: datetime) -> list[Judged]:
    """Every gate and trigger that holds for the rollout as it stands, in the order in which they are told."""
    if rollout.current is None and rollout.state is not RolloutState.WATCHING:
        # Before its first stage the candidate is loaded, and takes memory, without traffic that anything is judged by.
        return standing_by(rollout, now) if rollout.state.is_halted else []
    least = max(1, rollout.least_requests)
    gates = rollout.gates
    found = [_dry(one) if one.verdict.check in gates.dry_run else one for one in _measured(rollout, least)]
    for query in gates.queries:
        asked = answers.get(query.name, NOT_ASKED).judged(query)
        found.append(_dry(asked) if query.dry_run else asked)
    return [*found, *triggered(rollout, least, now)]


def _measured(rollout: Rollout, least: int) -> list[Judged]:
    """The gates that Slipway measures by itself, and whether there is evidence."""
    # A stage whose share somebody set to nothing has no traffic to prove anything by: it is no preview.
    if rollout.weight_bp or not isinstance(rollout.current, QuietStage):
        traffic = traffic_of(rollout)
        compared_to_stable = _compared(rollout, traffic, least) if traffic.is_concurrent else []
        fed_back = feedback_verdicts(rollout, is_concurrent=traffic.is_concurrent)
        return [
            *compared_to_stable,
            *fed_back,
            _evidence(traffic.candidate.requests, "requests of the candidate", least),
        ]
    if rollout.mirror_bp:
        return [*disagreements(rollout, least), _evidence(compared(rollout), "copies to the candidate", least)]
    version = rollout.candidate.version
    ready = sum(version in seen.loaded for seen in rollout.progress.pods.values())
    return [smoke(rollout), _evidence(ready, "pods with the candidate ready", 1)]


def _compared(rollout: Rollout, traffic: Traffic, least: int) -> list[Judged]:
    gates, candidate, stable = rollout.gates, traffic.candidate, traffic.stable
    found = [
        rate_verdict(rollout, GateName.ERROR_RATE, errors_block(candidate, stable), least),
        rate_verdict(rollout, GateName.SLOW_RATE, slow_block(candidate, stable, gates.slow_ms), least),
        Judged(verdict=p99_verdict(candidate, stable, gates, least)),
    ]
    if gates.prediction_psi is not None:
        verdict = psi_verdict(GateName.PREDICTION_PSI, traffic, limit=gates.prediction_psi, least=least)
        found.append(Judged(verdict=verdict))
    return found


def p99_verdict(candidate: VersionCounts, stable: VersionCounts, gates: Gates, least: int) -> Verdict:
    """The candidate's p99 latency in ms: it may exceed the fixed limit, or the ratio to stable's, but not both.

    It fails where its p99 is proven above both, stable's being taken at the upper end of its interval.
    """
    n, stable_n = answered(candidate), answered(stable)
    p99, stable_p99 = quantile(candidate.latency_ms, _P99), quantile(stable.latency_ms, _P99)
    check, limit = GateName.P99_MS.value, gates.p99_ms
    if min(n, stable_n) < least or p99 is None or stable_p99 is None:
        said = f"the candidate has {n} answers and stable {stable_n}: each needs {least}"
        return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, n=n, limit=limit)
    limit = max(limit, gates.p99_ratio * stable_p99)
    low, high = _p99_interval(candidate)
    stable_high = _p99_interval(stable)[1]
    if p99 <= limit:
        outcome, then = Outcome.PASS, f"within the limit of {limit:.1f} ms"
    elif stable_high is not None and _is_above(candidate, max(limit, gates.p99_ratio * stable_high)):
        outcome, then = Outcome.FAIL, f"above the limit of {limit:.1f} ms, which is no chance"
    else:
        outcome, then = Outcome.INCONCLUSIVE, f"above the limit of {limit:.1f} ms, perhaps by chance"
    return Verdict(
        check=check,
        outcome=outcome,
        sentence=f"p50, p95 and p99 are {_quantiles(candidate)} ms over {n} answers of the candidate, "
        f"{_quantiles(stable)} ms over {stable_n} of stable: the candidate's p99 is {then}",
        n=n,
        value=p99,
        limit=limit,
        interval=(low, high) if low is not None and high is not None else None,
    )


def smoke(rollout: Rollout) -> Judged:
    """Whether the candidate answered those who named it while blue-green previews it.

    Where servers are open to that, anybody may name it, and send what stable would fail too: such a failure is for
    somebody to look at. One whose override is signed, which somebody answers for, is the candidate's.
    """
    counts, wanted = rollout.progress.of(rollout.candidate.version), rollout.gates.smoke_requests
    failed, unsigned = counts.pinned_errors, counts.pinned - sum(counts.overrides.values())
    said = f"the candidate answered {counts.pinned - failed} of {counts.pinned} requests that named it"
    if failed > unsigned:
        outcome, then = Outcome.FAIL, "none may fail"
    elif failed:
        outcome = Outcome.INCONCLUSIVE
        then = (
            f"none may fail, but the overrides of {unsigned} were not signed, and anybody may have sent what failed; "
            "look, and skip the stage, or roll the version back"
        )
    elif counts.pinned < wanted:
        outcome, then = Outcome.INCONCLUSIVE, f"{wanted} are wanted"
    elif wanted:
        outcome, then = Outcome.PASS, f"{wanted} were wanted"
    elif rollout.candidate.golden_digest:
        outcome, then = Outcome.PASS, "none was wanted, and every server replayed its golden rows when it loaded it"
    else:
        outcome, then = Outcome.PASS, "none was wanted, and there are no golden rows to replay"
    verdict = Verdict(
        check=GateName.SMOKE,
        outcome=outcome,
        sentence=f"{said}: {then}",
        n=counts.pinned,
        value=float(failed),
        limit=0.0,
        interval=rate_interval(failed, counts.pinned, confidence=1 - rollout.gates.level),
    )
    return Judged(verdict=verdict)


def _evidence(found: int, what: str, least: int) -> Judged:
    outcome = Outcome.PASS if found >= least else Outcome.INCONCLUSIVE
    said = f"{found} {what}, {least} {'is' if least == 1 else 'are'} needed"
    return Judged(verdict=Verdict(check=EVIDENCE, outcome=outcome, sentence=said, n=found, limit=float(least)))


def _p99_interval(counts: VersionCounts) -> tuple[float | None, float | None]:
    low, high = quantile_interval(counts.latency_ms, _P99, confidence=1 - P99_LEVEL)
    return bucket_value(low) if low is not None else None, bucket_value(high) if high is not None else None


def _is_above(counts: VersionCounts, limit_ms: float) -> bool:
    return exceeds(slow(counts, limit_ms), answered(counts), 1 - _P99, level=P99_LEVEL / 2)


def _quantiles(counts: VersionCounts) -> str:
    found = (quantile(counts.latency_ms, q) for q in (0.5, 0.95, _P99))
    return ", ".join(f"{value:.1f}" for value in found if value is not None)


def _dry(one: Judged) -> Judged:
    return Judged(verdict=one.verdict.model_copy(update={"advisory": True}), is_proof=False)
