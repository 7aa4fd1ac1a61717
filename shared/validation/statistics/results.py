"""What the statistics of validation hand back: the figures for the report's details, and the verdicts on them.

Each is made by one function, named with its signature in the class's docstring. Findings come bounded to the report's
limits, without NaN; each verdict names n, value, limit and interval where it has them, and points to its evidence.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from shared.core.verdict import Verdict
from shared.validation.details import (
    CalibrationBin,
    Comparison,
    Confusion,
    FairnessFinding,
    MetricEstimate,
    ReferenceDriftFinding,
    SliceFinding,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The metrics of a model on its validation data.

    Made by `estimates.measure(predictions, *, claimed={}, seed=0) -> Measured`; judged by
    `limits.thresholds(measured, policy) -> list[Verdict]` and `limits.claims(measured, claimed) -> list[Verdict]`.
    """

    rows: int
    estimates: tuple[MetricEstimate, ...]
    missing: Mapping[str, str]
    """Metrics of the task that could not be measured, and why."""
    confusion: Confusion | None = None
    calibration: tuple[CalibrationBin, ...] = ()

    @property
    def values(self) -> dict[str, float]:
        """The metrics by name."""
        return {estimate.name: estimate.value for estimate in self.estimates}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Non-inferiority to the champion on the same rows.

    Made by `comparison.compare(candidate, champion, *, champion_version, policy) -> Compared`, both sides being
    `Predictions` over the same labels.
    """

    findings: tuple[Comparison, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Sliced:
    """Parts of the data where the model fares worse.

    Made by `slices.find_slices(predictions, columns, *, policy, named) -> Sliced`: `columns` maps names to arrays of
    shape [n]; `named` says whether the manifest asked for these columns, for only then is it a finding that none can
    be tested.
    """

    findings: tuple[SliceFinding, ...]
    tested: int
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Fairness:
    """Gaps between the groups of protected columns.

    Made by `fairness.fairness_gaps(predictions, columns, *, policy) -> Fairness`.
    """

    findings: tuple[FairnessFinding, ...]
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifted:
    """Features whose distribution in the validation data is not the reference data's.

    Made by `drift.reference_drift(reference, validation, *, policy) -> Drifted`: both map feature names to arrays of
    shape [n]; neither has any where the model's inputs have more than two dimensions.
    """

    findings: tuple[ReferenceDriftFinding, ...]
    tested: int
    verdict: Verdict
