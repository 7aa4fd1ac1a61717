"""What /metrics says: by the format's rules, and by what happened."""

import asyncio
import math
import re
import shutil
import subprocess
from typing import Any

import httpx
import pytest
from aks_serving import prometheus
from aks_serving.board import Board, State
from aks_serving.counts import Kind, Latencies, Runs, VersionTally
from aks_serving.prometheus import Facts
from aks_serving.reports import Http, Report, Siblings, counts_of, http_of, read_report, tripped_of

from shared.routing.plan import Role
from shared.telemetry.histogram import GAMMA
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage

pytestmark = pytest.mark.anyio

STABLE, PICKY = models.table(), models.picky(limit=4)
_LINE = re.compile(r'([a-z_]+)(?:\{((?:[a-z]+="[^"\\\n]*",?)+)\})? (-?[0-9.e+-]+|\+Inf)')

type Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _parsed(text: str) -> tuple[Series, dict[str, str]]:
    """Every sample by name and labels, and every family's type. Fails what the text format does not allow."""
    series: Series = {}
    kinds: dict[str, str] = {}
    family = ""
    for line in text.removesuffix("# EOF\n").splitlines():
        if line.startswith("# HELP "):
            family = line.split(" ")[2]
            assert family not in kinds, f"{family} is described twice"
            kinds[family] = ""
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == family
            kinds[name] = kind
        else:
            match = _LINE.fullmatch(line)
            assert match, line
            name = match[1]
            assert name == family or name.removeprefix(family) in {"_total", "_bucket", "_sum", "_count"}, line
            pairs = [pair.split("=", 1) for pair in (match[2] or "").split(",") if pair]
            labels = frozenset((label, value.strip('"')) for label, value in pairs)
            assert len(labels) == len(pairs)
            assert (name, labels) not in series, f"{line} stands twice"
            series[name, labels] = float(match[3].replace("Inf", "inf"))
    _check_histograms(series, {name for name, kind in kinds.items() if kind == "histogram"})
    return series, kinds


def _check_histograms(series: Series, names: set[str]) -> None:
    found: dict[tuple[str, frozenset[tuple[str, str]]], list[tuple[float, float]]] = {}
    for (name, labels), value in series.items():
        if name.endswith("_bucket") and name.removesuffix("_bucket") in names:
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            (bound,) = (float(text.replace("Inf", "inf")) for label, text in labels if label == "le")
            found.setdefault((name.removesuffix("_bucket"), rest), []).append((bound, value))
    for (name, rest), buckets in found.items():
        assert buckets == sorted(buckets), "bounds rise, and so do the counts"
        assert [value for _, value in buckets] == sorted(value for _, value in buckets)
        assert buckets[-1][0] == math.inf
        if buckets[0][0] < 0:  # its sum may fall
            assert not {(f"{name}_sum", rest), (f"{name}_count", rest)} & series.keys()
        else:
            assert buckets[-1][1] == series[f"{name}_count", rest]
            assert (f"{name}_sum", rest) in series


