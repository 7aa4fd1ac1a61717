"""The tables say what was found: all of it, and with its spread."""

from benchmarks.serving.bars import bars
from benchmarks.serving.experiment import Results
from benchmarks.serving.report import as_markdown


def opened(p99_ms: float, *, late: int = 0) -> dict[str, float]:
    return {
        "rate": 1_000.0,
        "failed": 0,
        "late": late,
        "p50_ms": 0.25,
        "p90_ms": 0.5,
        "p99_ms": p99_ms,
        "max_ms": 10.0,
        "lag_p99_ms": 0.125,
    }


def test_an_open_loops_tail_is_the_median_of_its_rounds_and_one_bad_round_shows() -> None:
    found = Results(open_loops={"slipway": [opened(1.5), opened(90.0, late=7), opened(2.5)]})
    bar = next(bar for bar in bars(found) if "open loop" in bar.what)
    assert (bar.found and bar.found.median, bar.verdict) == (2.5, "held")
    row = next(line for line in as_markdown(found, "a command").splitlines() if line.startswith("| **Slipway**"))
    assert "2.50 (1.50 to 90.0)" in row
    assert row.endswith("| 7 |")


def test_what_was_not_run_is_told_with_the_first_line_of_the_reason() -> None:
    found = Results(not_run={"KServe, V2, small": "it did not start: no | port\na log"})
    assert "| KServe, V2, small | it did not start: no / port |" in as_markdown(found, "a command")
