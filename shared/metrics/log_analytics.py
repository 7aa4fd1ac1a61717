"""A Log Analytics workspace as a metrics store, by its REST API.

A query must come to one row of one numeric column. No row, an empty value and NaN are no number. Rows or columns beyond
one, another type, an infinite value and an answer that Azure calls partial are errors that say so. It never raises.
"""

import json
import math
from typing import Any

from shared.metrics.web import StoreError, Tokens, WebAnswer, post, said
from shared.rollout.queries import QueryAnswer

_NUMERIC = frozenset({"int", "long", "real", "double", "decimal"})
_HEADERS = {"content-type": "application/json", "prefer": "wait=4"}


class LogAnalyticsStore:
    """A workspace, by its id, at the address of the query API."""

    def __init__(self, url: str, workspace: str, *, tokens: Tokens) -> None:
        self._url = f"{url.rstrip('/')}/v1/workspaces/{workspace}/query"
        self._tokens = tokens

    def ask(self, query: str) -> QueryAnswer:
        """See the port."""
        try:
            body = json.dumps({"query": query}).encode()
            return QueryAnswer(value=_number(_table(post(self._url, body, _HEADERS, tokens=self._tokens))))
        except StoreError as error:
            return QueryAnswer(error=str(error))


def _table(answer: WebAnswer) -> dict[str, Any]:
    value = answer.value()
    if not isinstance(value, dict):
        raise StoreError(f"it answered {answer.status} with JSON that is no answer of Log Analytics'")
    if answer.status != 200 or value.get("error"):
        raise StoreError(f"it answered {answer.status}: {_innermost(value.get('error'))}")
    tables = value.get("tables")
    if not isinstance(tables, list) or not tables or not isinstance(tables[0], dict):
        raise StoreError("it answered without a table")
    return tables[0]


def _number(table: dict[str, Any]) -> float | None:
    columns, rows = table.get("columns"), table.get("rows")
    if not (isinstance(columns, list) and isinstance(rows, list)):
        raise StoreError("it answered a table that is none")
    if not rows:
        return None
    if len(columns) != 1 or len(rows) != 1 or not isinstance(rows[0], list) or len(rows[0]) != 1:
        raise StoreError(
            f"the query comes to {len(rows)} rows of {len(columns)} columns: summarize and project it to one number"
        )
    kind = columns[0].get("type") if isinstance(columns[0], dict) else None
    if kind not in _NUMERIC:
        raise StoreError(f"the query comes to a value of type {said(str(kind))}: make a number of it, as by toreal()")
    return _value(rows[0][0])


def _value(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise StoreError("it answered a number that is none")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise StoreError(f"it answered the number {said(str(value)[:40])!r}, which is none") from None
    if math.isinf(number):
        raise StoreError("the query comes to an infinite number: see that nothing is divided by zero")
    return None if math.isnan(number) else number


def _innermost(error: object) -> str:
    """What went wrong, at the innermost level, where the reason is."""
    found = "it does not say why"
    for _ in range(5):
        if not isinstance(error, dict):
            break
        found = str(error.get("message") or found)
        error = error.get("innererror") or error.get("innerError")
    return said(found)
