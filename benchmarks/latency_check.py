"""How often the latency check is wrong: the same model against itself, and a model that is three times slower.

Run `.venv/bin/python -m benchmarks.latency_check [trials]`. Each trial is what validation does: calls of both sessions
interleaved, then the verdict at the default limit. The bars: the same model fails in at most 1 % of the trials, the
slower one in at least 99 %. The floor is off, so that models of microseconds are judged too. As harder cases the same
timings are also judged at the tightest limit that a policy can set.
"""

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.models import layers, saved
from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.checks.latency import latency
from shared.validation.model import LoadedModel, load
from shared.validation.probes.timing import interleaved

TRIALS = 300
MAX_FALSE_SHARE, MIN_FOUND_SHARE = 0.01, 0.99
_POLICY = ValidationPolicy(latency_floor_ms=0)
_TIGHTEST = ValidationPolicy(latency_floor_ms=0, latency_ratio=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The shares of trials that failed, at the default limit and at the tightest, and the median p99 ratio."""

    failed: float
    failed_at_tightest: float
    ratio: float


def trials(candidate: LoadedModel, champion: LoadedModel, width: int, count: int) -> Found:
    """Judge the same pair `count` times."""
    random = np.random.default_rng(0)
    calls = [{"x": random.normal(size=(1, width)).astype(np.float32)} for _ in range(16)]
    failed = tightest = 0
    ratios = []
    for _ in range(count):
        timed = interleaved(candidate, champion, calls, rows_a_call=1)
        figures, verdict = latency(timed.candidate_ns, timed.champion_ns, rows_a_call=1, policy=_POLICY)
        _, strict = latency(timed.candidate_ns, timed.champion_ns, rows_a_call=1, policy=_TIGHTEST)
        failed += verdict.outcome is Outcome.FAIL
        tightest += strict.outcome is Outcome.FAIL
        ratios.append(figures.quantiles[-1].ratio or 0.0)
    return Found(failed=failed / count, failed_at_tightest=tightest / count, ratio=float(np.median(ratios)))


def main() -> int:
    """Print the table; 1 where a bar is missed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else TRIALS
    print(f"{count} trials each")
    print(f"{'model':22} {'against':14} {'p99 ratio':>9} {'fails':>7} {'at limit 1':>10}")
    missed = False
    with tempfile.TemporaryDirectory() as scratch:
        for width, depth in ((256, 4), (512, 8)):
            base, slower = layers(width, depth), layers(width, 3 * depth)
            champion = _loaded(base, Path(scratch))
            for what, candidate in (
                ("itself", _loaded(base, Path(scratch))),
                ("three times", _loaded(slower, Path(scratch))),
            ):
                found = trials(candidate, champion, width, count)
                missed |= found.failed > MAX_FALSE_SHARE if what == "itself" else found.failed < MIN_FOUND_SHARE
                missed |= what == "itself" and found.failed_at_tightest > MAX_FALSE_SHARE
                name = f"{depth} layers of {width}"
                print(f"{name:22} {what:14} {found.ratio:9.2f} {found.failed:7.1%} {found.failed_at_tightest:10.1%}")
    return int(missed)


def _loaded(model: onnx.ModelProto, folder: Path) -> LoadedModel:
    return load(saved(model, folder).path)


if __name__ == "__main__":
    sys.exit(main())
