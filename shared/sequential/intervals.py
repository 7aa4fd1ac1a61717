"""Confidence intervals of error rates, and of quantiles, that hold at every look at once.

For a rate: with Y_1, Y_2, ... independent given the past, of rates r_1, r_2, ..., and any tilt t, the product of
exp(t Y_i) / (1 - r_i + r_i e^t) is a martingale, and log(1 - r + r e^t) is concave in r. So with S_n the sum and m the
mean of r_1 to r_n, exp(t S_n) / (1 - m + m e^t)^n is at most that martingale. A mixture over tilts reaches 1/alpha with
probability at most alpha (Ville 1939): the means m at which it has are ruled out (Robbins 1970; Howard, Ramdas,
McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences"). Exact at every n, and the
rates may drift: it is then their mean over the requests so far that the interval holds.

For a difference: each arm's interval at half of the doubt. It is wider than the test of shared.sequential.excess is
sharp: a claim may be proven while the interval still holds the margin, and the test is what decides.

For a quantile: it lies above x where the share of values above x is more than 1 - q (Howard and Ramdas 2022,
"Sequential estimation of quantiles with applications to A/B testing and best-arm identification", section 3). The
values that the rate at x is taken of are those beyond x, whatever their distribution. One x is held against the rate's
bound: the interval's ends each hold at every look, for a quantile that does not drift.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping

from shared.sequential.evariable import Block

_TILTS = tuple(0.001 * 1.7**step for step in range(19))
"""From what millions of requests at a rate of a half call for to what a rate of 1 in 100,000 does."""
_TILTED = tuple((tilt, math.expm1(tilt)) for tilt in _TILTS)
_STEPS, _CONVERGED = 100, 1e-12


def rate_interval(failed: int, requests: int, *, confidence: float) -> tuple[float, float]:
    """Low and high of a rate of failure, at every look at once. (0, 1) without requests."""
    if not 0 <= failed <= requests:
        raise ValueError(f"{failed} of {requests} requests failed: give 0 <= failed <= requests")
    log_needed = math.log(2 / (1 - confidence))
    low = _lowest(failed, requests, log_needed)
    high = 1.0 - _lowest(requests - failed, requests, log_needed)
    return low, high


def exceeds(failed: int, requests: int, rate: float, *, level: float) -> bool:
    """Whether it is proven, at whatever look, that more than `rate` of the requests fail in the mean."""
    if not failed or failed <= rate * requests:
        return False
    return _log_evidence(failed, requests, rate) >= -math.log(level)


def quantile_interval(histogram: Mapping[int, int], q: float, *, confidence: float) -> tuple[int | None, int | None]:
    """The buckets between which the q-quantile lies, at every look at once. None: there is no bound on that side.

    `histogram` counts values by bucket, a higher one for higher values.
    """
    buckets = sorted(histogram)
    n, level = sum(histogram.values()), (1 - confidence) / 2
    counted, upto = 0, []
    for bucket in buckets:
        counted += histogram[bucket]
        upto.append(counted)
    # As the bucket rises, the share beyond it falls: each end is found by halving.
    low = bisect_left(upto, True, key=lambda held: not exceeds(n - held, n, 1 - q, level=level))
    high = bisect_left(upto, True, key=lambda held: exceeds(held, n, q, level=level))
    return (buckets[low] if low else None), (buckets[high] if high < len(buckets) else None)


def difference_interval(total: Block, *, confidence: float) -> tuple[float, float]:
    """Low and high of the candidate's rate of failure less stable's, at every look at once."""
    each = (1 + confidence) / 2
    low, high = rate_interval(total.candidate_failed, total.candidate, confidence=each)
    stable_low, stable_high = rate_interval(total.stable_failed, total.stable, confidence=each)
    return low - stable_high, high - stable_low


def _lowest(failed: int, requests: int, log_needed: float) -> float:
    """The lowest mean rate that is not ruled out from below. The evidence against a mean falls as the mean rises.

    It is convex in the mean, as each of its terms is: Newton's steps from a mean that is ruled out never pass the end.
    """
    if failed == 0 or _log_evidence(failed, requests, 0.0) < log_needed:
        return 0.0
    rate = failed / requests
    mean = rate - 1.5 * math.sqrt(2 * log_needed * rate * (1 - rate) / requests)
    if mean <= 0.0:
        mean = rate / 2
    found, slope = _log_evidence_and_slope(failed, requests, mean)
    while found < log_needed:
        mean /= 2
        found, slope = _log_evidence_and_slope(failed, requests, mean)
    for _ in range(_STEPS):
        step = (log_needed - found) / slope
        mean += step
        if step <= _CONVERGED * mean:
            break
        found, slope = _log_evidence_and_slope(failed, requests, mean)
    return min(mean, rate)


def _log_evidence(failed: int, requests: int, mean: float) -> float:
    """Logarithm of the evidence that the mean rate is above `mean`."""
    logs = [tilt * failed - requests * math.log1p(mean * odds) for tilt, odds in _TILTED]
    largest = max(logs)
    return largest + math.log(sum([math.exp(value - largest) for value in logs]) / len(logs))


def _log_evidence_and_slope(failed: int, requests: int, mean: float) -> tuple[float, float]:
    """That, and by how much it rises with `mean`."""
    logs = [tilt * failed - requests * math.log1p(mean * odds) for tilt, odds in _TILTED]
    largest = max(logs)
    total = weighted = 0.0
    for value, (_, odds) in zip(logs, _TILTED, strict=True):
        part = math.exp(value - largest)
        total += part
        weighted += part * odds / (1.0 + mean * odds)
    return largest + math.log(total / len(logs)), -requests * weighted / total
