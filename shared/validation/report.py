"""The validation report: what was checked of a version, what was found, and whether it may serve."""

import math
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeFloat,
    NonNegativeInt,
    StringConstraints,
    model_validator,
)

from shared.core.verdict import Outcome, Verdict, joined
from shared.registry.signature import Signature
from shared.validation.details import Details

MAX_SENTENCE_LENGTH = 1_000
_MAX_CHECK_LENGTH = 100


class ValidationReport(BaseModel):
    """What validation found. `signature` is None where the model did not load; `rows` counts the validation data's.

    JSON holds it whole: no number in it is NaN or infinite. Its verdicts and metrics are bounded, for the version's
    document and its audit event repeat them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    schema_version: int = Field(default=1, ge=1, le=1)
    outcome: Outcome
    verdicts: tuple[Verdict, ...] = Field(min_length=1, max_length=50)
    metrics: dict[Annotated[str, StringConstraints(max_length=100)], FiniteFloat] = Field(
        default_factory=dict, max_length=50
    )
    signature: Signature | None = None
    rows: NonNegativeInt = 0
    details: Details = Details()
    has_golden: bool = False
    """Whether golden rows were written, for the model server to replay."""
    has_profile: bool = False
    """Whether a reference profile was written, for the model server to count by."""
    has_performance: bool = False
    """Whether a model was written that estimates performance without labels."""
    duration_s: NonNegativeFloat = 0.0
    versions: dict[str, str] = Field(default_factory=dict)
    """The versions of the libraries that checked."""

    @model_validator(mode="after")
    def _is_coherent(self) -> Self:
        if self.outcome is not joined(self.verdicts):
            raise ValueError(f"the outcome is {self.outcome} and the verdicts join to {joined(self.verdicts)}")
        for verdict in self.verdicts:
            if len(verdict.sentence) > MAX_SENTENCE_LENGTH or len(verdict.check) > _MAX_CHECK_LENGTH:
                raise ValueError(f"the verdict {verdict.check[:_MAX_CHECK_LENGTH]!r} is longer than a verdict may be")
            if any(
                number is not None and not math.isfinite(number)
                for number in (verdict.value, verdict.limit, *(verdict.interval or ()))
            ):
                raise ValueError(f"the verdict {verdict.check!r} holds a number that is not finite")
        return self

    @property
    def accepted(self) -> bool:
        """Whether the version may be rolled out. Too little evidence is not enough."""
        return self.outcome is Outcome.PASS
