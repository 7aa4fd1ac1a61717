"""Scores what was counted against a reference: how far each feature lies from it, and whether that is more than chance.

Pure, from counts in the bins of one profile. An alarm needs both an effect that matters (a measure at its limit) and
evidence that it is no chance: a chi-square test of the same bins, after Benjamini-Hochberg over all features. A small
window comes to a large PSI by chance, and has no evidence; a large one has evidence of differences too small to matter.
Where rows are not independent, the evidence is what is left after `inflation`. No result is NaN. Loads numpy.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome, Verdict
from shared.drift import distances
from shared.drift.binning import NumberBins
from shared.drift.inflation import UNKNOWN, Inflations
from shared.drift.limits import MEASURES, Limits
from shared.drift.looks import LEAST_WORTH, Looks
from shared.drift.multiplicity import benjamini_hochberg
from shared.drift.sides import Counts, Floats, Side, by_feature, check_counts
from shared.telemetry.features import MOST_SPREADS, STEPS, FeatureCounts
from shared.telemetry.profile import CategoryFeature, Feature, NumberFeature, Profile

CHECK = "drift"
LEAST_REFERENCE = 100
"""Rows of a reference that may conclude something; fewer, where a window may have fewer."""
_SHOWN = 3
_NAMES = {
    "psi": "PSI",
    "jensen_shannon": "the Jensen-Shannon distance",
    "hellinger": "the Hellinger distance",
    "kolmogorov_smirnov": "the Kolmogorov-Smirnov distance",
    "wasserstein": "the Wasserstein distance",
    "unusable": "the rise of the unusable share",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureScore:
    """A feature's counts beside the reference's. Both in the feature's bins, the missing or unseen last."""

    feature: Feature
    reference: Counts
    actual: Counts
    psi: float
    psi_noise: float
    """What PSI stays below in 95 % of windows of this size without drift, by `inflation`."""
    jensen_shannon: float
    hellinger: float
    kolmogorov_smirnov: float | None
    """Of the numbers alone, over the bins. None where a side has no numbers, and of categories."""
    wasserstein: float | None
    """Likewise, in the reference's standard deviations, each bin's rows being at its `positions`."""
    unusable: float
    """How much greater the share of the missing, infinite or unseen is than the reference's; never negative."""
    chi_square: float
    degrees: int
    inflation: float
    """The mean of what its healthy windows' variance is of that of independent rows'."""
    p_value: float
    """The lesser of the bins' and of the unusable share's test, times two."""
    q_value: float
    """`p_value` after Benjamini-Hochberg over all features."""
    effect: float
    """Cohen's w of the bins, less what chance adds: the root of chi-square / inflation - degrees, by row."""
    over: tuple[str, ...]
    """The measures that are at their limits."""
    missing_share: float
    infinite_share: float
    unseen_share: float
    mean: float | None
    spread: float | None
    """Mean and standard deviation of the window's finite values, in the feature's own unit."""
    drifted: bool
    sentence: str

    @property
    def labels(self) -> tuple[str, ...]:
        """A name for each bin."""
        if isinstance(self.feature, CategoryFeature):
            return (*self.feature.categories, "rarer ones", "unseen")
        return NumberBins(edges=self.feature.edges).labels


def scored(
    profile: Profile,
    counts: FeatureCounts,
    limits: Limits,
    *,
    beside: FeatureCounts | None = None,
    inflation: Mapping[str, Inflations] | None = None,
    looks: Looks | None = None,
) -> list[FeatureScore]:
    """The scores of all features, in the profile's order, against the profile's own reference or against other counts.

    With `looks` the evidence is of what rows are worth, and holds at all looks together.

    Raises InvalidInputError where counts are not of this profile, contradict themselves, or are of no row.
    """
    check_counts(profile, counts)
    if beside is not None:
        check_counts(profile, beside)
    sides = (profile.rows if beside is None else beside.rows, counts.rows)
    if not min(sides):
        raise InvalidInputError(f"{sides[1]} rows and {sides[0]} of the reference were counted: each needs a row")
    known = inflation or {}
    found = [
        _measured(feature, reference, actual, known.get(feature.name, UNKNOWN), looks, of_both=beside is not None)
        for feature, reference, actual in by_feature(profile, counts, beside)
    ]
    q_values = benjamini_hochberg(np.array([score.p_value for score in found])) if found else ()
    is_enough = not _too_few(*sides, limits) and (looks is None or looks.is_enough)
    return [_judged(score, float(q), limits, is_enough=is_enough) for score, q in zip(found, q_values, strict=True)]


