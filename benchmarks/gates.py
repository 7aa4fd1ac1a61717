"""How often the gates take back a candidate that is no worse, and how soon one that is.

Run `.venv/bin/python -m benchmarks.gates [ROLLOUTS]`; 10,000 by default, one process. Each is a rollout as ticks make
it: windows taken in, decided, carried out, with every default gate and trigger.

A rollout of equal versions depends on its setting and its number alone, so that runs of other settings or numbers add
up to what one run tells. A run that was cut short is completed by those that it lacks:

    .venv/bin/python -m benchmarks.gates --equal-only --list
    .venv/bin/python -m benchmarks.gates --equal-only --first 118 --setting "1.0% errors" --setting "5.0% errors"

First equal versions, looked at on every tick, 40 times: over error rates, shares, loads from 10 to 10,000 requests a
tick, and with a season in which both err and slow down. A share of false aborts above 5 % by more than chance explains
(one in 100,000), in any setting, exits 1.

Then, against a stable that fails one request in 1,000 and whose p99 is 192 ms, the candidate's requests until it is
taken back. Beside it, on the same requests, what Argo Rollouts and Flagger do: a fixed threshold on what one check
counted, and a rollback after three failed checks in a row. The peer's threshold is the lowest that keeps false aborts
over 40 ticks at 5 %, tuned on equal versions; its check is as long as serves it best against that very candidate. The
season is put before the peer too.
"""

import argparse
import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from shared.registry.rollout_policy import Gates, Otherwise, RolloutPolicy, Stage
from shared.rollout import ticks
from shared.rollout.decide import decide
from shared.rollout.documents import Rollout, Target
from shared.rollout.endpoint import Endpoint
from shared.rollout.machine import RolloutState
from shared.routing.plan import FULL_WEIGHT_BP
from shared.telemetry.histogram import GAMMA, bucket_index, quantile
from shared.telemetry.window import VersionCounts, Window, merge_counts
from shared.validation.statistics.intervals import wilson

ROLLOUTS, LOOKS, LEVEL, CHANCE = 10_000, 40, 0.05, 1e-5
RATES, SHARES = (0.0, 0.001, 0.01, 0.05), (1_000, 5_000)
DECADES = 3
"""Of requests a tick, from ten on."""
TICK_S = 30.0
MEDIAN_MS, SIGMA = 60.0, 0.5
STABLE, CANDIDATE = 1, 2
POWER_ROLLOUTS, POWER_LOAD, PEER_ROLLOUTS, MOST_LOOKS = 200, 1_000, 1_000, 600
CHECK_TICKS = (1, 2, 3, 5, 8, 12)
_START = datetime(2026, 1, 1, tzinfo=UTC)
_FIRST_BUCKET = bucket_index(4.0)
_EDGES_MS: "Floats" = np.float64(GAMMA) ** np.arange(_FIRST_BUCKET, bucket_index(4_000.0) + 1)
_LABELS = np.array([0.3, 0.2, 0.15, 0.1, 0.08, 0.07, 0.05, 0.03, 0.01, 0.01])

