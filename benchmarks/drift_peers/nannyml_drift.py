"""Runs in NannyML's environment: its univariate drift calculator as it comes, on windows beside a reference.

`nannyml_drift.py FOLDER` reads `reference.npy` and `window-*.npy`, tables of numbers, and prints a JSON list: for each
window the seconds it took by the clock and of the processor, and the most memory that the process has held.
"""

import json
import resource
import sys
import time
from pathlib import Path

import nannyml
import numpy as np
import pandas as pd


def frame(path: Path) -> pd.DataFrame:
    table = np.load(path)
    return pd.DataFrame(table, columns=[f"f{at}" for at in range(table.shape[1])])


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
        calculator = nannyml.UnivariateDriftCalculator(column_names=list(window.columns), chunk_number=1)
        calculator.fit(reference)
        calculator.calculate(window)
        found.append(
            {"seconds": time.perf_counter() - started, "processor_s": processor_s() - before, "peak_mb": peak_mb()}
        )
    print(json.dumps(found))


main()
