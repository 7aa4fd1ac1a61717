"""Does the validation data look like the reference data? Feature by feature.

A feature drifted where its PSI over the reference's deciles reaches the policy's limit and the difference holds, by a
chi-square test after Benjamini-Hochberg over all features: small samples have a high PSI without any drift (Yurdakul
and Naranjo 2020), and large ones a significant difference that is too small to matter.

A PSI at the limit that is neither shown to hold nor as low as chance brings it is INCONCLUSIVE, with about how many
rows would tell. That is advice, for of honest samples with 12 features it is said of 22 to 45 % where the smaller side
has 20 to 200 rows (97 % beside 50 of the reference; none from 1,000 rows on): each feature may come above its own
chance. benchmarks/reference_drift.py measures that, and how often samples of one distribution are said to differ.
Loads numpy: for the sandboxed process.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.core.verdict import Outcome, Verdict
from shared.drift import distances
from shared.drift.binning import CategoryBins, Codes, Floats, NumberBins
from shared.drift.multiplicity import benjamini_hochberg
from shared.registry.policy import ValidationPolicy
from shared.validation.datafile import Array
from shared.validation.details import MAX_FINDINGS, ReferenceDriftFinding
from shared.validation.refusal import excerpt
from shared.validation.statistics.columns import as_numbers, as_text, is_number, sample_of
from shared.validation.statistics.results import Drifted

CHECK = "reference_drift"
EVIDENCE = "/details/drift"
FALSE_DISCOVERY_RATE = 0.05
MAX_FEATURES = 5_000
MAX_WITH_BINS = 50
"""Findings that show their bins: a report has a size."""
_SHOWN = 3
_LABEL_LENGTH = 40

type Text = NDArray[np.str_]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Feature:
    """A feature's counts in the reference's bins, and the columns that they came from."""

    name: str
    labels: tuple[str, ...]
    reference: Codes
    actual: Codes
    columns: tuple[Array, Array]
    psi: float
    psi_noise: float
    p_value: float

    def is_unclear(self, limit: float) -> bool:
        """Whether the PSI is too high to be called chance. What is found is clear."""
        return self.psi >= limit and self.psi > self.psi_noise


def reference_drift(
    reference: Mapping[str, Array], validation: Mapping[str, Array], *, policy: ValidationPolicy
) -> Drifted:
    """Compare the features that both have, arrays of shape [n] and [m].

    Without a limit the verdict is advisory, and so it is without features: a model of images has none.
    """
    if not reference and not validation:
        return Drifted(findings=(), tested=0, verdict=_without_columns())
    names = [name for name in reference if name in validation]
    sizes = _rows(reference, names), _rows(validation, names)
    if not names or min(sizes) < 1:
        return Drifted(findings=(), tested=0, verdict=_inconclusive("they share no feature with rows", sizes, policy))
    taken = sample_of(sizes[0]), sample_of(sizes[1])
    features = [_compared(name, reference[name][taken[0]], validation[name][taken[1]]) for name in names[:MAX_FEATURES]]
    q_values = benjamini_hochberg(np.array([feature.p_value for feature in features]))
    limit = np.inf if policy.drift_psi is None else policy.drift_psi
    judged = sorted(
        (
            (feature, q, feature.psi >= limit and q <= FALSE_DISCOVERY_RATE)
            for feature, q in zip(features, q_values.tolist(), strict=True)
        ),
        key=lambda one: (not one[2], not one[0].is_unclear(limit), one[1], -one[0].psi),
    )
    findings = tuple(
        _finding(feature, q, found, with_bins=place < MAX_WITH_BINS)
        for place, (feature, q, found) in enumerate(judged[:MAX_FINDINGS])
    )
    count = sum(found for *_, found in judged)
    unclear = sum(feature.is_unclear(limit) for feature, _, found in judged if not found)
    verdict = _verdict(findings, count, unclear, names=len(names), sizes=sizes, policy=policy)
    return Drifted(findings=findings, tested=len(features), verdict=verdict)


def _rows(columns: Mapping[str, Array], names: list[str]) -> int:
    return len(columns[names[0]]) if names else 0


def _compared(name: str, reference: Array, actual: Array) -> _Feature:
    bins: NumberBins | CategoryBins
    if is_number(reference) and is_number(actual):
        bins, test, counts = _numbers(as_numbers(reference), as_numbers(actual))
    else:
        bins, test, counts = _categories(as_text(reference), as_text(actual))
    held = np.flatnonzero(counts[0] + counts[1])
    before, after = counts[0][held], counts[1][held]
    return _Feature(
        name=name,
        labels=tuple(bins.labels[at] for at in held.tolist()),
        reference=before,
        actual=after,
        columns=(reference, actual),
        psi=distances.psi(before, after),
        psi_noise=distances.psi_noise(before, after),
        p_value=distances.chi_square(*test)[2],
    )


# The test takes its bins from both samples together. Bins made from the reference alone fit its own chance: what it
# happens not to hold would always be more frequent in the other sample.


def _numbers(reference: Floats, actual: Floats) -> tuple[NumberBins, tuple[Codes, Codes], tuple[Codes, Codes]]:
    both = NumberBins.of(np.concatenate([reference, actual]))
    own = NumberBins.of(reference)
    return own, (both.counts(reference), both.counts(actual)), (own.counts(reference), own.counts(actual))


def _categories(reference: Text, actual: Text) -> tuple[CategoryBins, tuple[Codes, Codes], tuple[Codes, Codes]]:
    both = CategoryBins.of(np.concatenate([reference, actual]))
    own = CategoryBins.of(reference)
    return own, (both.counts(reference), both.counts(actual)), (own.counts(reference), own.counts(actual))


def _finding(feature: _Feature, q_value: float, found: bool, *, with_bins: bool) -> ReferenceDriftFinding:  # noqa: FBT001
    is_numeric = all(is_number(column) for column in feature.columns)
    farthest, moved = _sample_distances(feature) if is_numeric else (None, None)
    return ReferenceDriftFinding(
        feature=excerpt(feature.name, 200),
        kind="numeric" if is_numeric else "category",
        n_reference=int(feature.reference.sum()),
        n_validation=int(feature.actual.sum()),
        psi=feature.psi,
        psi_noise=feature.psi_noise,
        jensen_shannon=distances.jensen_shannon(feature.reference, feature.actual),
        hellinger=distances.hellinger(feature.reference, feature.actual),
        kolmogorov_smirnov=farthest,
        wasserstein=moved,
        p_value=feature.p_value,
        q_value=q_value,
        missing_reference=_missing(feature.columns[0]),
        missing_validation=_missing(feature.columns[1]),
        bins=tuple(excerpt(label, _LABEL_LENGTH) for label in feature.labels) if with_bins else (),
        reference_shares=_rounded(feature.reference) if with_bins else (),
        validation_shares=_rounded(feature.actual) if with_bins else (),
        found=found,
    )


def _sample_distances(feature: _Feature) -> tuple[float | None, float | None]:
    """Kolmogorov-Smirnov over all numbers, and Wasserstein over the finite ones, of the samples themselves."""
    samples = [as_numbers(column) for column in feature.columns]
    samples = [sample[~np.isnan(sample)] for sample in samples]
    if not all(len(sample) for sample in samples):
        return None, None
    values, before, after = _by_value(*samples)
    farthest = distances.kolmogorov_smirnov(before, after)
    finite = np.isfinite(values)
    values, before, after = values[finite], before[finite], after[finite]
    if not before.any() or not after.any():
        return farthest, None
    with np.errstate(over="ignore", invalid="ignore"):
        moved = distances.wasserstein(before, after, values)
    return farthest, moved if np.isfinite(moved) else None


def _by_value(reference: Floats, actual: Floats) -> tuple[Floats, Codes, Codes]:
    """Each value that occurs, rising, and how often on either side."""
    values, place = np.unique(np.concatenate([reference, actual]), return_inverse=True)
    before = np.bincount(place[: len(reference)], minlength=len(values))
    after = np.bincount(place[len(reference) :], minlength=len(values))
    return values, before, after


def _missing(column: Array) -> float:
    missing = np.isnan(as_numbers(column)) if is_number(column) else as_text(column) == ""
    return float(missing.mean())


def _rounded(counts: Codes) -> tuple[float, ...]:
    return tuple(round(share, 6) for share in distances.shares(counts).tolist())


def _verdict(
    findings: tuple[ReferenceDriftFinding, ...],
    found: int,
    unclear: int,
    *,
    names: int,
    sizes: tuple[int, int],
    policy: ValidationPolicy,
) -> Verdict:
    tested = min(names, MAX_FEATURES)
    if min(sizes) < policy.min_rows:
        few = f"{policy.min_rows} rows or more conclude anything, and the smaller side has {min(sizes)}"
        return _inconclusive(few, sizes, policy)
    highest = max(findings, key=lambda finding: finding.psi)
    named = highest
    of = f"{tested} features" + (f" (the first of {names})" if names > tested else "")
    beside = f"on {sizes[1]} rows beside {sizes[0]} of the reference data"
    if found:
        named = findings[0]
        shown = "; ".join(_said(finding) for finding in findings[: min(found, _SHOWN)])
        more = f" and {found - _SHOWN} more" if found > _SHOWN else ""
        sentence = f"{found} of {of} drifted, by a PSI of {policy.drift_psi:g} or more, {beside}: {shown}{more}"
    elif policy.drift_psi is None:
        sentence = f"{of} compared {beside}, and the policy limits no PSI; the highest: {_said(highest)}"
    elif unclear:
        named = max(findings[:unclear], key=lambda finding: finding.psi)
        sentence = (
            f"{unclear} of {of} may have drifted, by a PSI of {policy.drift_psi:g} or more that is neither shown to "
            f"hold nor what chance alone brings {beside}; the highest: {_said(named)}; about "
            f"{_rows_that_tell(named, policy.drift_psi):,.0f} rows on either side would tell"
        )
    elif highest.psi >= policy.drift_psi:
        sentence = (
            f"none of {of} is shown to have drifted {beside}; the highest: {_said(highest)}, "
            "which samples of this size come to by chance"
        )
    else:
        sentence = f"none of {of} has a PSI of {policy.drift_psi:g} {beside}; the highest: {_said(highest)}"
    return Verdict(
        check=CHECK,
        outcome=Outcome.FAIL if found else Outcome.INCONCLUSIVE if unclear else Outcome.PASS,
        sentence=sentence,
        n=sizes[1],
        value=named.psi,
        limit=policy.drift_psi,
        evidence=f"{EVIDENCE}/{findings.index(named)}",
        advisory=policy.drift_psi is None or (unclear > 0 and not found),
    )


def _rows_that_tell(finding: ReferenceDriftFinding, limit: float) -> float:
    """The rows that both sides need, for chance not to bring a PSI above the limit."""
    return finding.psi_noise / (1 / finding.n_reference + 1 / finding.n_validation) * 2 / limit


def _said(finding: ReferenceDriftFinding) -> str:
    return f"{excerpt(finding.feature, 40)} {finding.psi:.3g} (without drift up to {finding.psi_noise:.2g})"


def _without_columns() -> Verdict:
    return Verdict(
        check=CHECK,
        outcome=Outcome.INCONCLUSIVE,
        sentence="not looked at: the model's inputs have more than two dimensions, and no columns to compare",
        evidence=EVIDENCE,
        advisory=True,
    )


def _inconclusive(reason: str, sizes: tuple[int, int], policy: ValidationPolicy) -> Verdict:
    return Verdict(
        check=CHECK,
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"reference and validation data cannot be compared: {reason}",
        n=sizes[1],
        limit=policy.drift_psi,
        evidence=EVIDENCE,
        advisory=policy.drift_psi is None,
    )
