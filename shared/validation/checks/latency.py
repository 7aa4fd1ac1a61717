"""Is the version slower than the champion, beyond what chance and this machine's noise explain?

The interval of a quantile's ratio is a bootstrap over whole cycles (Efron 1979; Kuensch 1989 for blocks): calls near in
time are alike, and what disturbs a cycle disturbs both models. Pure; loads numpy.
"""

import numpy as np
from numpy.typing import NDArray

from shared.core.verdict import Outcome, Verdict
from shared.registry.policy import ValidationPolicy
from shared.validation.details import Latency, Quantile

CHECK = "latency"
LEVEL = 0.99
_QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
_REPLICATES = 1_000
_SEED = 20_261
_NS_A_MS = 1e6
RESOLUTION = 1.1
"""Ratios up to here are not told apart: two sessions of one model differ by where they lie in memory."""

type Nanoseconds = NDArray[np.int64]
"""Processor time of calls, shape [cycles, calls]."""


def latency(
    candidate_ns: Nanoseconds,
    champion_ns: Nanoseconds | None,
    *,
    rows_a_call: int,
    policy: ValidationPolicy,
) -> tuple[Latency, Verdict]:
    """The quantiles, and the verdict on the worst of their ratios. Cycles of both models stand in the same rows."""
    # A clock may tick more coarsely than a call takes, and a ratio to nothing is none.
    quantiles = _quantiles(np.maximum(candidate_ns, 1), None if champion_ns is None else np.maximum(champion_ns, 1))
    figures = Latency(calls=int(candidate_ns.size), rows_a_call=rows_a_call, quantiles=quantiles)
    return figures, _verdict(figures, policy)


def _quantiles(candidate_ns: Nanoseconds, champion_ns: Nanoseconds | None) -> tuple[Quantile, ...]:
    candidate = np.quantile(candidate_ns, list(_QUANTILES.values()))
    if champion_ns is None:
        return tuple(
            Quantile(name=name, candidate_ms=float(value) / _NS_A_MS)
            for name, value in zip(_QUANTILES, candidate, strict=True)
        )
    champion = np.quantile(champion_ns, list(_QUANTILES.values()))
    cycles = len(candidate_ns)
    # The same resampled cycles for both: [replicates, cycles], how often each cycle is drawn.
    drawn = np.random.default_rng(_SEED).multinomial(cycles, [1 / cycles] * cycles, size=_REPLICATES)
    replicates = _resampled(candidate_ns, drawn) / _resampled(champion_ns, drawn)
    # Three ratios are looked at: each at a level at which all hold together (Bonferroni).
    tail = (1 - LEVEL) / 2 / len(_QUANTILES)
    low, high = np.quantile(replicates, [tail, 1 - tail], axis=0)
    return tuple(
        Quantile(
            name=name,
            candidate_ms=float(candidate[i]) / _NS_A_MS,
            champion_ms=float(champion[i]) / _NS_A_MS,
            ratio=float(candidate[i] / champion[i]),
            interval=(float(low[i]), float(high[i])),
            level=LEVEL,
        )
        for i, name in enumerate(_QUANTILES)
    )


def _resampled(durations_ns: Nanoseconds, drawn: NDArray[np.int64]) -> NDArray[np.float64]:
    """The quantiles of every resample, shape [replicates, quantiles], by weights on the calls in their order."""
    cycles, calls = durations_ns.shape
    order = np.argsort(durations_ns, axis=None, kind="stable")
    weights = np.cumsum(drawn[:, order // calls], axis=1, dtype=np.int32)
    ordered = durations_ns.ravel()[order].astype(np.float64)
    found = []
    for share in _QUANTILES.values():
        wanted = int(np.ceil(share * cycles * calls))
        found.append(ordered[(weights < wanted).sum(axis=1)])
    return np.stack(found, axis=1)


def _verdict(figures: Latency, policy: ValidationPolicy) -> Verdict:
    slower = [quantile for quantile in figures.quantiles if _is_slower(quantile, policy)]
    worst = max(slower, key=lambda quantile: quantile.interval[0] if quantile.interval else 0.0, default=None)
    shown = worst or figures.quantiles[-1]
    said = f"{shown.name} is {shown.candidate_ms:.3g} ms of processor time over {figures.calls} calls"
    if shown.ratio is None or shown.interval is None:
        said += "; there is no champion to hold it against"
    else:
        low, high = shown.interval
        said += (
            f", {shown.ratio:.3g} times the champion's {shown.champion_ms:.3g} ms "
            f"({LEVEL:.0%} interval {low:.3g} to {high:.3g}), {_compared(shown, policy, is_slower=worst is not None)}"
        )
    return Verdict(
        check=CHECK,
        outcome=Outcome.FAIL if worst else Outcome.PASS,
        sentence=said,
        n=figures.calls,
        value=shown.candidate_ms if shown.ratio is None else shown.ratio,
        limit=policy.latency_ratio if shown.ratio is not None else None,
        interval=shown.interval,
        evidence=f"/details/latency/quantiles/{figures.quantiles.index(shown)}",
    )


def _is_slower(quantile: Quantile, policy: ValidationPolicy) -> bool:
    return _is_proven(quantile, policy) and quantile.candidate_ms > policy.latency_floor_ms


def _is_proven(quantile: Quantile, policy: ValidationPolicy) -> bool:
    """Whether the ratio is above the limit, even if only beyond the floor it matters."""
    if policy.latency_ratio is None or quantile.interval is None:
        return False
    return quantile.interval[0] > max(policy.latency_ratio, RESOLUTION)


def _compared(quantile: Quantile, policy: ValidationPolicy, *, is_slower: bool) -> str:
    if policy.latency_ratio is None:
        return "and the policy sets no limit"
    limit = f"the limit of {policy.latency_ratio:g} times"
    if is_slower:
        return f"proven to be above {limit}"
    if _is_proven(quantile, policy):
        return f"above {limit} and below the floor of {policy.latency_floor_ms:g} ms"
    return f"not proven to be above {limit}"
