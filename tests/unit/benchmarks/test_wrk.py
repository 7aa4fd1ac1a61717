"""What is read out of wrk's output, and what is refused."""

import pytest

from benchmarks.serving.wrk import LoadError, parse

OUT = """Running 2s test @ http://127.0.0.1:1
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     5.00ms    1.00ms  10.00ms   90.00%
  20000 requests in 2.00s, 3.20MB read
Requests/sec:  10000.00

wrk.lua: {"requests": 20000, "duration_us": 2000500, "p50_us": 4900, "p90_us": 6100, "p99_us": 7300, "max_us": 10000, \
"refused": 3, "socket_errors": 4}
"""


def test_the_numbers_are_the_scripts() -> None:
    load = parse(OUT)
    assert (load.requests, load.duration_s) == (20_000, 2.0005)
    assert (load.p50_ms, load.p90_ms, load.p99_ms, load.max_ms) == (4.9, 6.1, 7.3, 10.0)
    assert load.rate == pytest.approx(20_000 / 2.0005)


def test_refusals_and_broken_connections_both_count_as_failed() -> None:
    assert parse(OUT).failed == 7


def test_output_without_the_scripts_line_is_an_error_that_quotes_wrk() -> None:
    with pytest.raises(LoadError, match="unable to connect"):
        parse("Running 2s test\n", "unable to connect to 127.0.0.1:1 Connection refused\n")
