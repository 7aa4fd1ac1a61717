"""The server's counts as Prometheus text, format 0.0.4.

The latency histogram is read from the windows' logarithmic buckets, so a value within 2 % of a boundary may be counted
on its other side.
"""

import math
from collections.abc import Mapping

from aks_serving.counts import VersionTally
from aks_serving.serving import Serving
from shared.telemetry.histogram import GAMMA

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BOUND_INDEX = tuple(math.floor(math.log(bound * 1e3) / math.log(GAMMA)) for bound in _BOUNDS_S)


def text(
    totals: Mapping[str, Mapping[int, VersionTally]], servings: Mapping[str, Serving], *, waiting: int, lost: int
) -> str:
    """All metrics. Names are endpoint names and numbers, so no label needs escaping."""
    lines = ["# HELP model_prediction_requests_total Requests by what became of them at a version."]
    lines.append("# TYPE model_prediction_requests_total counter")
    each = [(f'model="{model}",version="{v}"', t) for model, tallies in totals.items() for v, t in tallies.items()]
    for labels, tally in each:
        outcomes = {
            "success": tally.requests - tally.errors,
            "error": tally.errors,
            "fallback": tally.fallbacks,
            "pinned": tally.pinned,
        }
        lines += [
            f'model_prediction_requests_total{{{labels},outcome="{outcome}"}} {n}' for outcome, n in outcomes.items()
        ]
    lines.append("# HELP model_prediction_latency_seconds Time to answer assigned requests.")
    lines.append("# TYPE model_prediction_latency_seconds histogram")
    for labels, tally in each:
        lines += _histogram(labels, tally)
    lines.append("# HELP model_loaded Whether a version of the plan is loaded.")
    lines.append("# TYPE model_loaded gauge")
    for model, serving in servings.items():
        states = dict.fromkeys(serving.failed, 0) | dict.fromkeys(serving.lanes, 1)
        lines += [f'model_loaded{{model="{model}",version="{v}"}} {state}' for v, state in sorted(states.items())]
    lines.append("# HELP model_plan_generation The generation of the route plan that is served.")
    lines.append("# TYPE model_plan_generation gauge")
    lines += [f'model_plan_generation{{model="{m}"}} {s.plan.generation}' for m, s in servings.items()]
    lines.append("# HELP model_server_waiting_requests Requests that wait for a model or run.")
    lines.append("# TYPE model_server_waiting_requests gauge")
    lines.append(f"model_server_waiting_requests {waiting}")
    lines.append("# HELP model_server_windows_lost_total Telemetry windows that storage never got.")
    lines.append("# TYPE model_server_windows_lost_total counter")
    lines.append(f"model_server_windows_lost_total {lost}")
    return "\n".join(lines) + "\n"


def _histogram(labels: str, tally: VersionTally) -> list[str]:
    name = "model_prediction_latency_seconds"
    lines = [
        f'{name}_bucket{{{labels},le="{bound:g}"}} {sum(n for index, n in tally.latency_ms.items() if index <= limit)}'
        for bound, limit in zip(_BOUNDS_S, _BOUND_INDEX, strict=True)
    ]
    count = sum(tally.latency_ms.values())
    return [
        *lines,
        f'{name}_bucket{{{labels},le="+Inf"}} {count}',
        f"{name}_sum{{{labels}}} {tally.latency_ms_sum / 1e3:.9g}",
        f"{name}_count{{{labels}}} {count}",
    ]
