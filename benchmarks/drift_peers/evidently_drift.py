"""Runs in Evidently's environment: DataDriftPreset as it comes, on windows beside a reference.

`evidently_drift.py FOLDER` reads `reference.npy` and `window-*.npy`, tables of numbers, and prints a JSON list: for
each window how many columns are said to have drifted, whether the data set is, and the seconds it took.
"""

import json
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


def main() -> None:
    folder = Path(sys.argv[1])
    reference = frame(folder / "reference.npy")
    found = []
    for path in sorted(folder.glob("window-*.npy")):
        window = frame(path)
        started = time.perf_counter()
        metrics = Report([DataDriftPreset()]).run(window, reference).dict()["metrics"]
        seconds = time.perf_counter() - started
        columns = sum(drifted(metric) for metric in metrics if metric["metric_name"].startswith("ValueDrift"))
        found.append({"columns": columns, "is_drifted": columns >= 0.5 * window.shape[1], "seconds": seconds})
    print(json.dumps(found))


main()
