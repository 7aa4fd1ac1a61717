"""The reference documents are those that the code calls for, and their schemas say what the code does."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from local.references import DOCS, REFERENCES, described_schema, documents
from shared.registry.manifest import Manifest
from shared.registry.policy import Policy

SCHEMAS = {reference.name: described_schema(reference.model) for reference in REFERENCES}
MANIFESTS: list[tuple[dict[str, Any], bool]] = [
    ({"task": "regression"}, True),
    ({"task": "classification", "tags": {"team": "fraud"}, "metrics": {"auc": 0.9}, "slices": ["country"]}, True),
    ({"task": "classification", "files": {"data/w.bin": "sha256:" + "0" * 64}, "parameters": {"depth": 6}}, True),
    ({}, False),
    ({"task": "clustering"}, False),
    ({"task": "regression", "surprise": 1}, False),
    ({"task": "regression", "files": {"w.bin": "md5:12"}}, False),
    ({"task": "regression", "author": "x" * 201}, False),
]
POLICIES: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"validation": {"accuracy": None, "minimum": {"roc_auc": 0.9}}, "retention": {"keep_latest": 3}}, True),
    ({"validation": {"accuracy": 1.5}}, False),
    ({"validation": {"minimum": {"Not A Metric": 1}}}, False),
    ({"rollout": {"stages": [{"weight_bp": 0, "duration_s": 1}]}}, False),
    ({"gates": {}}, False),
]


@pytest.mark.parametrize(("name", "text"), documents().items(), ids=list(documents()))
def test_a_reference_is_what_the_code_calls_for(name: str, text: str) -> None:
    found = (DOCS / name).read_text(encoding="utf-8") if (DOCS / name).exists() else ""
    assert found == text, f"docs/{name} is stale: `python -m local.references` writes it"


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_field_with_a_docstring_has_its_description(name: str) -> None:
    described = str(SCHEMAS[name]).count("'description'")
    assert described >= 15


@pytest.mark.parametrize(
    ("model", "name", "value", "good"),
    [(Manifest, "manifest", *case) for case in MANIFESTS] + [(Policy, "policy", *case) for case in POLICIES],
)
def test_the_schema_takes_and_refuses_what_the_code_does(
    model: type[Manifest | Policy], name: str, value: dict[str, Any], *, good: bool
) -> None:
    assert jsonschema.Draft202012Validator(SCHEMAS[name]).is_valid(value) is good
    assert _takes(model, value) is good


@given(
    field=st.sampled_from(["accuracy", "r2", "slice_gap", "drift_psi", "latency_ratio", "noninferiority_margin"]),
    value=st.none() | st.floats(-2_000, 2_000),
)
def test_the_schema_takes_the_numbers_that_the_code_takes(field: str, value: float | None) -> None:
    policy = {"validation": {field: value}}
    assert jsonschema.Draft202012Validator(SCHEMAS["policy"]).is_valid(policy) is _takes(Policy, policy)


def _takes(model: type[Manifest | Policy], value: dict[str, Any]) -> bool:
    try:
        model.model_validate(value)
    except ValidationError:
        return False
    return True
