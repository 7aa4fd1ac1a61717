"""A test of two error rates that may be looked at as often as one likes: candidate against concurrent stable.

It bets against a null, block after block of requests (shared.sequential.evariable). Under the null the stake grows in
the mean by no block, so the chance that it ever reaches 1/level is at most the level (Ville 1939), whenever and however
often it is looked at, and whatever it is stopped by. With no approximation, from the first request on, also where
nothing fails or everything does.

The stake is spread over alternatives: fixed ones, from a candidate that fails everything to rates of one in 100,000,
and ones about the rates that earlier blocks showed (Turner, Ly and Grünwald 2024, section 3). Half of it is kept back
at first and invested over the later blocks, so that a candidate that turns bad after a million good requests is found
too (a mixture over the time of the change: Shin, Ramdas and Rinaldo 2024, "E-detectors").

Who forms the blocks must not do so by the outcomes: by time, by sizes, by which windows had come. A block should be
short beside the time over which both rates move together. The test keeps a few dozen numbers and no request.
"""

import math
from enum import StrEnum
from typing import Self

from shared.core.contracts import Contract, Count, Finite
from shared.core.errors import InvalidInputError
from shared.sequential.evariable import Block, Counts, log_factor

_LEVELS = (1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.95)
_LOG_ODDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)
"""Effects beyond the null's edge, at the second arm's rate as earlier blocks showed it."""
_LEAST_RATE = 1e-7
_PRIOR_FAILED, _PRIOR_REQUESTS = 0.2, 20.0
"""What an arm is taken to have shown before its first block."""
_MEMORY_REQUESTS = 1_000_000.0
"""Remembered requests at which older ones begin to be forgotten, by halves."""


class Claim(StrEnum):
    """What a test may prove. The null is the claim's opposite."""

    WORSE = "worse"
    """The candidate's error rate exceeds stable's by more than the margin."""
    NOT_WORSE = "not_worse"
    """It does not."""


class ExcessState(Contract, frozen=True, kw_only=True):
    """A test between two blocks, as it is stored. Logarithms are natural."""

    schema_version: int = 1
    claim: Claim
    margin: Finite
    blocks: Count
    log_stakes: tuple[Finite, ...]
    log_peak: Finite
    remembered: tuple[Finite, Finite, Finite, Finite]
    pending: tuple[Count, Count, Count, Count]
    total: tuple[Count, Count, Count, Count]


