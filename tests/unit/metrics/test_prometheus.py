"""What Prometheus may answer to an instant query, and what it comes to. tests/contract asks a real one."""

import json
from typing import Any
from urllib.parse import parse_qs

import pytest

from shared.metrics.prometheus import PrometheusStore
from shared.rollout.queries import QueryAnswer
from tests.unit.metrics.scripted import answers, scripted


def answer_to(status: int, value: Any) -> QueryAnswer:
    with scripted(answers(status, json.dumps(value))) as server:
        return PrometheusStore(server.url).ask("up")


def good(kind: str, result: Any, **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": kind, "result": result}, **more}


def test_the_query_goes_as_a_form_below_the_path_of_the_address() -> None:
    query = 'sum(rate(x{a="b&c=d%20\n"}[60s])) + 1'
    with scripted(answers(200, json.dumps(good("scalar", [1, "2"])))) as server:
        assert PrometheusStore(f"{server.url}/base/").ask(query).value == 2.0
    assert server.asked[0].path == "/base/api/v1/query"
    assert parse_qs(server.asked[0].body)["query"] == [query]


@pytest.mark.parametrize(
    ("kind", "result", "value"),
    [
        ("scalar", [1, "0.25"], 0.25),
        ("vector", [{"metric": {}, "value": [1, "-3e2"]}], -300.0),
        ("vector", [], None),
        ("vector", [{"metric": {}, "value": [1, "NaN"]}], None),
        ("scalar", [1, "NaN"], None),
    ],
)
def test_a_number_or_none(kind: str, result: Any, value: float | None) -> None:
    assert answer_to(200, good(kind, result)) == QueryAnswer(value=value)


def test_several_samples_are_an_error_that_names_them() -> None:
    samples = [{"metric": {"pod": f"pod-{n}"}, "value": [1, "1"]} for n in range(5)]
    error = answer_to(200, good("vector", samples)).error
    assert "comes to 5 numbers" in error
    assert '{pod="pod-0"}, {pod="pod-1"}, {pod="pod-2"} and 2 more' in error


@pytest.mark.parametrize(
    ("status", "value", "said"),
    [
        (200, good("matrix", []), "comes to a matrix"),
        (200, good("string", [1, "x"]), "comes to a string"),
        (200, good("scalar", [1, "+Inf"]), "divided by zero"),
        (200, good("scalar", [1, "1e999"]), "divided by zero"),
        (200, good("scalar", [1, 1]), "a sample that is none"),
        (200, good("scalar", [1, "one"]), "'one'"),
        (200, good("vector", [{"metric": {}, "histogram": [1, {}]}]), "a histogram"),
        (200, good("scalar", [1, "1"], warnings=["a store did not answer"]), "a store did not answer"),
        (200, {"status": "success"}, "without a result"),
        (200, {"status": "success", "data": []}, "without a result"),
        (200, [], "no answer of Prometheus's"),
        (200, {"status": "fine"}, "no answer of Prometheus's"),
        (400, {"status": "error", "errorType": "bad_data", "error": "1:2: parse\nerror"}, "400: 1:2: parse error"),
        (503, {"status": "error", "errorType": "timeout", "error": "query timed out"}, "503: query timed out"),
        (500, good("scalar", [1, "1"]), "500"),
    ],
)
def test_what_is_no_number_is_an_error_that_says_why(status: int, value: Any, said: str) -> None:
    answer = answer_to(status, value)
    assert answer.value is None
    assert said in answer.error


def test_what_a_store_says_is_cut_and_on_one_line() -> None:
    error = answer_to(400, {"status": "error", "error": "\x1b[31m" + "x" * 5_000}).error
    assert len(error) < 400
    assert error.isprintable()
