"""The gates of a stage and the triggers of a rollout: which are asked when, and the verdict of each.

Evidence is the candidate's counts beside stable's over the same time: what touches both at once, a busy hour, a slow
network, a season, is no fault of the candidate's.
"""

from collections.abc import Mapping

from shared.core.verdict import Outcome, Verdict
from shared.registry.rollout_policy import GateName
from shared.rollout.documents import Rollout
from shared.rollout.machine import RolloutState
from shared.rollout.queries import QueryAnswer
from shared.rollout.rates import Judged, errors_block, rate_verdict, slow_block
from shared.telemetry.histogram import quantile
from shared.telemetry.window import VersionCounts


def judge(rollout: Rollout, answers: Mapping[str, QueryAnswer]) -> list[Judged]:
    """Every gate and trigger that holds for the rollout as it stands, in the order in which they are told."""
    found: list[Judged] = []
    if rollout.stable is not None and rollout.current is not None and rollout.weight_bp:
        found += _compared(rollout)
    found += [answer.judged(query) for query in rollout.gates.queries if (answer := answers.get(query.name))]
    found += _triggers(rollout)
    return [_dry(rollout, one) for one in found]


def _compared(rollout: Rollout) -> list[Judged]:
    assert rollout.stable is not None  # noqa: S101 - the caller has seen it
    gates, tests = rollout.gates, rollout.progress.tests
    candidate, stable = (rollout.progress.of(v) for v in (rollout.candidate.version, rollout.stable.version))
    least = rollout.least_requests
    return [
        rate_verdict(GateName.ERROR_RATE, tests, errors_block(candidate, stable), gates, least),
        rate_verdict(GateName.SLOW_RATE, tests, slow_block(candidate, stable, gates.slow_ms), gates, least),
        Judged(verdict=p99_verdict(candidate, stable, rollout)),
    ]


def p99_verdict(candidate: VersionCounts, stable: VersionCounts, rollout: Rollout) -> Verdict:
    """The candidate's p99 latency in ms: it may exceed the fixed limit, or the ratio to stable's, but not both."""
    gates, least = rollout.gates, rollout.least_requests
    answered, stable_answered = sum(candidate.latency_ms.values()), sum(stable.latency_ms.values())
    p99, stable_p99 = quantile(candidate.latency_ms, 0.99), quantile(stable.latency_ms, 0.99)
    check: str = GateName.P99_MS
    if min(answered, stable_answered) < least or p99 is None or stable_p99 is None:
        said = f"the candidate has {answered} answers and stable {stable_answered}: each needs {least}"
        return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=said, n=answered, limit=gates.p99_ms)
    limit = max(gates.p99_ms, gates.p99_ratio * stable_p99)
    failed = p99 > limit
    return Verdict(
        check=check,
        outcome=Outcome.FAIL if failed else Outcome.PASS,
        sentence=(
            f"the candidate's p99 is {p99:.1f} ms over {answered} answers, stable's {stable_p99:.1f} ms over "
            f"{stable_answered}: {'above' if failed else 'within'} the limit of {limit:.1f} ms"
        ),
        n=answered,
        value=p99,
        limit=limit,
    )


def _triggers(rollout: Rollout) -> list[Judged]:
    """The triggers: limits on the candidate whatever stage it is in."""
    limit = rollout.policy.triggers.error_rate
    if limit is None or rollout.state is not RolloutState.WATCHING:
        return []
    counts = rollout.progress.of(rollout.candidate.version)
    least = rollout.least_requests
    if counts.requests < least:
        said = f"the candidate has {counts.requests} requests since the switch: it needs {least}"
        return [Judged(verdict=Verdict(check="trigger_error_rate", outcome=Outcome.INCONCLUSIVE, sentence=said))]
    rate = counts.errors / counts.requests
    said = f"the candidate failed {counts.errors} of {counts.requests} requests ({rate:.2%}), the limit is {limit:.2%}"
    outcome = Outcome.FAIL if rate > limit else Outcome.PASS
    verdict = Verdict(
        check="trigger_error_rate", outcome=outcome, sentence=said, n=counts.requests, value=rate, limit=limit
    )
    return [Judged(verdict=verdict)]


def _dry(rollout: Rollout, one: Judged) -> Judged:
    dry = {*rollout.gates.dry_run, *(query.name for query in rollout.gates.queries if query.dry_run)}
    if one.verdict.check not in dry:
        return one
    return Judged(verdict=one.verdict.model_copy(update={"advisory": True}), is_proof=False)
