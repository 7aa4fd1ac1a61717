"""`python -m benchmarks.serving`: the model server beside its peers, on this machine.

The short form takes some two minutes: Slipway, FastAPI and the bare loop. `--full` adds every peer, more rounds and
longer ones. Standard output gets the tables, or with --json everything found; what it does meanwhile goes to standard
error. Exits 1 where a bar is missed, 2 where it could not be run.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from benchmarks.serving import bars, report
from benchmarks.serving.environments import EnvironmentMissingError, cache_folder
from benchmarks.serving.experiment import FULL, SHORT, Experiment
from benchmarks.serving.machine import Cores
from benchmarks.serving.subjects import WrongAnswerError
from benchmarks.serving.wrk import LoadError, find_wrk
from local.azurite import AzuriteMissingError
from local.processes import ProcessStartError


def main() -> int:
    """Run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n\n")[1])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="FastAPI alone beside it (the default)")
    length.add_argument("--full", action="store_true", help="all peers, more and longer rounds")
    parser.add_argument("--json", action="store_true", help="everything found as one JSON object")
    parser.add_argument("--save", type=Path, help="write the JSON to this file too")
    parser.add_argument("--write", type=Path, help="put the tables between the marks of this document")
    given = parser.parse_args()
    plan = FULL if given.full else SHORT
    command = f"python -m benchmarks.serving{' --full' if given.full else ''}"
    try:
        find_wrk()
        cores = Cores.of_this_machine()
        # What is started from here on inherits it: all but the servers share the loading core.
        os.sched_setaffinity(0, {int(cores.load)})
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
            experiment = Experiment(plan, cores=cores, cache=cache_folder(os.environ), folder=Path(folder))
            results = experiment.run()
    except (
        AzuriteMissingError, EnvironmentMissingError, LoadError, OSError, ProcessStartError, WrongAnswerError
    ) as error:  # fmt: skip
        print(f"the benchmark could not be run: {error}", file=sys.stderr)
        return 2
    tables = report.as_markdown(results, command)
    text = json.dumps(report.as_json(results) | {"tables": tables})
    if given.save:
        given.save.write_text(text, "utf-8")
    if given.write:
        report.write_between(given.write, tables)
    print(text if given.json else tables)
    return 0 if all(bar.is_held or bar.found is None for bar in bars.bars(results)) else 1


if __name__ == "__main__":
    sys.exit(main())
