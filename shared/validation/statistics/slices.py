"""Parts of the validation data where the model fares worse than on the rest.

Each column is cut into parts (shared.validation.statistics.columns), and each part with enough rows is tested against
all other rows, one-sided: by Fisher's exact test of errors for classification, by Welch's t of absolute errors for
regression. A part is found where it is worse by more than the policy's gap and the evidence holds after
Benjamini-Hochberg over all parts of all columns: of what is found, at most 5 % is chance.
benchmarks/slices.py measures that, and the power.
Loads numpy: for the sandboxed process.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.core.verdict import Outcome, Verdict
from shared.drift.multiplicity import benjamini_hochberg
from shared.registry.manifest import Task
from shared.registry.policy import ValidationPolicy
from shared.validation.datafile import Array
from shared.validation.details import MAX_FINDINGS, SliceFinding
from shared.validation.refusal import excerpt
from shared.validation.statistics.columns import parts, sample_of
from shared.validation.statistics.evidence import Floats, Predictions
from shared.validation.statistics.intervals import newcombe, normal_quantile
from shared.validation.statistics.results import Sliced

CHECK = "slices"
EVIDENCE = "/details/slices"
FALSE_DISCOVERY_RATE = 0.05
MAX_COLUMNS = 200
_MOST_PARTS = 10
_SHOWN = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """A part and the rest: rows, mean errors, and the difference's standard error where errors are no proportions."""

    column: str
    name: str
    n: int
    rest_n: int
    error: float
    rest_error: float
    spread: float
    unit: float
    """What a gap is measured in: 1 for accuracy, the rest's mean error for regression."""
    p_value: float

    @property
    def gap(self) -> float:
        return (self.error - self.rest_error) / self.unit

    def interval(self, task: Task) -> tuple[float, float]:
        """The gap's 95 % interval by itself, not held against how many parts there are."""
        if task is Task.CLASSIFICATION:
            return newcombe((self.error * self.n, self.n), (self.rest_error * self.rest_n, self.rest_n))
        half = normal_quantile(0.975) * self.spread / self.unit
        return self.gap - half, self.gap + half


def find_slices(
    predictions: Predictions, columns: Mapping[str, Array], *, policy: ValidationPolicy, named: bool = False
) -> Sliced:
    """Test the parts of `columns`, arrays of shape [n] over the predictions' rows.

    `named` says that the manifest asked for these columns: that none can be tested is then inconclusive, and else a
    remark. Without a gap in the policy the verdict is advisory.
    """
    rows = sample_of(predictions.rows)
    errors = _errors(predictions)[rows]
    tested = [
        part
        for name, array in list(columns.items())[:MAX_COLUMNS]
        for part in _parts(name, array[rows], errors, predictions.task, policy.min_slice_rows)
    ]
    if not tested:
        return Sliced(findings=(), tested=0, verdict=_untested(len(errors), len(columns), policy, named=named))
    q_values = benjamini_hochberg(np.array([part.p_value for part in tested]))
    limit = math.inf if policy.slice_gap is None else policy.slice_gap
    findings = sorted(
        (
            (part, q, part.gap > limit and q <= FALSE_DISCOVERY_RATE)
            for part, q in zip(tested, q_values.tolist(), strict=True)
        ),
        key=lambda one: (not one[2], one[1], -one[0].gap),
    )
    reported = tuple(_finding(*one, predictions.task) for one in findings[:MAX_FINDINGS])
    found = sum(is_found for *_, is_found in findings)
    remarks = ""
    if len(columns) > MAX_COLUMNS:
        remarks += f"; of {len(columns)} columns the first {MAX_COLUMNS} were cut"
    if len(errors) < predictions.rows:
        remarks += f"; of {predictions.rows} rows a sample of {len(errors)} was looked at"
    verdict = _verdict(reported, found, len(tested), len(errors), policy, remarks)
    return Sliced(findings=reported, tested=len(tested), verdict=verdict)


def _errors(predictions: Predictions) -> Floats:
    """Each row's error: for classification 1 where it is wrong. Shape [n]."""
    if predictions.task is Task.REGRESSION:
        return predictions.absolute_errors
    return (~predictions.correct).astype(np.float64)


