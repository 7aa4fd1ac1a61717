"""Ratios are taken within rounds, and a figure that was not measured is not made up."""

from dataclasses import replace

import pytest

from benchmarks.serving.bars import BEATEN, Bar, bars, best_ratio
from benchmarks.serving.experiment import Results, ort_cell, single
from benchmarks.serving.machine import Memory
from benchmarks.serving.ratios import Cell, Measurement, Spread, figure, ratio, spread
from benchmarks.serving.wire import Form

OURS, FASTAPI = single("slipway", "small"), single("fastapi", "small")


def measured(cell: Cell, number: int, rate: float, *, p50_ms: float = 1.0, p99_ms: float = 1.5) -> Measurement:
    return Measurement(
        cell=cell, round=number, rate=rate, p50_ms=p50_ms, p90_ms=p50_ms, p99_ms=p99_ms, max_ms=p99_ms, cpu_us=1.0
    )


def test_a_ratio_compares_within_a_round_and_tells_median_least_and_greatest() -> None:
    # The machine is ten times slower in round 1: between rounds any ratio from 1 to 200 could be had.
    found = [measured(FASTAPI, 0, 100), measured(FASTAPI, 1, 10), measured(FASTAPI, 2, 100)]
    found += [measured(OURS, 0, 1_000), measured(OURS, 1, 200), measured(OURS, 2, 1_200)]
    assert ratio(found, OURS, FASTAPI) == Spread(median=12, least=10, greatest=20, rounds=3)


def test_a_round_that_measured_only_one_of_the_two_is_left_out() -> None:
    found = [measured(OURS, 0, 500), measured(OURS, 1, 1_000), measured(FASTAPI, 1, 100)]
    assert ratio(found, OURS, FASTAPI) == Spread(median=10, least=10, greatest=10, rounds=1)
    assert ratio(found[:1], OURS, FASTAPI) is None
    assert spread(found, single("bare", "small")) is None


def test_the_best_peer_is_the_best_of_each_round_and_none_may_be_missing() -> None:
    peers = [single(name, "small") for name in BEATEN]
    found = [measured(OURS, 0, 1_000), measured(OURS, 1, 1_000)]
    found += [measured(cell, 0, 10.0 * (place + 1)) for place, cell in enumerate(peers)]
    found += [measured(cell, 1, 10.0 * (len(peers) - place)) for place, cell in enumerate(peers)]
    best = 10.0 * len(peers)
    assert best_ratio(found, "small") == Spread(
        median=1_000 / best, least=1_000 / best, greatest=1_000 / best, rounds=2
    )
    assert best_ratio([one for one in found if one.cell.subject != BEATEN[0]], "small") is None


@pytest.mark.parametrize(
    ("at_least", "median", "verdict"),
    [(True, 10.0, "held"), (True, 9.9, "missed"), (False, 10.0, "held"), (False, 10.1, "missed")],
)
def test_a_bar_is_held_by_the_median(at_least: bool, median: float, verdict: str) -> None:  # noqa: FBT001 - a case
    found = Spread(median=median, least=0, greatest=100, rounds=3)
    assert Bar(what="", limit=10, found=found, at_least=at_least).verdict == verdict


def test_a_bar_without_a_figure_is_not_held() -> None:
    bar = Bar(what="", limit=10, found=None, at_least=False)
    assert (bar.is_held, bar.verdict) == (False, "not measured")


def test_every_bar_says_that_it_was_not_measured_where_nothing_was() -> None:
    assert {bar.verdict for bar in bars(Results())} == {"not measured"}


def test_what_everything_on_costs_is_a_share_of_the_rate_with_everything_off() -> None:
    found = [measured(OURS, 0, 90), measured(single("slipway-off", "small"), 0, 100)]
    costs = next(bar for bar in bars(Results(measurements=found)) if "everything on costs" in bar.what)
    assert costs.found is not None
    assert costs.found.median == pytest.approx(0.1)


def test_the_mid_models_rate_is_held_to_onnx_runtimes_of_the_same_round() -> None:
    plain, binary = (single("slipway-one-version", "mid", form=form) for form in (Form.PLAIN, Form.V2_BINARY))
    found = [measured(plain, 0, 850), measured(binary, 0, 700), measured(ort_cell("mid"), 0, 1_000)]
    found.append(measured(single("slipway", "mid"), 0, 300))  # with a candidate a batch is two runs
    held = [bar for bar in bars(Results(measurements=found)) if "ONNX Runtime's own" in bar.what]
    assert [(bar.found and bar.found.median, bar.verdict) for bar in held] == [(0.85, "held"), (0.7, "missed")]


def test_the_mid_models_rate_is_told_with_a_candidate_and_with_one_version_as_its_peers_have() -> None:
    peer = single("fastapi", "mid")
    one = [single("slipway-one-version", "mid", form=form) for form in (Form.PLAIN, Form.V2_BINARY)]
    cells = [single("slipway", "mid"), *one, peer]
    found = [measured(cell, 0, rate) for cell, rate in zip(cells, (800, 1_100, 1_300, 100), strict=True)]
    told = [bar for bar in bars(Results(measurements=found)) if "mid" in bar.what and "FastAPI" in bar.what]
    assert [(bar.found and bar.found.median, bar.verdict) for bar in told] == [
        (8, "missed"),
        (11, "missed"),
        (13, "held"),
    ]


def test_what_is_idle_has_one_small_model() -> None:
    held = {"slipway small": Memory(rss_mb=1, pss_mb=95, processes=1)}
    held |= {"slipway-one-version small": Memory(rss_mb=1, pss_mb=89, processes=1)}
    idle = next(bar for bar in bars(Results(memory=held)) if "idle" in bar.what)
    assert (idle.found and idle.found.median, idle.verdict) == (89, "held")


def test_two_workers_cost_is_processor_time_a_request() -> None:
    one, two = single("slipway", "small"), single("slipway-two-workers", "small", connections=128)
    found = [replace(measured(one, 0, 100), cpu_us=20.0), replace(measured(two, 0, 1), cpu_us=22.0)]
    costs = [bar for bar in bars(Results(measurements=found)) if "two workers" in bar.what]
    assert [(bar.found and bar.found.median, bar.verdict) for bar in costs] == [(None, "not measured"), (1.1, "held")]


@pytest.mark.parametrize(
    ("value", "text"), [(12_345.6, "12,346"), (27.49, "27.5"), (1.3, "1.30"), (0.024, "0.024"), (99.96, "100.0")]
)
def test_a_figure_has_the_digits_that_say_something(value: float, text: str) -> None:
    assert figure(value) == text
