"""An e-variable for two groups of yes-or-no outcomes: the factor by which a bet against a null multiplies its stake.

The outcomes are failures of requests; `first` and `second` are the arms. The null says that over a block of requests
the first arm's mean rate of failure is at most the second's plus a margin. For a block of n1 and n2 requests and an
alternative (p1, p2) outside the null, the factor is the likelihood of the block under the alternative over that under
(q1, q2), the null's point nearest to the alternative in the sense of n1 KL(p1|q1) + n2 KL(p2|q2) (Turner, Ly and
Grünwald 2024, "Generic E-variables for exact sequential k-sample tests that allow for optional stopping", J. Stat.
Plan. Inference 230, theorem 1; for convex nulls, Turner and Grünwald 2023, "Exact anytime-valid confidence intervals
for contingency tables and beyond", Stat. Probab. Lett. 198).

Its mean under the null is at most 1, exactly, for sizes however small, unequal or random. One request of the first arm
with rate r multiplies by A(r) = r p1/q1 + (1-r)(1-p1)/(1-q1) in the mean, one of the second by B(r) likewise. Both are
linear in r, and a product is at most the power of the mean: the block's mean is at most ((n1 A(r1) + n2 B(r2)) / n)^n,
n = n1 + n2, where r1 and r2 are the *mean* rates of the arms. So the rates may differ from request to request and drift
within the block and between blocks; only the means of a block are bound by the null. That n1 A + n2 B is at most n over
the null is what being nearest means; where (q1, q2) is found by iteration, the factor is divided by the power of the
largest mean over the null's corners, so that rounding costs power and never validity.

What it takes for granted: given the past, the outcomes of a block are independent of one another and of its sizes.
"""

import math
from dataclasses import dataclass

_CONVERGED = 1e-9
"""A step of Newton's method below this share leaves an error of about its square."""
_STEPS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Requests of the candidate and of stable over the same time, and how many of each failed."""

    candidate: int = 0
    candidate_failed: int = 0
    stable: int = 0
    stable_failed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError where the counts contradict each other."""
        for name, failed, requests in (
            ("candidate", self.candidate_failed, self.candidate),
            ("stable", self.stable_failed, self.stable),
        ):
            if not 0 <= failed <= requests:
                raise ValueError(f"{name}: {failed} of {requests} requests failed: give 0 <= failed <= requests")

    def __add__(self, other: "Block") -> "Block":
        return Block(
            candidate=self.candidate + other.candidate,
            candidate_failed=self.candidate_failed + other.candidate_failed,
            stable=self.stable + other.stable,
            stable_failed=self.stable_failed + other.stable_failed,
        )

    @property
    def has_both(self) -> bool:
        """Whether the arms can be compared."""
        return self.candidate > 0 and self.stable > 0


type Counts = tuple[int, int, int, int]
"""Requests and failures of the first arm, requests and failures of the second."""


def log_factor(counts: Counts, p1: float, p2: float, margin: float) -> float:
    """Logarithm of the factor. Both arms have requests, 0 < p1, p2 < 1, -1 < margin < 1.

    0 where the alternative lies in the null, or no number tells it from the null: nothing is staked.
    """
    n1, _, n2, _ = counts
    if p1 - p2 <= margin:
        return 0.0
    if margin == 0.0:
        # The nearest point has a closed form, which is rounded like the others'.
        q = (n1 * p1 + n2 * p2) / (n1 + n2)
        return log_factor_against(counts, (p1, q), (p2, q), margin)
    q = nearest(n1, n2, p1, p2, margin)
    if not (0.0 < q < 1.0 and 0.0 < q + margin < 1.0):
        return 0.0
    return log_factor_against(counts, (p1, q + margin), (p2, q), margin)


def log_factor_against(counts: Counts, first: tuple[float, float], second: tuple[float, float], margin: float) -> float:
    """Logarithm of a factor whose mean is at most 1 against whichever point: `first` is (p1, q1), `second` (p2, q2)."""
    n1, _, n2, _ = counts
    return _log_ratios(counts, first, second) - (n1 + n2) * _log_largest_mean(n1, n2, first, second, margin)


def nearest(n1: int, n2: int, p1: float, p2: float, margin: float) -> float:
    """The second rate of the null's point nearest to an alternative outside it: the first is that plus the margin.

    The root of n1 (q + margin - p1) v(q) + n2 (q - p2) v(q + margin), v(x) = x (1 - x), between max(p2, -margin) and
    min(p1 - margin, 1): by Newton's method, halving the bracket where a step leaves it.
    """
    w1, w2 = n1 / (n1 + n2), n2 / (n1 + n2)
    low, high = max(p2, -margin), min(p1 - margin, 1.0)
    q = w1 * (p1 - margin) + w2 * p2
    if not low < q < high:
        q = (low + high) / 2
    for _ in range(_STEPS):
        first = q + margin
        v1, v2, off1, off2 = first * (1.0 - first), q * (1.0 - q), w1 * (first - p1), w2 * (q - p2)
        value = off1 * v2 + off2 * v1
        if value > 0.0:
            high = q
        else:
            low = q
        slope = w1 * v2 + off1 * (1.0 - 2.0 * q) + w2 * v1 + off2 * (1.0 - 2.0 * first)
        step = q - value / slope if slope > 0.0 else low
        if not low < step < high:
            step = (low + high) / 2
        elif abs(step - q) <= _CONVERGED * q:
            return step
        q = step
    return q


def _log_ratios(counts: Counts, first: tuple[float, float], second: tuple[float, float]) -> float:
    n1, failed1, n2, failed2 = counts
    return _log_ratio(n1, failed1, *first) + _log_ratio(n2, failed2, *second)


def _log_ratio(n: int, failed: int, p: float, q: float) -> float:
    found = (n - failed) * (math.log1p(-p) - math.log1p(-q))
    return found + failed * math.log(p / q) if failed else found


def _log_largest_mean(
    n1: int, n2: int, first: tuple[float, float], second: tuple[float, float], margin: float
) -> float:
    """Logarithm of the largest (n1 A(r1) + n2 B(r2)) / n over the null: it is linear, so a corner has it."""
    (p1, q1), (p2, q2) = first, second
    none1, all1, none2, all2 = (1 - p1) / (1 - q1), p1 / q1, (1 - p2) / (1 - q2), p2 / q2
    edge = max(0.0, -margin)
    corners = [(0.0, edge), (max(0.0, margin), edge), (min(1.0, 1.0 + margin), min(1.0, 1.0 - margin)), (0.0, 1.0)]
    corners.append((min(1.0, 1.0 + margin), 1.0))
    largest = max(n1 * (none1 + r1 * (all1 - none1)) + n2 * (none2 + r2 * (all2 - none2)) for r1, r2 in corners)
    return math.log(largest / (n1 + n2))
