"""`python -m benchmarks.serving`: the model server beside its peers, on this machine.

The short form takes some two minutes: Slipway, FastAPI and the bare loop. `--full` adds every peer and longer
measurements, and takes some 20 minutes. Standard output gets the tables, or with --json everything found; what it does
meanwhile goes to standard error. Exits 1 where a bar is missed, 2 where it could not be run.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.serving import bars, machine, report
from benchmarks.serving.catalogue import PEERS
from benchmarks.serving.environments import EnvironmentMissingError, cache_folder
from benchmarks.serving.experiment import FULL, SHORT, Experiment, Plan
from benchmarks.serving.machine import Cores
from benchmarks.serving.subjects import WrongAnswerError
from benchmarks.serving.wrk import LoadError, find_wrk
from local.azurite import AzuriteMissingError
from local.processes import ProcessStartError


def main(arguments: Sequence[str]) -> int:
    """Run; the exit code."""
    given, plan, command = parsed(arguments)
    try:
        find_wrk()
        cores = Cores.of_this_machine()
        # What is started from here on inherits it: all but the servers share the loading core.
        os.sched_setaffinity(0, {int(cores.load)})
        machine.prefer(os.getpid())
        with tempfile.TemporaryDirectory(prefix="slipway-bench-") as folder:
            experiment = Experiment(plan, cores=cores, cache=cache_folder(os.environ), folder=Path(folder))
            try:
                results = experiment.run()
            except BaseException:
                print(report.as_markdown(experiment.results, command), file=sys.stderr)  # what was found until then
                raise
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


def parsed(arguments: Sequence[str]) -> tuple[argparse.Namespace, Plan, str]:
    """What was given, what is to be measured, and the command that measures the same again. Exits for bad arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=(__doc__ or "").split("\n\n")[1])
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="FastAPI alone beside it (the default)")
    length.add_argument("--full", action="store_true", help="all peers, longer measurements")
    parser.add_argument("--rounds", type=_whole, help="how many rounds")
    parser.add_argument("--seconds", type=_whole, help="how long each measurement lasts")
    parser.add_argument("--peers", type=_peers, help="which peers, with commas between them")
    parser.add_argument("--json", action="store_true", help="everything found as one JSON object")
    parser.add_argument("--save", type=Path, help="write the JSON to this file too")
    parser.add_argument("--write", type=Path, help="put the tables between the marks of this document")
    given = parser.parse_args(arguments)
    plan = (FULL if given.full else SHORT).with_length(rounds=given.rounds, seconds=given.seconds)
    if given.peers is not None:
        plan = replace(plan, peers=given.peers)
    return given, plan, _command(given)


def _whole(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1_000:
        raise argparse.ArgumentTypeError(f"{number} is not from 1 to 1000")
    return number


def _peers(text: str) -> tuple[str, ...]:
    known = [one.name for one in PEERS]
    named = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in named:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is no peer: they are {', '.join(known)}")
    return named


def _command(given: argparse.Namespace) -> str:
    """The command that measures the same again."""
    parts = ["python -m benchmarks.serving"]
    if given.full:
        parts.append("--full")
    parts += [f"--{name} {value}" for name in ("rounds", "seconds") if (value := getattr(given, name))]
    if given.peers is not None:
        parts.append(f"--peers {','.join(given.peers)}")
    return " ".join(parts)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