def verdict_of(scores: Sequence[FeatureScore], *, rows: int, limits: Limits, looks: Looks | None = None) -> Verdict:
    """One verdict on all features of a window of so many rows."""
    if looks is not None and rows >= limits.min_rows and not looks.is_enough:
        said = f"{rows} rows of few subjects are worth {looks.worth:.3g} independent ones: {LEAST_WORTH:g} are needed"
        return Verdict(check=CHECK, outcome=Outcome.INCONCLUSIVE, sentence=said, n=rows)
    reference = min((int(score.reference.sum()) for score in scores), default=rows)
    if too_few := _too_few(reference, rows, limits):
        return Verdict(check=CHECK, outcome=Outcome.INCONCLUSIVE, sentence=too_few, n=rows)
    drifted = sorted((score for score in scores if score.drifted), key=lambda score: -score.effect)
    worst = max((score.psi for score in drifted or scores), default=None)
    if not drifted:
        said = f"none of {len(scores)} features drifted in {rows} rows"
        return Verdict(check=CHECK, outcome=Outcome.PASS, sentence=said, n=rows, value=worst, limit=limits.psi)
    said = "; ".join(score.sentence for score in drifted[:_SHOWN])
    more = f"; and {len(drifted) - _SHOWN} more" if len(drifted) > _SHOWN else ""
    said = f"{len(drifted)} of {len(scores)} features drifted in {rows} rows: {said}{more}"
    return Verdict(check=CHECK, outcome=Outcome.FAIL, sentence=said, n=rows, value=worst, limit=limits.psi)


def positions(feature: NumberFeature) -> Floats:
    """Where the rows of each bin but the missing are taken to lie, in standard deviations from the reference's mean.

    In the middle between two edges. The outermost bins' rows lie as far beyond their edge as those of the next bin lie
    within; half a standard deviation where there is one edge, or the next bin is of one value.
    """
    edges = np.array(feature.edges)
    if not len(edges):
        return np.zeros(1)
    with np.errstate(over="ignore"):
        z = np.clip((edges - feature.mean) / feature.spread, -MOST_SPREADS, MOST_SPREADS)
    middles = (z[1:] + z[:-1]) / 2
    of_value = np.nextafter(edges[1:], -np.inf) == edges[:-1]
    low, high = np.where(of_value, 0.5, np.diff(z) / 2)[[0, -1]] if len(middles) else (0.5, 0.5)
    return np.concatenate([[z[0] - low], middles, [z[-1] + high]])


