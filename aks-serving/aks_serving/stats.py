"""What /ab-test/stats tells of an endpoint: its plan, and what each version did since the server started or it came."""

from collections.abc import Mapping
from typing import Any

from aks_serving.counts import VersionTally
from aks_serving.serving import Serving
from shared.telemetry.agreement import Estimate, disagreement, mean_difference, root_mean_square
from shared.telemetry.histogram import quantile
from shared.telemetry.window import ShadowCounts


def served(serving: Serving, tripped: Mapping[int, str]) -> dict[str, Any]:
    """What is loaded for a plan, which of its versions the pod took out of traffic and why, how it routes, and which
    versions other pods have: of what slot, where they have one.
    """
    elsewhere = [{"version": r.version, "role": r.role, "slot": r.slot} for r in serving.elsewhere]
    return {
        "generation": serving.plan.generation,
        "loaded": sorted(serving.lanes),
        "failed": {str(version): reason for version, reason in serving.failed.items()},
        "tripped": {str(version): reason for version, reason in tripped.items()},
        "routes": [
            {"version": r.version, "role": r.role, "weight_bp": r.weight_bp}
            | ({"mirror_bp": r.mirror_bp} if r.mirror_bp else {})
            for r in serving.plan.routes
        ],
    } | ({"elsewhere": elsewhere} if elsewhere else {})


def statistics(tally: VersionTally) -> dict[str, Any]:
    """A version's counts and latencies, and how a shadow compares."""
    found: dict[str, Any] = {
        "requests": tally.requests,
        "errors": tally.errors,
        "fallbacks": tally.fallbacks,
        "pinned": tally.pinned,
        **{f"p{p}_ms": _rounded(quantile(tally.latency_ms, p / 100)) for p in (50, 95, 99)},
    }
    return found if tally.shadow is None else found | {"shadow": shadow(tally.shadow)}


def shadow(counts: ShadowCounts) -> dict[str, Any]:
    """How a shadow compares with what was answered, with 95 % intervals (shared.telemetry.agreement)."""
    return {
        "mirrored": counts.mirrored,
        "shed": counts.shed,
        "errors": counts.errors,
        "compared": counts.compared,
        "disagreements": counts.disagreements,
        "disagreement_rate": _estimate(disagreement(counts)),
        "mean_difference": _estimate(mean_difference(counts)),
        "root_mean_square_difference": root_mean_square(counts),
    }


def _estimate(estimate: Estimate | None) -> dict[str, float] | None:
    if estimate is None:
        return None
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
