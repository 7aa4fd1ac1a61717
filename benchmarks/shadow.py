"""What a shadow costs the answers: p99 with every request mirrored over p99 with none, in interleaved pairs.

Run `.venv/bin/python -m benchmarks.shadow`. One model server on one core, the load on the other, both ways in the same
process: between two measurements another plan is published, with a shadow that gets all requests or without. The shadow
is the model that answers, so it takes as long. First, at the peak (a closed loop), how many answers a second are left,
and what share of the copies was shed: shadows must be the first to give way. Then an open loop at shares of that peak.
Bar: p99 at most 1.02.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.serving import subjects, workloads, wrk
from benchmarks.serving.machine import Cores
from benchmarks.serving.ratios import Spread
from benchmarks.serving.rounds import Ask, requests_file
from benchmarks.serving.subjects import Subject
from local.system import REPOSITORY
from shared.routing.plan import FULL_WEIGHT_BP, Role, Route, RoutePlan, plan_blob_name
from shared.store.blobs import AzureBlobs
from shared.store.ports import BlobContainer

_CONNECTIONS = 64
_SHADOW = 9


@dataclass(slots=True, kw_only=True)
class _Plans:
    """Publishes the endpoint's plans, with the shadow or without, and has the server take them."""

    subject: Subject
    blobs: AzureBlobs
    generation: int = field(default=1)

    def publish(self, mirror_bp: int) -> None:
        name = self.subject.workload.name
        size = self.subject.workload.path.stat().st_size
        digest = self.subject.workload.digest
        stable = Route(version=1, role=Role.STABLE, weight_bp=FULL_WEIGHT_BP, artifact_digest=digest, size_bytes=size)
        # Loaded either way, so that a change of plan loads nothing.
        shadow = Route(
            version=_SHADOW,
            role=Role.SHADOW,
            weight_bp=0,
            mirror_bp=mirror_bp,
            artifact_digest=digest,
            size_bytes=size,
        )
        self.generation += 1
        plan = RoutePlan(endpoint=name, generation=self.generation, salt="benchmark", routes=(stable, shadow))
        found = self.blobs.info(BlobContainer.ROUTES, plan_blob_name(name))
        if found is None:
            raise LookupError(f"the plan of {name} is gone")
        self.blobs.replace(BlobContainer.ROUTES, plan_blob_name(name), plan.model_dump_json().encode(), etag=found.etag)
        reloaded = httpx.post(f"{self.subject.url}/models/reload", timeout=60).json()
        if reloaded["endpoints"][name]["generation"] != self.generation:
            raise LookupError(f"the server did not take generation {self.generation}: {reloaded}")

    def counts(self) -> dict[str, int]:
        """What became of the shadow's copies since the start."""
        stats = httpx.get(f"{self.subject.url}/ab-test/stats", timeout=60).json()
        shadow = stats["endpoints"][self.subject.workload.name]["versions"].get(str(_SHADOW), {}).get("shadow", {})
        return {name: shadow.get(name, 0) for name in ("mirrored", "shed", "errors", "compared", "disagreements")}


def main(arguments: Sequence[str]) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--share", type=float, nargs="*", default=[0.25, 0.5], help="of the peak's rate")
    parser.add_argument("--models", nargs="*", default=list(workloads.NAMES), choices=workloads.NAMES)
    asked = parser.parse_args(arguments)
    cores = Cores.of_this_machine()
    for name in asked.models:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            workload = workloads.workload(name, folder)
            connection = stack.enter_context(subjects.storage(folder))
            subject = stack.enter_context(
                subjects.slipway(workload, connection=connection, folder=folder, core=cores.serve)
            )
            blobs = stack.enter_context(closing(AzureBlobs.from_connection_string(connection)))
            plans = _Plans(subject=subject, blobs=blobs)
            requests = requests_file(subject, Ask(connections=_CONNECTIONS), folder)
            peak = _peaks(plans, requests, cores, pairs=asked.pairs, seconds=asked.seconds)
            for share in asked.share:
                _tails(plans, requests, cores, rate=peak * share, share=share, pairs=asked.pairs, seconds=asked.seconds)
    return 0


def _tails(plans: _Plans, requests: Path, cores: Cores, *, rate: float, share: float, pairs: int, seconds: int) -> None:
    ratios: dict[str, list[float]] = {"p50_ms": [], "p99_ms": []}
    controls: list[float] = []
    p99s: list[float] = []
    before = plans.counts()
    for number in range(pairs):
        # Two without, around one with: their ratio to each other is what chance alone does.
        found = {}
        for arm in (("first", "with", "last"), ("last", "with", "first"))[number % 2]:
            plans.publish(FULL_WEIGHT_BP if arm == "with" else 0)
            found[arm] = _open_loop(plans.subject, requests, cores, rate=rate, seconds=seconds)
        for figure, values in ratios.items():
            values.append(found["with"][figure] / ((found["first"][figure] + found["last"][figure]) / 2))
        controls.append(found["first"]["p99_ms"] / found["last"]["p99_ms"])
        p99s.append(found["with"]["p99_ms"])
    after = plans.counts()
    name = plans.subject.workload.name
    print(f"{name}, open loop at {rate:,.0f} a second ({share:.0%} of the peak), {pairs} pairs")
    print(f"  p99 with a shadow over without: {Spread.of(ratios['p99_ms'])}; p50: {Spread.of(ratios['p50_ms'])}")
    print(f"  without over without, p99: {Spread.of(controls)}; p99 with: {Spread.of(p99s)} ms")
    print(f"  copies: {_difference(before, after)}", flush=True)


def _peaks(plans: _Plans, requests: Path, cores: Cores, *, pairs: int, seconds: int) -> float:
    """Print what is left of the peak with a shadow; the peak without."""
    ratios, rates = [], []
    before = plans.counts()
    for number in range(pairs):
        found = {}
        for arm in (("with", "without"), ("without", "with"))[number % 2]:
            plans.publish(FULL_WEIGHT_BP if arm == "with" else 0)
            url = plans.subject.url
            found[arm] = wrk.run(url, requests, connections=_CONNECTIONS, duration_s=seconds, core=cores.load)
        ratios.append(found["with"].rate / found["without"].rate)
        rates.append(found["without"].rate)
    after = plans.counts()
    print(f"{plans.subject.workload.name}, closed loop, {_CONNECTIONS} connections, {pairs} pairs")
    print(f"  rate with a shadow over without: {Spread.of(ratios)}; without: {Spread.of(rates)} a second")
    print(f"  copies: {_difference(before, after)}", flush=True)
    return Spread.of(rates).median


def _open_loop(subject: Subject, requests: Path, cores: Cores, *, rate: float, seconds: int) -> dict[str, float]:
    command = ["taskset", "-c", cores.load, sys.executable, "-m", "benchmarks.serving.openloop"]
    command += [str(subject.port), str(requests), str(rate), str(seconds), str(_CONNECTIONS)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    found: dict[str, float] = json.loads(ended.stdout)
    if found["failed"] or found["late"]:
        raise wrk.LoadError(f"{found['failed']} requests failed and {found['late']} were never answered")
    return found


def _difference(before: dict[str, int], after: dict[str, int]) -> str:
    counts = {name: after[name] - before[name] for name in before}
    mirrored = max(1, counts["mirrored"])
    shares = ", ".join(f"{name} {counts[name] / mirrored:.1%}" for name in ("compared", "shed", "errors"))
    return f"{counts['mirrored']:,} mirrored, of which {shares}; {counts['disagreements']} disagreements"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