type Floats = NDArray[np.float64]
type Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """How a version answers."""

    error_rate: float
    slower: float = 1.0
    """By how much every answer is slower."""
    tail_slower: float = 1.0
    """By how much the slowest 2 % of the answers are slower still."""

    def latencies(self) -> Floats:
        """The chance of each bucket of latency: lognormal."""
        whole = np.diff(self._below(_EDGES_MS / self.slower, 1.0), prepend=0.0)
        if self.tail_slower > 1.0:
            whole = np.diff(self._below(_EDGES_MS / self.slower, self.tail_slower), prepend=0.0)
        chances: Floats = whole / whole.sum()
        return chances

    @staticmethod
    def _below(edges_ms: Floats, tail: float) -> Floats:
        """The share of answers up to each latency, where those beyond the 98th percentile take `tail` as long."""
        shape = stats.lognorm(SIGMA, scale=MEDIAN_MS)
        border = float(shape.ppf(0.98))
        plain, slowed = shape.cdf(np.minimum(edges_ms, border)), shape.cdf(np.maximum(edges_ms / tail, border))
        below: Floats = plain + slowed - 0.98
        return below


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What both versions answer, tick by tick. In a season both err more and are slower, by the same factors."""

    candidate: Version
    stable: Version
    load: int
    """Requests a tick, in the mean."""
    is_seasonal: bool
    draw: np.random.Generator
    seen: list[VersionCounts] = field(default_factory=list)
    """What was counted of the candidate, tick by tick."""
    _chances: dict[Version, Floats] = field(default_factory=dict)

    def tick(self, look: int, weight_bp: int) -> dict[int, VersionCounts]:
        """What the pods count in one tick."""
        requests = int(self.draw.poisson(self.load))
        asked = int(self.draw.binomial(requests, weight_bp / FULL_WEIGHT_BP))
        # Up to three times the errors, and up to half as slow again.
        height = (1 - np.cos(2 * np.pi * look / 20)) / 2 if self.is_seasonal else 0.0
        self.seen.append(self._counts(self.candidate, asked, float(height)))
        return {
            CANDIDATE: self.seen[-1],
            STABLE: self._counts(self.stable, requests - asked, float(height)),
        }

    def _counts(self, version: Version, requests: int, height: float) -> VersionCounts:
        errors = int(self.draw.binomial(requests, min(1.0, version.error_rate * (1 + 2 * height))))
        if version not in self._chances:
            self._chances[version] = version.latencies()
        answered = self.draw.multinomial(requests - errors, self._chances[version])
        shift = _FIRST_BUCKET + round(np.log1p(height / 2) / np.log(GAMMA))
        held = np.flatnonzero(answered)
        labels = self.draw.multinomial(requests - errors, _LABELS)
        return VersionCounts(
            requests=requests,
            errors=errors,
            latency_ms=dict(zip((held + shift).tolist(), answered[held].tolist(), strict=True)),
            predictions={str(label): int(count) for label, count in enumerate(labels) if count},
        )


class Source(Protocol):
    """Where a rollout's traffic comes from."""

    def tick(self, look: int, weight_bp: int) -> dict[int, VersionCounts]:
        """What the pods count in one tick, by version."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a rollout ended: what took it back, after how many requests of the candidate; or nothing did."""

    looks: int
    requests: int
    failed: str = ""
    """The check that failed."""


def rolled_out(traffic: Source, policy: RolloutPolicy, *, looks: int = LOOKS) -> Ended:
    """Run a rollout through its ticks."""
    endpoint, rollout = _begun(policy)
    now, requests, made = _START, 0, 0
    for look in range(looks):
        if rollout.state.is_over:
            break
        now += timedelta(seconds=TICK_S)
        counts = traffic.tick(look, rollout.weight_bp)
        requests += counts[CANDIDATE].requests
        window = Window(
            endpoint="model",
            pod="pod",
            sequence=look,
            generation=endpoint.generation,
            started_at=now - timedelta(seconds=TICK_S),
            ended_at=now,
            loaded=[STABLE, CANDIDATE],
            versions=counts,
        )
        rollout.progress = ticks.took_in(rollout, [window], endpoint.generation)
        ticks.apply(endpoint, rollout, decide(rollout, now), now)
        endpoint.outbox.clear()
        made = look + 1
    if rollout.state is not RolloutState.ROLLED_BACK:
        return Ended(looks=made, requests=requests)
    failed = next((v.check for v in rollout.verdicts if v.outcome == "fail" and not v.advisory), "no conclusion")
    return Ended(looks=made, requests=requests, failed=failed)


def canary(weight_bp: int, gates: Gates | None = None) -> RolloutPolicy:
    """The default policy, with one stage that lasts for all looks."""
    stage = Stage(weight_bp=weight_bp, duration_s=10 * LOOKS * TICK_S)
    return RolloutPolicy(
        stages=(stage,),
        gates=gates or Gates(),
        tick_s=TICK_S,
        max_stage_s=100 * LOOKS * TICK_S,
        on_inconclusive=Otherwise.HOLD,
    )


