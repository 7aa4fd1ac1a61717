"""Gaps between the groups of protected columns: demographic parity and equal opportunity.

Demographic parity: how far the shares of rows predicted positive differ; equal opportunity (Hardt, Price and Srebro
2016): the shares of truly positive rows that are predicted so. A gap is the highest group's rate minus the lowest's.
Its interval is Newcombe's, widened (Bonferroni) over all pairs of groups and all gaps reported, for the highest and
lowest are picked after looking. With a limit in the policy: a gap within it passes, one whose interval lies beyond it
fails, and one between is inconclusive, for it may be chance. Without, the verdict is advisory.
Loads numpy: for the sandboxed process.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.validation.datafile import Array
from shared.validation.details import FairnessFinding
from shared.validation.refusal import excerpt
from shared.validation.statistics.columns import parts
from shared.validation.statistics.evidence import Flags, Predictions
from shared.validation.statistics.intervals import LEVEL, newcombe
from shared.validation.statistics.results import Fairness

CHECK = "fairness"
EVIDENCE = "/details/fairness"
QUANTILES = 5
"""Groups of a number with many values, such as an age."""
_MAX_NAME = 100
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """For each group of a column with enough rows, how many rows it has and how many of them are hits."""

    column: str
    definition: str
    counts: dict[str, tuple[int, int]]
    left_out: tuple[str, ...]

    @property
    def pairs(self) -> int:
        return len(self.counts) * (len(self.counts) - 1) // 2


def fairness_gaps(predictions: Predictions, columns: Mapping[str, Array], *, policy: ValidationPolicy) -> Fairness:
    """Compare the groups of `columns`, arrays of shape [n] over the predictions' rows.

    Groups with fewer than `min_slice_rows` rows (for equal opportunity: truly positive rows) are left out and named.
    """
    if predictions.task is Task.REGRESSION:
        return _unmeasured("these gaps are of classes, and the task is regression", predictions, policy)
    if predictions.positive is None:
        return _unmeasured("name the class to look at as `positive_class` in the manifest", predictions, policy)
    chosen = predictions.predicted == predictions.positive
    deserving = predictions.labels == predictions.positive
    everyone = np.ones(predictions.rows, dtype=np.bool_)
    grouped = [
        _groups(name, definition, array, chosen, among, policy.min_slice_rows)
        for name, array in columns.items()
        for definition, among in (("demographic_parity", everyone), ("equal_opportunity", deserving))
    ]
    comparable = [groups for groups in grouped if len(groups.counts) >= 2]
    left_out = [f"{groups.column} {name} ({groups.definition})" for groups in grouped for name in groups.left_out]
    if not comparable:
        few = f"no two groups have {policy.min_slice_rows} rows each"
        return _unmeasured(few, predictions, policy)
    comparisons = sum(groups.pairs for groups in comparable)
    findings = sorted((_finding(groups, comparisons) for groups in comparable), key=lambda finding: -finding.gap)
    return Fairness(findings=tuple(findings), verdict=_verdict(findings, left_out, predictions.rows, policy))


def _groups(column: str, definition: str, array: Array, chosen: Flags, among: Flags, least: int) -> _Groups:
    names, codes = parts(array, QUANTILES)
    rows = np.bincount(codes[among], minlength=len(names)).tolist()
    hits = np.bincount(codes[among & chosen], minlength=len(names)).tolist()
    there = set(np.unique(codes).tolist())
    counts: dict[str, tuple[int, int]] = {}
    for code, name in enumerate(names):
        if rows[code] >= least:
            short = excerpt(name, _MAX_NAME)
            counts[short if short not in counts else f"{short} #{code}"] = (hits[code], rows[code])
    left_out = tuple(excerpt(name, 40) for code, name in enumerate(names) if code in there and rows[code] < least)
    return _Groups(column=column, definition=definition, counts=counts, left_out=left_out)


def _finding(groups: _Groups, comparisons: int) -> FairnessFinding:
    rates = {name: hits / rows for name, (hits, rows) in groups.counts.items()}
    highest, lowest = max(rates, key=rates.__getitem__), min(rates, key=rates.__getitem__)
    level = 1 - (1 - LEVEL) / comparisons
    return FairnessFinding(
        column=excerpt(groups.column, 200),
        definition=groups.definition,
        gap=rates[highest] - rates[lowest],
        interval=newcombe(groups.counts[highest], groups.counts[lowest], level),
        highest=highest,
        lowest=lowest,
        rates=rates,
        counts={name: rows for name, (_, rows) in groups.counts.items()},
    )


def _verdict(findings: list[FairnessFinding], left_out: list[str], rows: int, policy: ValidationPolicy) -> Verdict:
    limit = policy.fairness_gap
    beyond = [] if limit is None else [f for f in findings if f.interval is not None and f.interval[0] > limit]
    above = [] if limit is None else [f for f in findings if f.gap > limit]
    named = max(beyond or above or findings, key=lambda finding: finding.gap)
    shown = "; ".join(_said(finding) for finding in (beyond or above or findings)[:_SHOWN])
    if limit is None:
        outcome, judged = Outcome.PASS, "the policy limits no gap"
    elif beyond:
        outcome, judged = Outcome.FAIL, f"{len(beyond)} of {len(findings)} gaps exceed the limit {limit:g}"
    elif above:
        outcome, judged = Outcome.INCONCLUSIVE, f"above the limit {limit:g}, which may be chance: add validation data"
    else:
        outcome, judged = Outcome.PASS, f"all {len(findings)} gaps are within the limit {limit:g}"
    sentence = f"{shown}; {judged}"
    if left_out:
        more = f" and {len(left_out) - _SHOWN} more" if len(left_out) > _SHOWN else ""
        sentence += f"; with fewer than {policy.min_slice_rows} rows left out: {', '.join(left_out[:_SHOWN])}{more}"
    return Verdict(
        check=CHECK,
        outcome=outcome,
        sentence=sentence,
        n=rows,
        value=named.gap,
        limit=limit,
        interval=named.interval,
        evidence=f"{EVIDENCE}/{findings.index(named)}",
        advisory=limit is None,
    )


def _said(finding: FairnessFinding) -> str:
    interval = finding.interval or (finding.gap, finding.gap)
    return (
        f"{finding.definition} of {excerpt(finding.column, 40)}: {finding.gap:.3f} "
        f"({interval[0]:.3f} to {interval[1]:.3f}, all gaps together at 95 %), "
        f"{excerpt(finding.highest, 40)} {finding.rates[finding.highest]:.3g} and "
        f"{excerpt(finding.lowest, 40)} {finding.rates[finding.lowest]:.3g}"
    )


def _unmeasured(reason: str, predictions: Predictions, policy: ValidationPolicy) -> Fairness:
    verdict = Verdict(
        check=CHECK,
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"no gap between groups can be measured: {reason}",
        n=predictions.rows,
        limit=policy.fairness_gap,
        evidence=EVIDENCE,
        advisory=policy.fairness_gap is None,
    )
    return Fairness(findings=(), verdict=verdict)
