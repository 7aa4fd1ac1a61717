"""The gate over feedback: how often it ends rollouts of equal versions, and how much feedback a worse one takes.

Run `.venv/bin/python -m benchmarks.gates_feedback [ROLLOUTS]`; 2,000 rollouts of equal versions by default, in six
settings. Each has two stages, at 10 and 50 % of the users, 40 looks; feedback comes late, by an exponential delay whose
mean is five ticks, so that most of it comes under another plan, or while the candidate is watched. In a season the mean
of both falls over the rollout. Rows are taken in and judged by shared.rollout.feedback, as a tick does. Beside it the
same test on the same feedback where it is summed by the tick that it comes in, whatever plan its prediction was made
under.

Then, at one share, how much feedback on the candidate it takes until a mean that is a tenth lower is proven. Exits 1
where more equal versions are proven worse than the level says.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from benchmarks.gates import CHANCE, LEVEL
from shared.core.verdict import Outcome
from shared.registry.rollout_policy import FeedbackGate, Gates, RolloutPolicy, Stage
from shared.rollout.documents import Rollout, Target
from shared.rollout.feedback import fed, feedback_verdicts
from shared.rollout.machine import RolloutState
from shared.rollout.progress import FeedbackRow, Progress
from shared.sequential.evariable import Block
from shared.sequential.excess import Claim, ExcessTest
from shared.validation.statistics.intervals import wilson

ROLLOUTS = 2_000
WORSE_ROLLOUTS = 100
LOOKS = 40
SWITCH_AT, WATCH_AT = 12, 28
DELAY_TICKS = 5.0
STABLE, CANDIDATE = 1, 2
_ROLES = {STABLE: "stable", CANDIDATE: "candidate"}
MEANS = (0.05, 0.30, 0.60)
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SHARES = {1: 1_000, 2: 5_000, 3: 10_000}
"""By generation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Rollouts of equal versions whose feedback has this mean, at first."""

    mean: float
    is_seasonal: bool


def rollout(stages: tuple[Stage, ...]) -> Rollout:
    """A rollout under the gate, in its first stage."""
    targets = [
        Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)
        for version in (STABLE, CANDIDATE)
    ]
    return Rollout(
        rollout_id="r",
        command_id="c",
        stable=targets[0],
        candidate=targets[1],
        policy=RolloutPolicy(stages=stages, gates=Gates(feedback=FeedbackGate())),
        state=RolloutState.PROGRESSING,
        stage=0,
        started_at=_NOW,
        published_at=_NOW,
        next_tick_at=_NOW,
        requested_by="benchmark",
    )


def ticks(setting: Setting, draw: np.random.Generator) -> Iterator[tuple[int, list[FeedbackRow]]]:
    """The generation in force and what comes of feedback, tick by tick."""
    load = 10 ** draw.uniform(1, 3.5)
    owed: dict[int, dict[tuple[int, int], Block]] = {}
    for look in range(LOOKS):
        generation = 1 if look < SWITCH_AT else 2 if look < WATCH_AT else 3
        mean = setting.mean * (1 - look / LOOKS * setting.is_seasonal * 0.8)
        made = draw.poisson(load)
        candidate = draw.binomial(made, _SHARES[generation] / 10_000)
        for version, count in ((CANDIDATE, candidate), (STABLE, made - candidate)):
            later = np.bincount(draw.exponential(DELAY_TICKS, count).astype(np.int64), minlength=1)
            for delay, (n, bad) in enumerate(zip(later.tolist(), draw.binomial(later, 1 - mean).tolist(), strict=True)):
                if n and look + delay < LOOKS:
                    due = owed.setdefault(look + delay, {})
                    block = Block(candidate=n, candidate_failed=bad)
                    due[generation, version] = due.get((generation, version), Block()) + block
        yield generation, [_row(*key, block) for key, block in owed.pop(look, {}).items()]


def proven(setting: Setting, seed: int, found: Rollout) -> tuple[bool, bool]:
    """Whether a candidate that is equal is proven worse at some look: by plan, and by sums over plans."""
    progress, by_sums = Progress(), ExcessTest(claim=Claim.WORSE, margin=0.0)
    for generation, rows in ticks(setting, np.random.default_rng([17, seed, round(setting.mean * 100)])):
        progress = fed(found, progress.model_copy(update={"generation": generation, "feedback_block": tuple(rows)}))
        by_sums.add(sum(map(_block, rows), Block()))
    found.progress = progress
    (judged,) = feedback_verdicts(found, is_concurrent=True)
    return judged.verdict.outcome is Outcome.FAIL, by_sums.proves(LEVEL / 3)


def needed(mean: float, seed: int, *, each: int, share: float) -> int:
    """How much feedback on a candidate whose mean is a tenth lower it takes until that is proven."""
    draw, found, progress = np.random.default_rng([23, seed, round(mean * 100)]), rollout((_stage(1_000),)), Progress()
    while True:
        rows = []
        for version, at, n in ((CANDIDATE, 0.9 * mean, each), (STABLE, mean, round(each * (1 - share) / share))):
            rows.append(_row(1, version, Block(candidate=n, candidate_failed=int(draw.binomial(n, 1 - at)))))
        progress = fed(found, progress.model_copy(update={"generation": 1, "feedback_block": tuple(rows)}))
        found.progress = progress
        (judged,) = feedback_verdicts(found, is_concurrent=True)
        if judged.is_proof:
            (state,) = progress.tests.values()
            return state.total[0]


def _row(generation: int, version: int, came: Block) -> FeedbackRow:
    role, good = _ROLES[version], came.candidate - came.candidate_failed
    return FeedbackRow(generation=generation, version=version, role=role, count=came.candidate, good=good)


def _block(row: FeedbackRow) -> Block:
    bad = row.count - row.good
    if row.version == CANDIDATE:
        return Block(candidate=row.count, candidate_failed=bad)
    return Block(stable=row.count, stable_failed=bad)


def _stage(weight_bp: int) -> Stage:
    return Stage(weight_bp=weight_bp, duration_s=60)


def main() -> int:
    """Print the tables; 0 where the level is kept, but for chance."""
    from scipy import stats  # noqa: PLC0415

    rollouts = int(sys.argv[1]) if len(sys.argv) > 1 else ROLLOUTS
    each = rollouts // (2 * len(MEANS))
    found, held, total, total_sums = rollout((_stage(1_000), _stage(5_000))), True, 0, 0
    print(
        f"equal versions, {each} rollouts a setting, {LOOKS} looks, level {LEVEL / 3:.2%}: % proven worse at some look"
    )
    for mean in MEANS:
        for is_seasonal in (False, True):
            setting = Setting(mean=mean, is_seasonal=is_seasonal)
            ends = [proven(setting, seed, found) for seed in range(each)]
            by_plan, by_sums = (sum(end[place] for end in ends) for place in (0, 1))
            held &= bool(by_plan <= stats.binom.ppf(1 - CHANCE, each, LEVEL / 3))
            total, total_sums = total + by_plan, total_sums + by_sums
            low, high = wilson(by_plan, each)
            print(
                f"mean {mean:.0%}{', falling by up to 80 %' if is_seasonal else '':<23} | {by_plan / each:.2%} "
                f"({low:.2%} to {high:.2%}); by sums over plans {by_sums / each:.2%}",
                flush=True,
            )
    print(f"all {2 * len(MEANS) * each}: {total} by plan, {total_sums} by sums over plans")
    print(f"a candidate whose mean is a tenth lower, {WORSE_ROLLOUTS} rollouts: feedback on it until that is proven")
    for mean, tick in zip(MEANS, (2_000, 200, 50), strict=True):
        took = np.array([needed(mean, seed, each=tick, share=0.1) for seed in range(WORSE_ROLLOUTS)])
        print(f"mean {mean:.0%} | median {np.median(took):,.0f}, 90 % {np.quantile(took, 0.9):,.0f}", flush=True)
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
