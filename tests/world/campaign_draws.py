"""What a seed of the campaign draws: a policy, a candidate, what people want, and the faults.

The stages last a few ticks, so that a run takes minutes of the world's time; the most that a stage or a load may take
is far longer than any fault, so that no fault alone ends a rollout. Where the candidate gets no traffic at all the
stage's most is short: that is then the right end.
"""

import random
from dataclasses import dataclass
from enum import StrEnum

from shared.registry.policy import Policy
from shared.registry.rollout_policy import (
    GateMode,
    Gates,
    Otherwise,
    RolloutPolicy,
    Stage,
    Strategy,
    Triggers,
    WhenBusy,
)

CANDIDATE = 2
FAULTS_S = 150
_STORES = ("documents", "blobs", "queues")
_OUTAGES = (("blobs", "queues"), ("documents",), _STORES)
"""What goes down together: a storage account, the document store, or both."""


class Trait(StrEnum):
    """What the candidate is like."""

    HEALTHY = "healthy"
    ERRING = "erring"
    SLOW = "slow"
    DRIFTED = "drifted"
    """Its predictions are other ones."""
    UNLOADABLE = "unloadable"
    QUIET = "quiet"
    """Nobody sends requests."""
    CRASHING = "crashing"
    """It ends the process that runs it for a while, and what that had not told is gone."""


class Regret(StrEnum):
    """What people ask for although the candidate is fine."""

    NONE = "none"
    ABORT = "abort"
    ROLLBACK = "rollback"
    LATER = "later"
    """A rollback once it is promoted."""


class Wish(StrEnum):
    """What people ask for once on the way of a candidate that is fine; it ends as it would have."""

    NONE = "none"
    PAUSE = "pause"
    """And that it goes on, once it is paused."""
    SKIP = "skip"
    SET_WEIGHT = "set-weight"


