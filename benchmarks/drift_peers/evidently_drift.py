"""Runs in Evidently's environment: DataDriftPreset as it comes, on windows beside a reference.

`evidently_drift.py FOLDER` reads `reference.npy` and `window-*.npy`, tables of numbers, and prints a JSON list: for
each window how many columns are said to have drifted, whether the data set is, the seconds it took by the clock and of
the processor, and the most memory that the process has held.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import Report
from evidently.presets import DataDriftPreset


def frame(path: Path) -> pd.DataFrame:
    table = np.load(path)
    return pd.DataFrame(table, columns=[f"f{at}" for at in range(table.shape[1])])


def drifted(metric: dict) -> bool:
    config = metric.get("config", {})
    threshold = config.get("threshold")
    if threshold is None:
        return False
    is_p_value = "p_value" in config.get("method", "")
    value = float(metric["value"])
    return value < threshold if is_p_value else value >= threshold


def processor_s() -> float:
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    folder = Path(sys.argv[1])
    reference = frame(folder / "reference.npy")
    found = []
    for path in sorted(folder.glob("window-*.npy")):
        window = frame(path)
        started, before = time.perf_counter(), processor_s()
        metrics = Report([DataDriftPreset()]).run(window, reference).dict()["metrics"]
        seconds = time.perf_counter() - started
        columns = sum(drifted(metric) for metric in metrics if metric["metric_name"].startswith("ValueDrift"))
        found.append(
            {
                "columns": columns,
                "is_drifted": columns >= 0.5 * window.shape[1],
                "seconds": seconds,
                "processor_s": processor_s() - before,
                "peak_mb": peak_mb(),
            }
        )
    print(json.dumps(found))


main()
