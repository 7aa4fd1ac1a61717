"""A policy's limits are those that scores are held against."""

import dataclasses

import pytest
from pydantic import ValidationError

from shared.drift.limits import MEASURES, Limits
from shared.registry.drift_policy import DriftPolicy


def test_a_policy_that_says_nothing_has_the_usual_limits() -> None:
    assert DriftPolicy().limits == Limits()


def test_every_limit_of_the_policy_is_held_against() -> None:
    changed = dict.fromkeys(MEASURES, 0.25) | {"false_discovery_rate": 0.1, "min_rows": 50}
    assert dataclasses.asdict(DriftPolicy.model_validate(changed).limits) == changed


@pytest.mark.parametrize("field", ["psi", "unusable", "false_discovery_rate", "min_rows", "span_h", "unknown"])
def test_a_limit_that_cannot_be_is_refused(field: str) -> None:
    with pytest.raises(ValidationError):
        DriftPolicy.model_validate({field: -1})