class ExcessTest:
    """The running test of one claim. Give it blocks; it says how strong the proof is."""

    __slots__ = (
        "_blocks",
        "_fixed",
        "_log_peak",
        "_log_share",
        "_log_stakes",
        "_pending",
        "_remembered",
        "_total",
        "claim",
        "margin",
    )

    def __init__(self, *, claim: Claim, margin: float) -> None:
        """0 <= margin < 1. Raises InvalidInputError."""
        if not 0 <= margin < 1:
            raise InvalidInputError(f"margin is {margin}: it must be at least 0 and below 1")
        self.claim = claim
        self.margin = margin
        edge = self._edge
        self._fixed = tuple((p1, p2) for p2 in _LEVELS for p1 in _LEVELS if p1 - p2 > edge)
        count = len(self._fixed) + len(_LOG_ODDS) + 1
        self._log_share = -math.log(count)
        self._log_stakes = [math.log(0.5) + self._log_share] * count
        self._blocks = 0
        self._log_peak = 0.0
        self._remembered = (0.0, 0.0, 0.0, 0.0)
        self._pending: Counts = (0, 0, 0, 0)
        self._total: Counts = (0, 0, 0, 0)

    @classmethod
    def of(cls, state: ExcessState) -> Self:
        """Go on from a stored state. Raises InvalidInputError where other code wrote it, which bets otherwise."""
        test = cls(claim=state.claim, margin=state.margin)
        if state.schema_version != 1 or len(state.log_stakes) != len(test._log_stakes):
            raise InvalidInputError(
                f"a state of version {state.schema_version} with {len(state.log_stakes)} stakes was found, version 1 "
                f"with {len(test._log_stakes)} is wanted: start the test anew from its blocks"
            )
        test._log_stakes = list(state.log_stakes)
        test._blocks, test._log_peak, test._remembered = state.blocks, state.log_peak, state.remembered
        test._pending, test._total = state.pending, state.total
        return test

    @property
    def state(self) -> ExcessState:
        """The test as it is now."""
        return ExcessState(
            claim=self.claim,
            margin=self.margin,
            blocks=self._blocks,
            log_stakes=tuple(self._log_stakes),
            log_peak=self._log_peak,
            remembered=self._remembered,
            pending=self._pending,
            total=self._total,
        )

    @property
    def total(self) -> Block:
        """Every request that was added."""
        return self._block(self._total)

    @property
    def log_evidence(self) -> float:
        """Logarithm of the stake as it stands now, of which 1 was staked."""
        log_kept = math.log(0.5 / math.log2(self._blocks + 2))
        largest = max(log_kept, *self._log_stakes)
        total = math.fsum(math.exp(stake - largest) for stake in (log_kept, *self._log_stakes))
        return largest + math.log(total)

    @property
    def p_value(self) -> float:
        """At most this is the chance, under the null, of a proof as strong at any time: valid at any look."""
        return math.exp(-self._log_peak)

    def proves(self, level: float) -> bool:
        """Whether the claim was proven, now or at an earlier look."""
        return self._log_peak >= -math.log(level)

    def add(self, block: Block) -> None:
        """Take a block. One that lacks an arm waits for the next."""
        counts = self._counts(block)
        self._total = _sum(self._total, counts)
        counts = self._pending = _sum(self._pending, counts)
        if not counts[0] or not counts[2]:
            return
        self._pending = (0, 0, 0, 0)
        edge, stakes = self._edge, self._log_stakes
        self._blocks += 1
        for place, (p1, p2) in enumerate([*self._fixed, *self._learned()]):
            stakes[place] += log_factor(counts, p1, p2, edge)
        self._remember(counts)
        self._invest()
        self._log_peak = max(self._log_peak, self.log_evidence)

    @property
    def _edge(self) -> float:
        return self.margin if self.claim is Claim.WORSE else -self.margin

    def _learned(self) -> list[tuple[float, float]]:
        """Alternatives about what earlier blocks showed."""
        n1, failed1, n2, failed2 = self._remembered
        p1, p2 = _rate(n1, failed1), _rate(n2, failed2)
        odds = _odds(p2 + self._edge)
        return [(p1, p2), *((_within(1 / (1 + math.exp(-d) / odds)), p2) for d in _LOG_ODDS)]

    def _remember(self, counts: Counts) -> None:
        n1, failed1, n2, failed2 = (old + new for old, new in zip(self._remembered, counts, strict=True))
        if n1 + n2 > _MEMORY_REQUESTS:
            n1, failed1, n2, failed2 = n1 / 2, failed1 / 2, n2 / 2, failed2 / 2
        self._remembered = (n1, failed1, n2, failed2)

    def _invest(self) -> None:
        """Stake a little of what is kept back, for the blocks to come: after b blocks 1 / (2 log2(b + 2)) is left."""
        share = 0.5 / math.log2(self._blocks + 1) - 0.5 / math.log2(self._blocks + 2)
        log_each = math.log(share) + self._log_share
        self._log_stakes = [_log_sum(stake, log_each) for stake in self._log_stakes]

    def _counts(self, block: Block) -> Counts:
        candidate, stable = (block.candidate, block.candidate_failed), (block.stable, block.stable_failed)
        return (*candidate, *stable) if self.claim is Claim.WORSE else (*stable, *candidate)

    def _block(self, counts: Counts) -> Block:
        first, second = counts[:2], counts[2:]
        candidate, stable = (first, second) if self.claim is Claim.WORSE else (second, first)
        return Block(candidate=candidate[0], candidate_failed=candidate[1], stable=stable[0], stable_failed=stable[1])


def _sum(one: Counts, other: Counts) -> Counts:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


def _log_sum(one: float, other: float) -> float:
    low, high = (one, other) if one < other else (other, one)
    return high + math.log1p(math.exp(low - high))


def _rate(requests: float, failed: float) -> float:
    return _within((failed + _PRIOR_FAILED) / (requests + _PRIOR_REQUESTS))


def _within(rate: float) -> float:
    return min(max(rate, _LEAST_RATE), 1 - _LEAST_RATE)


def _odds(rate: float) -> float:
    rate = _within(rate)
    return rate / (1 - rate)
