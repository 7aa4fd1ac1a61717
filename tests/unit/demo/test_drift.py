"""The parts of the demo of drift: what counts as shown, and who may tell of an alert."""

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import pytest

from local.demo.drift.flights import purposes
from local.demo.drift.receiver import Receiver
from local.demo.drift.result import Drifted, Result, Window
from shared.alerts.sinks import signature
from tests.support.plain import NO_TLS

QUIET = Window(
    name="winter",
    is_drift=False,
    rows=10,
    late_share=0.2,
    accuracy=0.9,
    report_rows=10,
    outcome="pass",
    sentence="none of 12 features drifted",
    drifted=(),
    to_blame=("visib", "temp", "dewp"),
    alarms=0,
    alerts=0,
    retraining_requests=0,
)
DRIFTED = replace(
    QUIET,
    name="July",
    is_drift=True,
    outcome="fail",
    drifted=tuple(Drifted(name=name, psi=1.0, q_value=0.0) for name in ("temp", "dewp", "confidence")),
    to_blame=("dewp", "temp", "visib"),
    alarms=1,
    alerts=1,
    retraining_requests=1,
)
GOOD = Result(
    windows=(QUIET, DRIFTED),
    asked_to_alert_s=1.2345,
    alerts=1,
    refused=0,
    retraining_requests=1,
    audit_verified=True,
)


def test_a_demo_that_showed_everything_has_no_problems() -> None:
    assert GOOD.problems() == []
    assert GOOD.as_json()["asked_to_alert_s"] == 1.23
    json.dumps(GOOD.as_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("window", "changes", "problem"),
    [
        (QUIET, {"outcome": "fail"}, "the report says fail and should say pass"),
        (QUIET, {"outcome": "inconclusive"}, "the report says inconclusive and should say pass"),
        (QUIET, {"alarms": 1}, "1 alarms, and should be 0"),
        (QUIET, {"alerts": 1}, "1 alerts, and should be 0"),
        (QUIET, {"retraining_requests": 1}, "1 requests for retraining, and should be 0"),
        (DRIFTED, {"outcome": "pass"}, "the report says pass and should say fail"),
        (DRIFTED, {"drifted": DRIFTED.drifted[1:]}, "dewp, temp are not among what drifted"),
        (DRIFTED, {"to_blame": ("visib", "temp", "dewp")}, "most to blame is said to be visib, temp"),
        (DRIFTED, {"alarms": 0}, "0 alarms, and should be 1"),
        (DRIFTED, {"alerts": 2}, "2 alerts, and should be 1"),
        (DRIFTED, {"retraining_requests": 2}, "2 requests for retraining, and should be 1"),
    ],
)
def test_a_window_that_is_not_as_it_should_be_is_a_problem(
    window: Window, changes: dict[str, Any], problem: str
) -> None:
    (found,) = replace(GOOD, windows=(replace(window, **changes),)).problems()
    assert found.startswith(f"{window.name}: ")
    assert problem in found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"alerts": 2}, "alerts is 2 and should be 1"),
        ({"refused": 1}, "refused is 1 and should be 0"),
        ({"retraining_requests": 0}, "retraining_requests is 0 and should be 1"),
        ({"audit_verified": False}, "audit_verified is False and should be True"),
    ],
)
def test_an_end_that_is_not_as_it_should_be_is_a_problem(changes: dict[str, Any], problem: str) -> None:
    assert replace(GOOD, **changes).problems() == [problem]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def posted(receiver: Receiver, body: bytes, identity: str, at: datetime, *, signed: bytes | None = None) -> int:
    key = base64.b64decode(receiver.secret.removeprefix("whsec_"))
    headers = {
        "webhook-id": identity,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signature([b"another key, as in a change of keys", key], identity, at, signed or body),
    }
    return httpx.post(receiver.url, content=body, headers=headers, trust_env=False, verify=NO_TLS).status_code


def body_of(*rules: str) -> bytes:
    return json.dumps({"data": {"alerts": [{"rule": rule, "news": "firing"} for rule in rules]}}).encode()


def test_what_is_signed_is_taken_and_what_comes_twice_is_kept_once(receiver: Receiver) -> None:
    now = datetime.fromtimestamp(time.time(), UTC)
    for _ in range(2):
        assert posted(receiver, body_of("data_drift", "slow"), "one", now) == 204
    assert posted(receiver, body_of("slow"), "two", now) == 204
    assert [line["rule"] for line in receiver.received("data_drift")] == ["data_drift"]
    assert len(receiver.received("slow")) == 2
    assert receiver.refused == 0


def test_what_is_signed_otherwise_or_is_old_is_refused(receiver: Receiver) -> None:
    now, body = datetime.now(UTC), body_of("data_drift")
    assert posted(receiver, body, "one", now, signed=body_of("slow")) == 401
    assert posted(receiver, body, "one", now - timedelta(hours=1)) == 401
    assert httpx.post(receiver.url, content=body, trust_env=False, verify=NO_TLS).status_code == 401
    assert receiver.received("data_drift") == []
    assert receiver.refused == 3


def test_no_day_of_winter_both_teaches_and_is_asked_about() -> None:
    dates = np.array([100 * month + day for month in (3, 1, 7, 2, 8) for day in range(1, 29) for _ in range(5)])
    training, others, july = purposes(dates)
    assert sorted(np.concatenate([training, others, july]).tolist()) == np.flatnonzero(dates < 800).tolist()
    taught, asked = set(dates[training].tolist()), set(dates[others].tolist())
    assert not taught & asked
    assert {date // 100 for date in taught} == {date // 100 for date in asked} == {1, 2, 3}
    assert set((dates[july] // 100).tolist()) == {7}
    assert len(np.unique(dates[others[:40]])) > 20, "a window is of many days"
