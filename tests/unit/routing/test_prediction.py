"""Prediction ids: their golden vectors, that each is read as it was written, and what is none."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName
from shared.routing.plan import Role
from shared.routing.prediction import PredictionId, Reason, prediction_prefix

VECTORS = json.loads(Path(__file__).with_name("prediction_vectors.json").read_text())
GOOD = "churn.3.7.sa.k3qx7m2p4z.6740a1f2.1f"
_LAST_SECOND = 16**9 - 1

ids = st.builds(
    PredictionId,
    endpoint=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).map(EndpointName),
    version=st.integers(1, 999_999_999),
    generation=st.integers(1, 999_999_999),
    role=st.sampled_from(Role),
    reason=st.sampled_from(Reason),
    pod=st.from_regex(r"[a-z0-9]{4,32}", fullmatch=True),
    at=st.integers(1, _LAST_SECOND).map(lambda second: datetime.fromtimestamp(second, UTC)),
    count=st.integers(0, 2**64 - 1),
)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"][:30])
def test_an_id_equals_the_golden_vector(case: dict[str, Any]) -> None:
    parts = case["parts"]
    taken_apart = PredictionId.parse(case["id"])
    assert taken_apart == PredictionId(**parts | {"at": datetime.fromisoformat(parts["at"])})
    assert str(taken_apart) == case["id"]


def test_the_golden_vectors_hold_every_role_and_every_reason() -> None:
    parts = [case["parts"] for case in VECTORS["cases"]]
    assert {part["role"] for part in parts} == set(Role)
    assert {part["reason"] for part in parts} == set(Reason)


@given(ids)
def test_an_id_is_read_as_it_was_written(one: PredictionId) -> None:
    assert PredictionId.parse(str(one)) == one


@given(ids, ids)
def test_two_ids_differ_where_anything_of_them_does(one: PredictionId, other: PredictionId) -> None:
    assert (str(one) == str(other)) is (one == other)


@given(ids)
def test_the_answers_of_one_version_under_one_generation_share_a_prefix(one: PredictionId) -> None:
    prefix = prediction_prefix(
        endpoint=one.endpoint,
        version=one.version,
        generation=one.generation,
        role=one.role,
        reason=one.reason,
        pod=one.pod,
    )
    assert str(one) == f"{prefix}{int(one.at.timestamp()):x}.{one.count:x}"


@pytest.mark.parametrize(
    "text",
    [
        *VECTORS["none"],
        "a" * 100_000,
        GOOD + "\n",
        " " + GOOD,
        GOOD.replace("6740a1f2", "f" * 10),
        GOOD.replace(".3.", ".٣."),
    ],
)
def test_what_is_no_id_is_refused_with_an_example_of_one(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        PredictionId.parse(text)
    message = str(refused.value)
    assert "is not a prediction id" in message or "endpoint name: use" in message
    assert len(message) < 400


@given(
    st.text(max_size=80) | st.from_regex(r"[a-z.]{1,8}\.[0-9]{1,4}\.[0-9]{1,4}\.[scmafp]{2}\.[a-z0-9]{1,9}\..{1,30}")
)
def test_no_text_raises_anything_but_that_it_is_none(text: str) -> None:
    try:
        found = PredictionId.parse(text)
    except InvalidInputError:
        return
    assert str(found) == text
