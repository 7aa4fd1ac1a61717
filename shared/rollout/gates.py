"""The gates of a canary stage: the candidate's counts beside stable's over the same time, each against its limit.

Comparing the two at the same time cancels what touches both: a busy hour, a slow network, a season. The error and
latency gates compare point estimates once both sides have the policy's minimum of requests.
"""

from shared.core.verdict import Outcome, Verdict
from shared.registry.policy import RolloutPolicy
from shared.telemetry.histogram import quantile
from shared.telemetry.window import VersionCounts


def gate_verdicts(policy: RolloutPolicy, candidate: VersionCounts, stable: VersionCounts) -> list[Verdict]:
    """A verdict for each gate."""
    return [
        error_rate_verdict(policy, candidate, stable),
        p99_verdict(policy, candidate, stable),
    ]


def error_rate_verdict(policy: RolloutPolicy, candidate: VersionCounts, stable: VersionCounts) -> Verdict:
    """How far the candidate's error rate exceeds stable's: requests that it failed over requests assigned to it."""
    check, limit = "error_rate", policy.gates.error_rate
    if missing := _too_few(policy, candidate.requests, stable.requests, "requests"):
        return Verdict(check=check, outcome=Outcome.INCONCLUSIVE, sentence=missing, n=candidate.requests, limit=limit)
    rate, stable_rate = candidate.errors / candidate.requests, stable.errors / stable.requests
    excess = rate - stable_rate
    failed = excess > limit
    return Verdict(
        check=check,
        outcome=Outcome.FAIL if failed else Outcome.PASS,
        sentence=(
            f"the candidate failed {candidate.errors} of {candidate.requests} requests ({rate:.2%}), stable "
            f"{stable.errors} of {stable.requests} ({stable_rate:.2%}): the difference is "
            f"{'above' if failed else 'within'} the limit of {limit:.2%}"
        ),
        n=candidate.requests,
        value=excess,
        limit=limit,
    )


def p99_verdict(policy: RolloutPolicy, candidate: VersionCounts, stable: VersionCounts) -> Verdict:
    """The candidate's p99 latency in ms: it may exceed the fixed limit, or the ratio to stable's, but not both."""
    check = "p99_ms"
    answered, stable_answered = sum(candidate.latency_ms.values()), sum(stable.latency_ms.values())
    p99, stable_p99 = quantile(candidate.latency_ms, 0.99), quantile(stable.latency_ms, 0.99)
    missing = _too_few(policy, answered, stable_answered, "answers")
    if missing or p99 is None or stable_p99 is None:
        return Verdict(
            check=check, outcome=Outcome.INCONCLUSIVE, sentence=missing, n=answered, limit=policy.gates.p99_ms
        )
    limit = max(policy.gates.p99_ms, policy.gates.p99_ratio * stable_p99)
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


def _too_few(policy: RolloutPolicy, candidate: int, stable: int, what: str) -> str:
    if min(candidate, stable) >= policy.min_requests:
        return ""
    return f"the candidate has {candidate} {what} and stable {stable}: each needs {policy.min_requests}"
