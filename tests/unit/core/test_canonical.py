"""Canonical JSON: one text for one value, against golden vectors whose digests sha256sum gave."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.canonical import canonical_json, digest_of, digest_of_bytes

VECTORS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("canonical_vectors.json").read_text())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text('aé€😀"\\'),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=20,
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["text"])
def test_golden_vectors(vector: dict[str, Any]) -> None:
    assert canonical_json(vector["value"]).decode() == vector["text"]
    assert digest_of(vector["value"]) == vector["sha256"]


@given(json_values)
def test_the_text_reads_back_equal_and_gives_itself_again(value: Any) -> None:
    text = canonical_json(value)
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@given(st.dictionaries(st.text(), st.integers()))
def test_the_order_of_fields_does_not_matter(value: dict[str, int]) -> None:
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"a": [number]})


@pytest.mark.parametrize("value", [b"x", {1}, object()])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json([value])


def test_true_and_1_and_text_differ() -> None:
    assert len({digest_of(value) for value in (True, 1, "1", "true", [1], None, "")}) == 7


def test_the_digest_of_no_bytes_is_sha_256s() -> None:
    assert digest_of_bytes(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
