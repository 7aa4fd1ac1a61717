"""ONNX Runtime's own rate: the model in batches, in a tight loop, no server: what a server that batches runs up to.

Run as a process of its own on the serving core: `python -m benchmarks.serving.runtime MODEL ROWS SECONDS`. Prints one
JSON object: rows a second, and the median microseconds of a run.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.serving.workloads import session

_WARM_S = 0.3


def main(arguments: Sequence[str]) -> None:
    """Run, and print what was found."""
    path, rows, seconds = arguments
    runner = session(Path(path))
    given = runner.get_inputs()[0]
    batch = np.random.default_rng(0).normal(size=(int(rows), given.shape[1])).astype(np.float32)
    taken: list[float] = []
    end_s = perf_counter() + _WARM_S
    while (now_s := perf_counter()) < end_s:
        runner.run(None, {given.name: batch})
    began_s = now_s
    while now_s - began_s < float(seconds):
        runner.run(None, {given.name: batch})
        taken.append(perf_counter() - now_s)
        now_s = perf_counter()
    rate = len(taken) * int(rows) / (now_s - began_s)
    print(json.dumps({"rows_per_s": rate, "run_us": statistics.median(taken) * 1e6, "runs": len(taken)}))


if __name__ == "__main__":
    main(sys.argv[1:])
