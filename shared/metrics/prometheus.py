"""Prometheus as a metrics store: an instant query of its HTTP API, which Azure Managed Prometheus speaks too.

A query must come to one number: a scalar, or a vector of one sample. NaN and an empty vector are no number. What has
no one meaning as a number (several samples, a range, a histogram, an infinite value, an answer with warnings) is an
error that says so. It never raises.
"""

import math
from typing import Any
from urllib.parse import urlencode

from shared.metrics.web import StoreError, Tokens, WebAnswer, post, said
from shared.rollout.queries import QueryAnswer

AZURE_SCOPE = "https://prometheus.monitor.azure.com/.default"
"""What a token for Azure Managed Prometheus must be for."""
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_NAMED = 3


class PrometheusStore:
    """A Prometheus at an address; `tokens` where it wants a bearer token."""

    def __init__(self, url: str, *, tokens: Tokens | None = None) -> None:
        self._url = f"{url.rstrip('/')}/api/v1/query"
        self._tokens = tokens

    def ask(self, query: str) -> QueryAnswer:
        """See the port."""
        try:
            body = urlencode({"query": query, "timeout": "4s"}).encode()
            return QueryAnswer(value=_number(_data(post(self._url, body, _FORM, tokens=self._tokens))))
        except StoreError as error:
            return QueryAnswer(error=str(error))


def _data(answer: WebAnswer) -> dict[str, Any]:
    value = answer.value()
    if not isinstance(value, dict) or value.get("status") not in {"success", "error"}:
        raise StoreError(f"it answered {answer.status} with JSON that is no answer of Prometheus's")
    if value["status"] == "error" or answer.status != 200:
        raise StoreError(f"it answered {answer.status}: {said(str(value.get('error', 'it does not say why')))}")
    if value.get("warnings"):
        raise StoreError(f"it warns of its own answer: {said(str(value['warnings']))}")
    data = value.get("data")
    if not isinstance(data, dict) or "result" not in data:
        raise StoreError("it answered without a result")
    return data


def _number(data: dict[str, Any]) -> float | None:
    kind, result = data.get("resultType"), data["result"]
    if kind == "scalar":
        return _value(result)
    if kind != "vector" or not isinstance(result, list):
        raise StoreError(f"the query comes to a {said(str(kind))}, not to one number: make a scalar or a vector of it")
    if not result:
        return None
    if len(result) > 1:
        named = ", ".join(_labels(sample) for sample in result[:_NAMED])
        more = f" and {len(result) - _NAMED} more" if len(result) > _NAMED else ""
        raise StoreError(f"the query comes to {len(result)} numbers ({named}{more}): sum or filter it to one")
    sample = result[0]
    if not isinstance(sample, dict) or "value" not in sample:
        raise StoreError("the query comes to a histogram, not to a number: take a quantile or a rate of it")
    return _value(sample["value"])


def _value(pair: object) -> float | None:
    if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], str)):
        raise StoreError("it answered a sample that is none")
    try:
        number = float(pair[1])
    except ValueError:
        raise StoreError(f"it answered the number {said(pair[1])!r}, which is none") from None
    if math.isinf(number):
        raise StoreError(f"the query comes to {pair[1]}: see that nothing is divided by zero")
    return None if math.isnan(number) else number


def _labels(sample: object) -> str:
    metric = sample.get("metric") if isinstance(sample, dict) else None
    if not isinstance(metric, dict):
        return "{}"
    return said("{" + ", ".join(f'{name}="{value}"' for name, value in metric.items()) + "}")
