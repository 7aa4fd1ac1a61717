"""Log lines as JSON."""

import io
import json
import logging
from typing import Any

import pytest

from shared.core.errors import InvalidInputError
from shared.core.logs import JsonFormatter, scrubbed, use_json, wants_json
from shared.core.tracing import span


def logged(*said: object, error: BaseException | None = None) -> dict[str, Any]:
    out = io.StringIO()
    logger = logging.Logger("slipway.test")  # noqa: LOG001 - apart from the process's own
    logger.addHandler(logging.StreamHandler(out))
    use_json(logger)
    message, *arguments = said
    logger.warning(message, *arguments, exc_info=error)
    (line,) = out.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


def test_a_line_has_the_trace_and_what_the_work_is_about() -> None:
    with span("here", {"model": "m", "version": 3, "rollout_id": "r", "message_id": "1", "level": "taken"}) as found:
        line = logged("version %d is loaded", 3)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "WARNING",
        "logger": "slipway.test",
        "message": "version 3 is loaded",
        "trace_id": found.context.trace_id,
        "span_id": found.context.span_id,
        "model": "m",
        "version": 3,
        "rollout_id": "r",
        "message_id": "1",
    }


def test_a_line_outside_any_trace_has_none() -> None:
    assert logged("hello").keys() == {"time", "level", "logger", "message"}


def test_a_message_of_several_lines_and_a_traceback_are_one_line() -> None:
    line = logged('first\nsecond "quoted"', error=ValueError("wrong"))
    assert line["message"] == 'first\nsecond "quoted"'
    assert "ValueError: wrong" in line["exception"]


def test_what_a_record_holds_beside_is_not_shown() -> None:
    record = logging.makeLogRecord({"msg": "hello", "customer": "somebody", "exc_info": None})
    assert "somebody" not in JsonFormatter().format(record)


@pytest.mark.parametrize(
    "text",
    [
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0;EndpointSuffix=x",
        "InstrumentationKey=c2VjcmV0;IngestionEndpoint=https://x",
        "GET https://host/api/models?code=c2VjcmV0&since=1",
        "https://a.blob/x?sv=1&sig=c2VjcmV0",
        "authorization: Bearer c2VjcmV0",
        "https://user:c2VjcmV0@host/path",
        'password = "c2VjcmV0"',
        "token: c2VjcmV0",
        '{"AccountKey": "c2VjcmV0"}',
        "{'password': 'c2VjcmV0'}",
        "x-functions-key: c2VjcmV0",
        "GET https://host/v1?api_key=c2VjcmV0",
        "signed with whsec_c2VjcmV0",
        "Authorization: Basic c2VjcmV0",
        "POST https://hooks.slack.com/services/T000/B000/c2VjcmV0 answered 404",
    ],
)
def test_secrets_are_not_shown(text: str) -> None:
    shown = scrubbed(text)
    assert "c2VjcmV0" not in shown
    assert "***" in shown
    assert "c2VjcmV0" not in logged("%s", text)["message"]
    assert "c2VjcmV0" not in logged("failed", error=RuntimeError(text))["exception"]


@pytest.mark.parametrize("text", ["version 3 of digits: p99 is 12.5 ms", "https://host:8080/path", "a token is absent"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert scrubbed(text) == text


def test_the_setting_is_named_where_it_is_wrong() -> None:
    assert (wants_json({}), wants_json({"SLIPWAY_LOG_FORMAT": " JSON "})) == (False, True)
    with pytest.raises(InvalidInputError, match="SLIPWAY_LOG_FORMAT is 'xml': use text or json"):
        wants_json({"SLIPWAY_LOG_FORMAT": "xml"})
