"""What Log Analytics may answer to a query, and what it comes to."""

import json
from typing import Any

import pytest

from shared.metrics.log_analytics import LogAnalyticsStore
from shared.rollout.queries import QueryAnswer
from tests.unit.metrics.scripted import answers, scripted

WORKSPACE = "00000000-0000-0000-0000-000000000001"


def answer_to(status: int, value: Any) -> QueryAnswer:
    with scripted(answers(status, json.dumps(value))) as server:
        return LogAnalyticsStore(server.url, WORKSPACE, tokens=lambda: "abc").ask("T | count")


def table(kind: str, *rows: list[Any], **more: Any) -> dict[str, Any]:
    columns = [{"name": f"c{n}", "type": kind} for n in range(len(rows[0]) if rows else 1)]
    return {"tables": [{"name": "PrimaryResult", "columns": columns, "rows": list(rows)}], **more}


def test_the_query_goes_as_json_to_the_workspace_with_the_token() -> None:
    query = 'Requests | where Name == "x" | summarize 1.0 * countif(Failed) / count()'
    with scripted(answers(200, json.dumps(table("real", [0.5])))) as server:
        assert LogAnalyticsStore(f"{server.url}/", WORKSPACE, tokens=lambda: "abc").ask(query).value == 0.5
    assert server.asked[0].path == f"/v1/workspaces/{WORKSPACE}/query"
    assert json.loads(server.asked[0].body) == {"query": query}
    assert server.asked[0].headers["authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (table("long", [12]), 12.0),
        (table("real", [0.25]), 0.25),
        (table("decimal", ["0.125"]), 0.125),
        (table("real", ["NaN"]), None),
        (table("real", [None]), None),
        (table("real"), None),
    ],
)
def test_a_number_or_none(value: Any, number: float | None) -> None:
    assert answer_to(200, value) == QueryAnswer(value=number)


@pytest.mark.parametrize(
    ("status", "value", "said"),
    [
        (200, table("long", [1], [2]), "2 rows of 1 columns"),
        (200, table("long", [1, 2]), "1 rows of 2 columns"),
        (200, table("string", ["1"]), "type string"),
        (200, table("datetime", ["2026-01-01T00:00:00Z"]), "type datetime"),
        (200, table("real", ["Infinity"]), "divided by zero"),
        (200, table("long", [10**400]), "none"),
        (200, table("long", [True]), "none"),
        (200, table("long", [1], error={"message": "partial", "innererror": {"message": "timed out"}}), "timed out"),
        (400, {"error": {"message": "bad", "innererror": {"message": "no table T"}}}, "400: no table T"),
        (429, {"error": {"message": "too many requests"}}, "429: too many requests"),
        (504, {}, "504: it does not say why"),
        (200, {"tables": []}, "without a table"),
        (200, {"tables": [{"columns": 1, "rows": []}]}, "a table that is none"),
        (200, [], "no answer of Log Analytics'"),
    ],
)
def test_what_is_no_number_is_an_error_that_says_why(status: int, value: Any, said: str) -> None:
    answer = answer_to(status, value)
    assert answer.value is None
    assert said in answer.error