def _parts(column: str, array: Array, errors: Floats, task: Task, least: int) -> list[_Part]:
    """The parts of a column that have enough rows, as the rest has, and are not the whole of it."""
    rows = len(errors)
    names, codes = parts(array, max(2, min(_MOST_PARTS, rows // least)))
    counts = np.bincount(codes, minlength=len(names))
    sums = np.bincount(codes, weights=errors, minlength=len(names))
    squares = np.bincount(codes, weights=errors**2, minlength=len(names))
    found = []
    for at in np.flatnonzero((counts >= least) & (rows - counts >= least)).tolist():
        n, rest_n = int(counts[at]), rows - int(counts[at])
        error, rest_error = float(sums[at] / n), float((sums.sum() - sums[at]) / rest_n)
        if task is Task.CLASSIFICATION:
            spread, unit = 0.0, 1.0
            p_value = fisher_tail(round(sums[at]), n, round(sums.sum()), rows)
        else:
            variances = (
                max(0.0, float(squares[at] / n) - error**2) / (n - 1),
                max(0.0, float((squares.sum() - squares[at]) / rest_n) - rest_error**2) / (rest_n - 1),
            )
            spread, unit = math.sqrt(sum(variances)), rest_error or float(errors.mean()) or 1.0
            p_value = _welch_tail(error - rest_error, variances, (n, rest_n))
        found.append(
            _Part(
                column=column,
                name=names[at],
                n=n,
                rest_n=rest_n,
                error=error,
                rest_error=rest_error,
                spread=spread,
                unit=unit,
                p_value=p_value,
            )
        )
    return found


def _welch_tail(away: float, variances: tuple[float, float], sizes: tuple[int, int]) -> float:
    """One-sided p-value of Welch's t (1947), from the variances of the two means."""
    from scipy.special import stdtr  # noqa: PLC0415

    total = sum(variances)
    if total <= 0:
        return 0.0 if away > 0 else 1.0
    weights = sum(variance**2 / (size - 1) for variance, size in zip(variances, sizes, strict=True))
    return float(stdtr(total**2 / weights, -away / math.sqrt(total)))


def _finding(part: _Part, q_value: float, is_found: bool, task: Task) -> SliceFinding:  # noqa: FBT001 - private
    wrong = task is Task.CLASSIFICATION
    return SliceFinding(
        column=excerpt(part.column, 200),
        part=excerpt(part.name, 200),
        metric="accuracy" if wrong else "mae",
        n=part.n,
        value=1 - part.error if wrong else part.error,
        rest=1 - part.rest_error if wrong else part.rest_error,
        gap=part.gap,
        interval=part.interval(task),
        p_value=part.p_value,
        q_value=q_value,
        found=is_found,
    )


def _verdict(
    findings: tuple[SliceFinding, ...], found: int, tested: int, rows: int, policy: ValidationPolicy, remarks: str
) -> Verdict:
    worst = findings[0]
    if found:
        shown = [_said(finding) for finding in findings[: min(found, _SHOWN)]]
        more = f" and {found - _SHOWN} more" if found > _SHOWN else ""
        sentence = f"{found} of {tested} slices fare worse than the rest by more than {policy.slice_gap:g}: "
        sentence += "; ".join(shown) + more
    elif policy.slice_gap is None:
        sentence = f"{tested} slices measured, and the policy limits no gap; the likeliest to be worse: {_said(worst)}"
    else:
        sentence = f"none of {tested} slices is shown to fare worse than the rest by more than {policy.slice_gap:g}; "
        sentence += f"the likeliest: {_said(worst)}"
    return Verdict(
        check=CHECK,
        outcome=Outcome.FAIL if found else Outcome.PASS,
        sentence=sentence + remarks,
        n=rows,
        value=worst.gap,
        limit=policy.slice_gap,
        interval=worst.interval,
        evidence=f"{EVIDENCE}/0",
        advisory=policy.slice_gap is None,
    )


def _said(finding: SliceFinding) -> str:
    return (
        f"{excerpt(finding.column, 40)} {excerpt(finding.part, 40)}: {finding.metric} {finding.value:.3g} on "
        f"{finding.n} rows beside {finding.rest:.3g} (q {finding.q_value:.2g})"
    )


def _untested(rows: int, columns: int, policy: ValidationPolicy, *, named: bool) -> Verdict:
    least = policy.min_slice_rows
    return Verdict(
        check=CHECK,
        outcome=Outcome.INCONCLUSIVE,
        sentence=f"no part of {columns} columns can be tested on {rows} rows: a part and the rest each need {least}",
        n=rows,
        limit=policy.slice_gap,
        evidence=EVIDENCE,
        advisory=policy.slice_gap is None or not named,
    )


def fisher_tail(part: int, part_rows: int, errors: int, rows: int) -> float:
    """The probability of `part` errors or more among `part_rows` of `rows` rows of which `errors` are wrong.

    The one-sided exact test of Fisher (1935).
    """
    from scipy.special import gammaln  # noqa: PLC0415

    right = rows - errors
    least = max(0, part_rows - right)
    if part <= least:
        return 1.0
    expected = part_rows * errors / rows
    spread = math.sqrt(expected * (right / rows) * (rows - part_rows) / (rows - 1))
    # What lies beyond has a probability below 1e-14 of what is counted.
    last = min(part_rows, errors, math.ceil(max(expected, part) + 12 * spread) + 60)
    k = np.arange(part, last + 1, dtype=np.float64)

    def ways(of: float, taken: Floats) -> Floats:
        logs: Floats = gammaln(of + 1) - gammaln(taken + 1) - gammaln(of - taken + 1)
        return logs

    logs = ways(errors, k) + ways(right, part_rows - k) - ways(rows, np.array([float(part_rows)]))
    return min(1.0, float(np.exp(logs).sum()))