def staged() -> RolloutPolicy:
    """The default policy: 10 % for 10 ticks, 50 % for 20, then all traffic for 10; more where evidence is thin."""
    return RolloutPolicy(tick_s=TICK_S, on_inconclusive=Otherwise.HOLD)


def _begun(policy: RolloutPolicy) -> tuple[Endpoint, Rollout]:
    """A rollout at the beginning of its first stage."""
    rollout = Rollout(
        rollout_id="rollout",
        command_id="command",
        candidate=_target(CANDIDATE),
        stable=_target(STABLE),
        policy=policy,
        state=RolloutState.PROGRESSING,
        stage=0,
        started_at=_START,
        published_at=_START,
        next_tick_at=_START,
        requested_by="benchmark",
    )
    endpoint = Endpoint(endpoint="model", stable=_target(STABLE), rollout=rollout, generation=1)
    assert endpoint.rollout is not None  # noqa: S101 - it was just given
    return endpoint, endpoint.rollout


def _target(version: int) -> Target:
    return Target(version=version, artifact_digest="a" * 64, size_bytes=1, golden_digest=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Rollouts of equal versions."""

    name: str
    rate: float
    policy: RolloutPolicy
    is_seasonal: bool


def settings() -> Iterator[Setting]:
    """Those that are simulated, equally often."""
    policies = [(f"{share / 100:.0f} %", canary(share)) for share in SHARES] + [("10, 50, 100 %", staged())]
    for rate in RATES:
        for share, policy in policies:
            for is_seasonal in (False, True):
                name = f"{rate:>6.1%} errors, share {share:>13}{', a season in both' if is_seasonal else ''}"
                yield Setting(name=name, rate=rate, policy=policy, is_seasonal=is_seasonal)


def equal(setting: Setting, seed: int) -> Ended:
    """A rollout of a version that is like stable."""
    draw = np.random.default_rng([seed, *setting.name.encode()])
    version = Version(error_rate=setting.rate)
    # The decades of the load take turns.
    load = round(10 ** (1 + seed % DECADES + draw.uniform()))
    traffic = Traffic(candidate=version, stable=version, load=load, is_seasonal=setting.is_seasonal, draw=draw)
    return rolled_out(traffic, setting.policy)


def _calibration(found: Sequence[Setting], numbers: range) -> bool:
    ended = dict[tuple[str, int], str]()
    done = numbers[:0]
    # Setting by setting in turn, so that a run that is cut short has looked at all of them alike.
    with contextlib.suppress(KeyboardInterrupt):
        for number in numbers:
            ended |= {(setting.name, number): equal(setting, number).failed for setting in found}
            done = range(numbers.start, number + 1)
            _progress(len(done), len(found))
    if not done:
        return False
    each = len(done)
    print(f"equal versions, {each} rollouts a setting, up to {LOOKS} looks: % taken back (95 % Wilson interval)")
    print(f"numbers {done.start} to {done.stop - 1} of each")
    failed = {key: check for key, check in ended.items() if check}
    limit = stats.binom.ppf(1 - CHANCE, each, LEVEL)
    held = True
    for setting in found:
        checks = Counter(check for (name, _), check in failed.items() if name == setting.name)
        held &= bool(checks.total() <= limit)
        _tell(setting.name, checks.total(), each, checks)
    for decade in range(DECADES):
        false = sum(seed % DECADES == decade for _, seed in failed)
        looked_at = len(found) * sum(number % DECADES == decade for number in done)
        if not looked_at:
            continue
        _tell(f"{10 ** (1 + decade):,} to {10 ** (2 + decade):,} requests a tick", false, looked_at)
    _tell("all", len(failed), each * len(found), Counter(failed.values()))
    return held


def _progress(done: int, settings_of_each: int) -> None:
    if done % 10 == 0:
        print(f"{done * settings_of_each} rollouts", file=sys.stderr, flush=True)


def _tell(name: str, false: int, rollouts: int, checks: Mapping[str, int] | None = None) -> None:
    low, high = wilson(false, rollouts)
    said = ", ".join(f"{check} {count}" for check, count in (checks or {}).items())
    print(f"{name:<52} | {false / rollouts:>6.2%} of {rollouts} ({low:.2%} to {high:.2%})  {said}", flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worse:
    """A candidate that is worse, and what a threshold would have to be on."""

    name: str
    candidate: Version
    is_latency: bool = False
    slow_ms: float = 200.0


GOOD = Version(error_rate=0.001)
WORSE = (
    *(Worse(name=f"fails {rate:.0%}", candidate=Version(error_rate=rate)) for rate in (0.01, 0.02, 0.03, 0.05)),
    Worse(name="is twice as slow", candidate=Version(error_rate=0.001, slower=2.0), is_latency=True),
    Worse(name="p99 twice as slow", candidate=Version(error_rate=0.001, tail_slower=2.0), is_latency=True),
    Worse(
        name="same, slow_ms 300",
        candidate=Version(error_rate=0.001, tail_slower=2.0),
        is_latency=True,
        slow_ms=300.0,
    ),
)


def _ticks(candidate: Version, seed: int, *, is_seasonal: bool = False) -> Traffic:
    draw = np.random.default_rng([17, seed])
    return Traffic(candidate=candidate, stable=GOOD, load=POWER_LOAD, is_seasonal=is_seasonal, draw=draw)


def _checked(seen: Sequence[VersionCounts], ticks_each: int, *, is_latency: bool) -> Floats:
    """What a check sees of the candidate: its error rate, or its p99."""
    checks = [merge_counts(list(seen[i : i + ticks_each])) for i in range(0, len(seen) - ticks_each + 1, ticks_each)]
    if is_latency:
        return np.array([quantile(check.latency_ms, 0.99) or 0.0 for check in checks])
    return np.array([check.errors / check.requests if check.requests else 0.0 for check in checks])


def _three_in_a_row(values: Floats) -> Floats:
    """For each check from the third on, the threshold below which it is the third in a row to fail."""
    return np.minimum(np.minimum(values[:-2], values[1:-1]), values[2:])


def _thresholds() -> dict[tuple[bool, int], float]:
    """The peer's, by whether it is on p99, and by the ticks of a check: tuned on equal versions."""
    highest = _highest(PEER_ROLLOUTS, is_seasonal=False)
    return {key: float(np.quantile(found, 1 - LEVEL, method="higher")) for key, found in highest.items()}


def _highest(rollouts: int, *, is_seasonal: bool) -> dict[tuple[bool, int], list[float]]:
    """Of each rollout of equal versions the threshold below which it is taken back."""
    highest: dict[tuple[bool, int], list[float]] = {}
    for seed in range(rollouts):
        traffic = _ticks(GOOD, 1_000_000 + seed, is_seasonal=is_seasonal)
        for look in range(LOOKS):
            traffic.tick(look, SHARES[0])
        for is_latency in (False, True):
            for each in CHECK_TICKS:
                values = _three_in_a_row(_checked(traffic.seen, each, is_latency=is_latency))
                highest.setdefault((is_latency, each), []).append(float(values.max()))
    return highest


def _season(thresholds: Mapping[tuple[bool, int], float]) -> None:
    print(f"\nequal versions, a season in both: % that the tuned threshold takes back, of {POWER_ROLLOUTS}")
    for (is_latency, each), found in _highest(POWER_ROLLOUTS, is_seasonal=True).items():
        taken = np.mean(np.array(found) > thresholds[is_latency, each])
        print(f"  {'p99' if is_latency else 'error rate'}, checks of {each:>2} ticks: {taken:.1%}", flush=True)


def _peer_requests(traffic: Traffic, threshold: float, each: int, *, is_latency: bool) -> int:
    """The candidate's requests until the third failed check in a row; more traffic is drawn as it is needed."""
    while True:
        failed = np.flatnonzero(_three_in_a_row(_checked(traffic.seen, each, is_latency=is_latency)) > threshold)
        if len(failed) or len(traffic.seen) >= MOST_LOOKS:
            last = (int(failed[0]) + 3) * each if len(failed) else MOST_LOOKS
            return sum(counts.requests for counts in traffic.seen[:last])
        for look in range(3 * each):
            traffic.tick(look, SHARES[0])


def _power(thresholds: Mapping[tuple[bool, int], float]) -> None:
    print(
        f"\nrequests of the candidate until it is taken back; {POWER_ROLLOUTS} rollouts each, share 10 %, "
        f"{POWER_LOAD} requests a tick\n"
        "the candidate      | gates: median    90 %  missed | three failed checks: median    90 %  (check)"
        " | ratio of medians (95 %)"
    )
    for worse in WORSE:
        ours, missed = [], 0
        peers: dict[int, list[int]] = {each: [] for each in CHECK_TICKS}
        for seed in range(POWER_ROLLOUTS):
            traffic = _ticks(worse.candidate, seed)
            end = rolled_out(traffic, canary(SHARES[0], Gates(slow_ms=worse.slow_ms)), looks=MOST_LOOKS)
            ours.append(end.requests)
            missed += not end.failed
            while len(traffic.seen) < LOOKS:
                traffic.tick(len(traffic.seen), SHARES[0])
            for each, found in peers.items():
                limit = thresholds[worse.is_latency, each]
                found.append(_peer_requests(traffic, limit, each, is_latency=worse.is_latency))
        best = min(peers, key=lambda each: float(np.median(peers[each])))
        ratio = np.median(peers[best]) / np.median(ours)
        low, high = _spread(np.array(peers[best]), np.array(ours))
        print(
            f"{worse.name:<18} | {np.median(ours):>13.0f} {np.quantile(ours, 0.9):>7.0f} {missed:>7} |"
            f" {np.median(peers[best]):>27.0f} {np.quantile(peers[best], 0.9):>7.0f}  ({best} ticks) |"
            f" {ratio:>6.2f} ({low:.2f} to {high:.2f})",
            flush=True,
        )


def _spread(peer: NDArray[np.int64], ours: NDArray[np.int64]) -> tuple[float, float]:
    """The 95 % bootstrap interval of the ratio of medians, rollouts being drawn in pairs."""
    draw = np.random.default_rng(23)
    picks = draw.integers(len(ours), size=(2_000, len(ours)))
    ratios = np.median(peer[picks], axis=1) / np.median(ours[picks], axis=1)
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gates", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "rollouts", nargs="?", type=int, default=ROLLOUTS, help="of equal versions, over all settings (10,000)"
    )
    parser.add_argument("--first", type=int, default=0, help="the number of each setting's first rollout (0)")
    parser.add_argument(
        "--setting", action="append", default=[], help="only settings whose name holds this; may be given again"
    )
    parser.add_argument("--equal-only", action="store_true", help="leave out the second part, of worse candidates")
    parser.add_argument("--list", action="store_true", help="name the settings, and run nothing")
    return parser.parse_args()


def _is_wanted(setting: Setting, wanted: Sequence[str]) -> bool:
    return not wanted or any(part in _plain(setting.name) for part in wanted)


def _plain(name: str) -> str:
    return " ".join(name.split())


def main() -> int:
    """Run all; 0 where no equal candidate is taken back more often than the level says."""
    asked = _asked()
    all_of_them = list(settings())
    found = [one for one in all_of_them if _is_wanted(one, asked.setting)]
    if asked.list or not found:
        print("\n".join(_plain(one.name) for one in all_of_them))
        return 0 if found else 2
    started = time.process_time()
    held = _calibration(found, range(asked.first, ceil(asked.rollouts / len(all_of_them))))
    if not asked.equal_only:
        thresholds = _thresholds()
        _power(thresholds)
        _season(thresholds)
    print(f"\n{time.process_time() - started:.0f} s of processor time")
    print("the level holds" if held else "the level does not hold")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