def _measured(
    feature: Feature, left: Side, right: Side, known: Inflations, looks: Looks | None, *, of_both: bool
) -> FeatureScore:
    reference, actual = left.bins, right.bins
    evidence = _evidence(left, right, known, looks, of_both=of_both)
    mean, spread = _moments(feature, right)
    rise = right.unusable / right.rows - left.unusable / left.rows
    return FeatureScore(
        feature=feature,
        reference=reference,
        actual=actual,
        psi=distances.psi(reference, actual),
        psi_noise=evidence.psi_noise,
        jensen_shannon=distances.jensen_shannon(reference, actual),
        hellinger=distances.hellinger(reference, actual),
        kolmogorov_smirnov=_of_numbers(feature, reference, actual, is_moved=False),
        wasserstein=_of_numbers(feature, reference, actual, is_moved=True),
        unusable=max(0.0, rise),
        chi_square=evidence.chi_square,
        degrees=evidence.degrees,
        inflation=evidence.inflation,
        p_value=evidence.p_value,
        q_value=evidence.p_value,
        effect=evidence.effect,
        over=(),
        missing_share=float(actual[-1]) / right.rows if isinstance(feature, NumberFeature) else 0.0,
        infinite_share=right.infinite / right.rows,
        unseen_share=float(actual[-1]) / right.rows if isinstance(feature, CategoryFeature) else 0.0,
        mean=mean,
        spread=spread,
        drifted=False,
        sentence="",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evidence:
    """Fields of a FeatureScore."""

    chi_square: float
    degrees: int
    inflation: float
    p_value: float
    effect: float
    psi_noise: float


def _evidence(left: Side, right: Side, known: Inflations, looks: Looks | None, *, of_both: bool) -> _Evidence:
    sizes = (left.rows, right.rows) if looks is None else (looks.reference.rows, looks.actual.rows)
    shares = sizes[0] / left.rows, sizes[1] / right.rows
    bins = left.bins.astype(np.float64) * shares[0], right.bins.astype(np.float64) * shares[1]
    unusable = left.usable * shares[0], right.usable * shares[1]
    p_values, found = [], []
    for inflation, (reference, actual) in ((known.bins, bins), (known.unusable, unusable)):
        statistic, degrees, _ = distances.chi_square(reference, actual)
        inflated = inflation.of(sizes[1], sizes[0], of_both=of_both).also(looks.freedom if looks else None)
        single = inflated.p_value(statistic, degrees)
        p_values.append(single if looks is None else looks.p_value(single, inflated.left_of(degrees)))
        found.append((statistic, degrees, inflated.mean))
    statistic, degrees, mean = found[0]
    size = 1 / (1 / sizes[0] + 1 / sizes[1])
    return _Evidence(
        chi_square=statistic,
        degrees=degrees,
        inflation=mean,
        p_value=min(1.0, 2 * min(p_values)),
        effect=float(np.sqrt(max(0.0, statistic / mean - degrees) / size)),
        psi_noise=distances.psi_noise(*bins) * mean,
    )


def _of_numbers(feature: Feature, reference: Counts, actual: Counts, *, is_moved: bool) -> float | None:
    if not isinstance(feature, NumberFeature) or not reference[:-1].any() or not actual[:-1].any():
        return None
    if is_moved:
        return distances.wasserstein(reference[:-1], actual[:-1], positions(feature))
    return distances.kolmogorov_smirnov(reference[:-1], actual[:-1])


def _moments(feature: Feature, side: Side) -> tuple[float | None, float | None]:
    finite = side.rows - side.unusable
    if not isinstance(feature, NumberFeature) or finite < 1:
        return None, None
    z = side.steps / STEPS / finite
    variance = max(0.0, side.squares / STEPS**2 / finite - z * z)
    mean, spread = feature.mean + z * feature.spread, variance**0.5 * feature.spread
    return (mean, spread) if np.isfinite(mean) and np.isfinite(spread) else (None, None)


def _judged(score: FeatureScore, q_value: float, limits: Limits, *, is_enough: bool) -> FeatureScore:
    over = tuple(name for name in MEASURES if _is_over(getattr(score, name), getattr(limits, name)))
    is_evident = q_value <= limits.false_discovery_rate
    score = replace(score, q_value=q_value, over=over, drifted=bool(over) and is_evident and is_enough)
    return replace(score, sentence=_sentence(score, limits, is_evident=is_evident, is_enough=is_enough))


def _too_few(reference: int, rows: int, limits: Limits) -> str:
    """Why a window beside a reference, of so many rows each, concludes nothing; empty where it may."""
    if rows < limits.min_rows:
        return f"{rows} rows were counted: {limits.min_rows} are needed"
    least = min(limits.min_rows, LEAST_REFERENCE)
    return f"the reference has {reference} rows: {least} are needed" if reference < least else ""


def _is_over(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value >= limit


def _sentence(score: FeatureScore, limits: Limits, *, is_evident: bool, is_enough: bool) -> str:
    name = score.over[0] if score.over else next((one for one in MEASURES if getattr(limits, one) is not None), "psi")
    value, limit = getattr(score, name), getattr(limits, name)
    said = f"{_NAMES[name]} of {score.feature.name!r}"
    said += f" is {value:.3g}" if value is not None else " cannot be told"
    if limit is not None:
        said += f", {'at or above' if score.over else 'below'} the limit of {limit:g}"
    chance = f"chi-square, q = {score.q_value:.2g}" + (f", inflation {score.inflation:.2g}" * (score.inflation > 1))
    if not is_enough:
        return f"{said}; too few rows to conclude ({chance})"
    return f"{said}, {'and no chance' if is_evident else 'which may be chance'} ({chance})"