def _of(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def _version(version: int, **labels: str) -> dict[str, str]:
    return {"model": "churn", "version": str(version), **labels}


def _counted(version: int, **labels: str) -> dict[str, str]:
    """As `_version`, of what was counted while the plan was that of `_publish`."""
    return _version(version, variant={1: "stable", 2: "candidate", 3: "shadow"}[version], **labels)


async def _scraped(running: Running, accept: str = "*/*") -> httpx.Response:
    answer = await running.client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200
    return answer


def _publish(storage: MemoryStorage) -> None:
    storage.put(STABLE, PICKY)
    shadow = models.route(3, PICKY, role=Role.SHADOW, weight=0).model_copy(update={"mirror_bp": 10_000})
    storage.publish(models.plan(1, *models.canary((1, STABLE), (2, PICKY), 10_000), shadow))


async def _busy(running: Running) -> None:
    """Five answered by the candidate, three in its place, one for a caller who named it, two refused."""
    await asyncio.gather(*(running.predict([[n]]) for n in range(8 - 3 - 1)), *(running.predict([[0]]) for _ in [0]))
    for n in (7, 8, 9):
        assert (await running.predict([[n]])).json()["fallback"] is True
    assert (await running.predict([[1]], model_version=1)).status_code == 200
    for _ in range(2):
        assert (await running.predict([["no number"]])).status_code == 400

    def compared() -> bool:
        tally = running.server.totals()["churn"].get(3)
        counts = tally.shadow if tally else None
        return counts is not None and counts.mirrored == 8 == counts.shed + counts.errors + counts.compared

    await eventually(compared)


async def test_the_metrics_are_what_happened(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()
        await _busy(running)
        series, kinds = _parsed((await _scraped(running)).text)
    requests, latency = "model_prediction_requests_total", "model_prediction_latency_seconds_count"
    outcomes = {(v, o): _of(series, requests, **_counted(v, outcome=o)) for v in (1, 2) for o in ("success", "error")}
    assert outcomes == {(1, "success"): 0, (1, "error"): 0, (2, "success"): 5, (2, "error"): 3}
    assert _of(series, requests, **_counted(1, outcome="fallback")) == 3
    assert _of(series, requests, **_counted(1, outcome="pinned")) == 1
    assert _of(series, latency, **_counted(2, outcome="success")) == 5
    assert _of(series, latency, **_counted(2, outcome="error")) == 3
    assert _of(series, latency, **_counted(1, outcome="fallback")) == 3
    assert _of(series, latency, **_counted(1, outcome="pinned")) == 1
    assert _of(series, "model_requests_refused_total", model="churn", reason="invalid") == 2
    shadow = "model_shadow_requests_total"
    assert _of(series, "model_shadow_mirrored_total", **_counted(3)) == 8
    ran = [_of(series, shadow, **_counted(3, outcome=o)) for o in ("agreed", "disagreed", "error", "shed")]
    assert sum(ran) == 8
    assert ran[1] == 0
    assert ran[0] <= 5
    assert ran[2] <= 3
    assert _of(series, "model_batch_rows_sum", **_counted(2)) == 5
    assert _of(series, "model_batch_rows_sum", **_counted(1)) == 4
    values = "model_prediction_values"
    # Ten times the index: 0, 0, 10, 20 and 30.
    found = [_of(series, f"{values}_bucket", **_counted(2, le=le)) for le in ("-0.1", "0.0", "5.0", "10.0", "+Inf")]
    assert found == [0, 2, 2, 3, 5]
    assert _of(series, f"{values}_added", **_counted(1)) == 70 + 80 + 90 + 10
    assert 1 <= _of(series, "model_run_seconds_count", **_counted(2)) <= 5
    assert _of(series, "model_run_seconds_sum", **_counted(2)) > 0
    for version, variant in ((1, "stable"), (2, "candidate"), (3, "shadow")):
        assert _of(series, "model_version_variant", **_version(version, variant=variant)) == 1
        assert _of(series, "model_loaded", **_version(version)) == 1
    assert _of(series, "model_version_weight_ratio", **_version(2)) == 1
    assert _of(series, "model_in_flight_requests", model="churn") == 0
    assert _of(series, "model_plan_generation", model="churn") == 1
    assert kinds[requests] == "counter"
    assert kinds["model_prediction_latency_seconds"] == "histogram"


async def test_a_version_that_the_guard_took_out_of_traffic_is_told_of(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()

        async def tripped() -> list[float]:
            series, _ = _parsed((await _scraped(running)).text)
            return [_of(series, "model_version_tripped", **_version(version)) for version in (1, 2, 3)]

        assert await tripped() == [0, 0, 0]
        running.server.servings["churn"].guard.trip("says the test")
        assert await tripped() == [0, 1, 0]


async def test_counters_go_on_over_windows_and_plans(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()
        await _busy(running)
        before, kinds = _parsed((await _scraped(running)).text)
        storage.publish(models.plan(2, models.route(1, STABLE)))
        await running.reload()
        await running.predict([[1]])
        after, _ = _parsed((await _scraped(running)).text)
    cumulative = [
        key
        for key in before
        if kinds.get(key[0]) == "counter" or key[0].rsplit("_", 1)[-1] in {"bucket", "sum", "count", "total"}
    ]
    assert len(cumulative) > 100
    assert all(after[key] >= before[key] for key in cumulative)
    assert _of(after, "model_prediction_requests_total", **_counted(1, outcome="success")) == 1
    assert ("model_version_variant", frozenset(_version(2, variant="candidate").items())) not in after


async def test_a_client_that_asks_for_openmetrics_gets_it(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
    async with start() as running:
        await running.reload()
        await _busy(running)
        plain, asked = await _scraped(running), await _scraped(running, accept)
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert asked.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert asked.text.endswith("\n# EOF\n")
    assert "# EOF" not in plain.text
    old, new = _parsed(plain.text), _parsed(asked.text)
    assert old[0] == new[0]
    assert {name.removesuffix("_total") for name in old[1]} == set(new[1])
    assert new[1]["model_prediction_requests"] == "counter"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian package prometheus) is not installed")
async def test_promtool_finds_nothing_wrong(start: Start, storage: MemoryStorage) -> None:
    _publish(storage)
    async with start() as running:
        await running.reload()
        await _busy(running)
        text = (await _scraped(running)).text
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


class _Transport:
    connections = 7
    refused: dict[int, int] = {400: 2, 431: 1}  # noqa: RUF012 - read only


def test_the_transport_is_told_of_where_there_is_one() -> None:
    series, _ = _parsed(prometheus.text(Facts(totals={}, servings={}, transport=_Transport())).decode())
    assert _of(series, "http_server_connections") == 7
    assert _of(series, "http_server_refused_total", status="431") == 1
    without, _ = _parsed(prometheus.text(Facts(totals={}, servings={})).decode())
    assert not any(name.startswith("http_server") for name, _ in without)


def test_tallies_add_up_with_all_that_the_metrics_read() -> None:
    parts = [VersionTally() for _ in range(3)]
    for number, part in enumerate(parts, start=1):
        for kind in Kind:
            part.answered(kind, 2.0**number)
            part.failed(kind, 3.0)
        part.runs.ran(number * 50, number * 1e-3)
    whole = VersionTally()
    for part in parts:
        whole.add(part)
    assert {name: sum(found.buckets.values()) for name, found in whole.others.items()} == {
        "fallback": 3,
        "pinned": 3,
        "pinned_error": 3,
        "error": 3,
    }
    assert whole.others["error"].sum_ms == 9.0
    assert (whole.pinned, whole.pinned_errors) == (6, 3)
    assert whole.runs.rows == 300
    assert whole.runs.took_s == pytest.approx(6e-3)
    assert whole.runs.sizes == {6: 1, 7: 1, 8: 1}


@pytest.mark.parametrize(("rows", "bound"), [(1, 1), (2, 2), (3, 4), (64, 64), (65, 128), (128, 128)])
def test_a_batch_stands_in_the_first_bucket_that_holds_it(rows: int, bound: int) -> None:
    tally = VersionTally()
    tally.runs.ran(rows, 1e-3)
    series, _ = _parsed(prometheus.text(Facts(totals={"churn": {(1, "stable"): tally}}, servings={})).decode())
    buckets = {
        le: _of(series, "model_batch_rows_bucket", **_counted(1, le=f"{float(le)}")) for le in (1, 2, 4, 64, 128)
    }
    assert buckets == {le: float(le >= bound) for le in buckets}


def _value(latencies: Any) -> list[int]:
    return sorted(latencies.buckets.values())


def test_latencies_and_runs_take_what_clocks_may_say() -> None:
    latencies, runs = Latencies(), Runs()
    latencies.observe(0.0)
    latencies.observe(-1.0)
    latencies.observe(1e9)
    runs.ran(1, 0.0)
    assert _value(latencies) == [1, 2]
    assert (runs.sizes, runs.times) == ({0: 1}, {0: 1})


def test_what_other_workers_counted_is_told_whole() -> None:
    board = Board(places=1)
    tally = VersionTally()
    for kind in Kind:
        tally.answered(kind, 5.0)
        tally.failed(kind, 7.0)
    tally.runs.ran(20, 3e-3)
    tally.shadowed().mirrored = 4
    counts = counts_of({"churn": {(1, "stable"): tally}})
    first = Siblings(board, place=0, seat=0)
    first.tell(Report(counts=counts, refused={"churn": {"invalid": 2}}), State.READY)
    # Whoever takes the seat next carries on what was counted.
    second = Siblings(board, place=0, seat=0)
    second.tell(Report(counts=counts, refused={"churn": {"invalid": 1, "expired": 1}}), State.READY)
    (told,) = (report for report in map(read_report, board.seats(0)) if report.counts)
    assert told.refused == {"churn": {"invalid": 3, "expired": 1}}
    twice = VersionTally()
    twice.add(tally)
    twice.add(tally)

    def shown(tally: VersionTally) -> bytes:
        return prometheus.text(Facts(totals={"churn": {(1, "stable"): tally}}, servings={}))

    assert shown(told.totals()["churn"][1, "stable"]) == shown(twice)


def _told(place: int, board: Board, **fields: Any) -> Siblings:
    siblings = Siblings(board, place=place, seat=0)
    siblings.tell(Report(generations={"churn": 7}, **fields), State.READY)
    return siblings


def test_what_is_so_now_is_told_of_all_workers() -> None:
    board = Board(places=3)
    mine = Report(generations={"churn": 7}, http=Http(5, {400: 1}))
    asked = _told(0, board)
    _told(1, board, tripped={"churn": {2: "it failed"}}, http=Http(6, {431: 2}))
    later = Siblings(board, place=2, seat=0)
    tripped = {"churn": {3: "under another plan"}}
    later.tell(Report(generations={"churn": 8}, tripped=tripped, http=Http(1, {400: 4})), State.READY)
    assert tripped_of(mine, asked.others()) == {"churn": {2: "it failed"}}
    assert http_of([mine, *asked.others()]) == Http(12, {400: 5, 431: 2})


async def test_a_scrape_tells_the_sums_over_all_workers(start: Start, storage: MemoryStorage) -> None:
    board, data = Board(places=2), models.scaler(1.0)
    storage.put(data)
    storage.publish(models.plan(7, models.route(1, data)))
    async with start(siblings=Siblings(board, place=0, seat=0)) as running:
        await running.reload()
        here = running.server.facts()
        of_other: dict[str, Any] = {"in_flight": {"churn": 3, "iris": 1}, "memory_bytes": {"churn": {1: 10, 2: 20}}}
        _told(1, board, waiting=4, lost=2, tripped={"churn": {2: "it failed"}}, http=Http(6, {431: 2}), **of_other)
        facts = running.server.facts()
    assert (facts.waiting, facts.windows_lost, facts.in_flight) == (4, 2, {"churn": 3, "iris": 1})
    assert facts.memory_bytes == {"churn": {1: here.memory_bytes["churn"][1] + 10, 2: 20}}
    assert (facts.tripped, facts.transport) == ({"churn": {2: "it failed"}}, Http(6, {431: 2}))


def test_of_a_worker_that_is_gone_its_counts_alone_are_told() -> None:
    board = Board(places=1)
    _told(0, board, in_flight={"churn": 3}, waiting=4, tripped={"churn": {2: "no"}}, http=Http(6, {431: 2}))
    board.seat(0, 0).state = State.GONE
    another = Siblings(board, place=0, seat=1)
    others = another.others()
    assert [(told.in_flight, told.tripped, told.http) for told in others if told != Report()] == [
        ({}, {}, Http(0, {431: 2}))
    ]
    # Whoever takes its seat carries on the counter, and not the connections.
    follower = Siblings(board, place=0, seat=0)
    follower.tell(Report(http=Http(1, {431: 1})), State.READY)
    assert read_report(board.seat(0, 0)).http == Http(1, {431: 3})
    assert read_report(board.seat(0, 0)).waiting == 0


def test_a_latency_counts_within_a_bound_where_all_of_its_bucket_lies_within_it() -> None:
    latencies = Latencies()
    latencies.buckets = dict.fromkeys(range(-700, 700), 1)
    told = {dict(labels)["le"]: n for name, labels, n in prometheus._latency((), latencies) if name == "_bucket"}
    assert told.pop("+Inf") == 1_400
    for bound, count in told.items():
        assert count == sum(GAMMA**bucket <= 1e3 * float(bound) for bucket in latencies.buckets)