SET_BP = 1_250
"""The share that people set: no stage's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What is played."""

    seed: int
    policy: Policy
    trait: Trait
    regret: Regret
    wish: Wish
    has_next: bool
    """Whether another version, a healthy one, comes while the candidate rolls out."""
    pods: int
    is_guarded: bool
    """Whether the pods' own guard works."""

    @property
    def rollout(self) -> RolloutPolicy:
        """The policy of its rollouts."""
        return self.policy.rollout

    @property
    def is_promoted_by_hand(self) -> bool:
        """Whether somebody promotes the candidate: nothing else ends a split."""
        is_wanted = self.trait is Trait.HEALTHY and self.regret in {Regret.NONE, Regret.LATER}
        return is_wanted and self.rollout.strategy is Strategy.SPLIT


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What goes wrong, in shares and seconds of the run. Nothing, by default."""

    seed: int
    until_s: int = 0
    killed: float = 0.0
    stalled: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    latest_s: float = 0.0
    outages: tuple[tuple[int, int, tuple[str, ...]], ...] = ()
    silences: tuple[tuple[int, int, int], ...] = ()
    restarts: tuple[tuple[int, int], ...] = ()

    def is_on(self, second: int) -> bool:
        """Whether hosts and messages fare badly at a second."""
        return second < self.until_s

    def is_down(self, part: str, second: int) -> bool:
        """Whether a part of storage does not answer at a second."""
        return any(since <= second < until and part in parts for since, until, parts in self.outages)

    def is_silent(self, pod: int, second: int) -> bool:
        """Whether a pod is cut off at a second."""
        return any(since <= second < until and pod == number for since, until, number in self.silences)


def scenario_of(seed: int) -> Scenario:
    """The scenario of a seed. Each strategy meets each trait of the candidate within 42 seeds."""
    rng = random.Random(f"scenario {seed}")
    strategies, traits = list(Strategy), list(Trait)
    strategy, trait = strategies[seed % len(strategies)], traits[seed // len(strategies) % len(traits)]
    if strategy is Strategy.ROLLING and trait is Trait.CRASHING:
        # It waits where its pods are gone, since no pod of another name gets the candidate: not an end.
        trait = Trait.ERRING
    regret = rng.choice(list(Regret)) if trait is Trait.HEALTHY and rng.random() < 0.5 else Regret.NONE
    return Scenario(
        seed=seed,
        policy=Policy(rollout=_policy(rng, strategy, trait, regret)),
        trait=trait,
        regret=regret,
        wish=_wish(seed) if trait is Trait.HEALTHY and regret is Regret.NONE else Wish.NONE,
        has_next=regret is not Regret.LATER and trait is not Trait.QUIET and rng.random() < 0.3,
        pods=rng.randint(2 if _needs_stable_pods(strategy, trait) else 1, 4),
        is_guarded=rng.random() < 0.5,
    )


def _wish(seed: int) -> Wish:
    return random.Random(f"wish {seed}").choice(list(Wish))


def _needs_stable_pods(strategy: Strategy, trait: Trait) -> bool:
    """Whether the end hangs on pods that are left to stable: without, nothing tells that predictions are other ones."""
    return strategy is Strategy.ROLLING and trait is Trait.DRIFTED


def _policy(rng: random.Random, strategy: Strategy, trait: Trait, regret: Regret) -> RolloutPolicy:
    is_crashing = trait is Trait.CRASHING
    waits_s = 3_000.0 if regret in {Regret.ABORT, Regret.ROLLBACK} or is_crashing else 0.0
    most_bp = 5_000 if _needs_stable_pods(strategy, trait) else 9_500
    weights = sorted(rng.sample(range(500, most_bp + 1, 500), rng.randint(1, 4)))
    stages = tuple(
        Stage(
            weight_bp=weight,
            duration_s=waits_s or rng.choice([5, 10, 20]),
            approval=rng.random() < 0.15,
            min_requests=rng.choice([None, 200]),
        )
        for weight in weights
    )
    margin = rng.choice([0.05, 0.1])
    # Without a stage in which both had traffic there is nothing that predictions could be held against.
    is_blind = strategy in {Strategy.ALL_AT_ONCE, Strategy.BLUE_GREEN}
    return RolloutPolicy(
        strategy=strategy,
        stages=stages,
        preview_s=0 if is_crashing else waits_s or rng.choice([0, 10, 20]),
        shadow_s=waits_s or rng.choice([10, 20]),
        mirror_bp=rng.choice([2_000, 10_000]),
        shadow_then=rng.choice([None, Strategy.CANARY]) if strategy is Strategy.SHADOW else None,
        switch_approval=rng.random() < 0.15,
        watch_s=waits_s if is_crashing or (strategy is Strategy.ALL_AT_ONCE and waits_s) else rng.choice([10, 20, 40]),
        gates=Gates(
            mode=rng.choice(list(GateMode)), error_rate=margin, slow_rate=margin, disagreement=rng.choice([0.1, None])
        ),
        triggers=Triggers(prediction_psi=None) if is_blind else Triggers(),
        tick_s=rng.choice([3, 5, 10]),
        min_requests=rng.choice([20, 100]),
        failure_limit=rng.randint(1, 3),
        max_stage_s=60 if trait is Trait.QUIET else 10_000,
        on_inconclusive=rng.choice(list(Otherwise)),
        on_load_failure=rng.choice(list(Otherwise)),
        load_timeout_s=1_200,
        quorum=rng.choice([0.5, 1.0]),
        max_unavailable=rng.choice([0, 1]),
        when_busy=rng.choice([WhenBusy.REFUSE, WhenBusy.QUEUE]),
    )


def faults_of(seed: int) -> Faults:
    """The faults of a seed: hosts, messages, storage and pods, each more or less."""
    rng = random.Random(f"faults {seed}")

    def share(most: float) -> float:
        return rng.uniform(0, most) if rng.random() < 0.8 else 0.0

    def span(least_s: int, most_s: int) -> tuple[int, int]:
        since = rng.randint(5, FAULTS_S - 60)
        return since, since + rng.randint(least_s, most_s)

    return Faults(
        seed=seed,
        until_s=FAULTS_S,
        killed=share(0.4),
        stalled=share(0.2),
        lost=share(0.2),
        doubled=share(1.0),
        late=share(0.5),
        latest_s=rng.choice([3.0, 30.0]),
        outages=tuple((*span(20, 60), rng.choice(_OUTAGES)) for _ in range(rng.randint(0, 2))),
        silences=tuple((*span(10, 90), rng.randint(0, 3)) for _ in range(rng.randint(0, 2))),
        restarts=tuple((rng.randint(5, FAULTS_S), rng.randint(0, 3)) for _ in range(rng.randint(0, 3))),
    )
