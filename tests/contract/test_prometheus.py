"""The Prometheus adapter over a real Prometheus, which scrapes a small exporter of this test's."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local.processes import free_port
from shared.metrics.prometheus import PrometheusStore
from tests.support.waiting import eventually

PROMETHEUS = shutil.which("prometheus")
EXPOSED = """\
# TYPE requests_total counter
requests_total{{model="digits",version="1"}} 1000 {at_ms}
requests_total{{model="digits",version="2"}} 100 {at_ms}
# TYPE failures_total counter
failures_total{{model="digits",version="1"}} 1 {at_ms}
failures_total{{model="digits",version="2"}} 5 {at_ms}
"""
"""With their time, samples stand for minutes: those without are gone when a look at them takes too long."""

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="needs Prometheus on the PATH (Debian: prometheus)")


class _Exporter(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(EXPOSED.format(at_ms=time.time_ns() // 1_000_000).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass


@pytest.fixture(scope="module")
def exporter() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def store(exporter: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusStore]:
    folder = tmp_path_factory.mktemp("prometheus")
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 100ms, scrape_timeout: 100ms}\n"
        f"scrape_configs: [{{job_name: test, static_configs: [{{targets: ['127.0.0.1:{exporter}']}}]}}]\n"
    )
    port = free_port()
    assert PROMETHEUS is not None
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            env={"PATH": os.environ["PATH"]},
        )
    try:
        store = PrometheusStore(f"http://127.0.0.1:{port}")
        _wait_for_samples(store, process, folder / "log")
        yield store
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_vector_of_one_sample_is_its_number(store: PrometheusStore) -> None:
    query = 'sum(failures_total{model="digits",version="2"}) / sum(requests_total{model="digits",version="2"})'
    answer = store.ask(query)
    assert answer.error == ""
    assert answer.value == pytest.approx(0.05)


def test_a_scalar_is_its_number(store: PrometheusStore) -> None:
    assert store.ask("scalar(vector(2)) * 3").value == 6.0


def test_no_series_and_nan_are_no_number(store: PrometheusStore) -> None:
    for query in ('requests_total{model="other"}', "vector(0) / vector(0)", 'scalar(requests_total{model="other"})'):
        answer = store.ask(query)
        assert (answer.value, answer.error) == (None, ""), query


def test_several_series_are_an_error_that_names_them(store: PrometheusStore) -> None:
    error = store.ask("requests_total").error
    assert "comes to 2 numbers" in error
    assert 'version="1"' in error
    assert 'version="2"' in error


def test_division_by_zero_a_range_and_a_string_are_errors(store: PrometheusStore) -> None:
    assert "divided by zero" in store.ask("vector(1) / vector(0)").error
    assert "comes to a matrix" in store.ask("requests_total[5s]").error
    assert "comes to a string" in store.ask('"text"').error


def test_a_query_that_does_not_parse_is_an_error_in_prometheus_s_words(store: PrometheusStore) -> None:
    error = store.ask("sum(requests_total").error
    assert error.startswith("it answered 400: ")
    assert "parse error" in error


def test_a_long_query_and_its_odd_letters_arrive(store: PrometheusStore) -> None:
    query = 'count(requests_total{version="2",model!="' + "é&=+% #" * 500 + '"})'
    assert store.ask(query).value == 1.0


def _wait_for_samples(store: PrometheusStore, process: subprocess.Popen[bytes], log: Path) -> None:
    def arrived() -> bool:
        assert process.poll() is None, log.read_text()
        return store.ask("count(failures_total)").value == 2.0

    eventually(arrived, what="the samples arrive", deadline_s=60)
