"""What a model's answers to unexpected inputs, and to the same input in another way, say of it.

Whether rows are answered alike again and in any company decides: a server runs requests of many callers together, and
replays golden rows. What a model answers to NaN or extremes is for its readers to know. Pure.
"""

from collections.abc import Callable, Iterable, Mapping

from shared.core.verdict import Outcome, Verdict
from shared.validation.checks.verdicts import listed
from shared.validation.details import RobustnessFinding
from shared.validation.probes.behaviour import Difference, Observation, Probe
from shared.validation.refusal import excerpt
from shared.validation.tolerance import Tolerances

_MAX_SENTENCE = 500
_DECIDING = frozenset({Probe.REPEATS, Probe.BATCH_AGAINST_SINGLE})


def robustness(
    observations: Iterable[Observation], tolerances: Tolerances
) -> tuple[tuple[RobustnessFinding, ...], list[Verdict]]:
    """A finding and a verdict for each observation. Only repeats and batches decide; the others are advice."""
    findings, verdicts = [], []
    for observation in observations:
        outcome, behaviour, sentence = _READ[observation.probe](observation, tolerances)
        worst = _furthest(observation.differences)
        findings.append(
            RobustnessFinding(
                probe=observation.probe.value,
                behaviour=behaviour,
                sentence=excerpt(sentence, _MAX_SENTENCE),
                worst_difference=worst.worst if worst else None,
            )
        )
        verdicts.append(
            Verdict(
                check=observation.probe.value,
                outcome=outcome,
                sentence=sentence,
                n=observation.rows,
                value=worst.worst if worst else None,
                limit=worst.allowed if worst else None,
                evidence=f"/details/robustness/{len(findings) - 1}",
                advisory=observation.probe not in _DECIDING,
            )
        )
    return tuple(findings), verdicts


type _Reading = tuple[Outcome, str, str]


def _repeats(seen: Observation, tolerances: Tolerances) -> _Reading:
    if seen.refused:
        return Outcome.FAIL, "refuses with an error", f"the same {seen.rows} rows again are an error: {seen.error}"
    ways = "again" if seen.sessions == 1 else "again and in a second session"
    differing = _worst(seen.differences)
    if differing is not None:
        said = f"the same {seen.rows} rows run {ways} give other answers: {_difference(differing, tolerances)}"
        return Outcome.FAIL, "differs", said
    return Outcome.PASS, "answers", f"the same {seen.rows} rows run {ways} give the same answers{_within(seen)}"


def _batch_against_single(seen: Observation, tolerances: Tolerances) -> _Reading:
    if seen.skipped:
        return Outcome.PASS, "not tried", f"rows were not run apart and together: {seen.skipped}"
    if seen.refused:
        said = f"rows that are answered in a batch fail {seen.refused[0]}: {seen.error}"
        return Outcome.FAIL, "refuses with an error", said
    beside = "as measured" if seen.is_measured else "in a batch"
    differing = _worst(seen.differences)
    if differing is not None:
        how = "alone" if differing.at_once == 1 else f"{differing.at_once} at once"
        said = f"{how} they get other answers than {beside}: {_difference(differing, tolerances)}"
        cure = "where that is but the arithmetic of another batch size, declare `tolerances` in the manifest"
        return Outcome.FAIL, "differs", f"rows influence each other, {said}; {cure}"
    same = f"{seen.rows} rows get the same answers alone, or in batches of other rows, as {beside.removeprefix('as ')}"
    return Outcome.PASS, "answers", f"{same}{_within(seen)}"


def _outlier(seen: Observation, tolerances: Tolerances) -> _Reading:
    if seen.skipped:
        return Outcome.PASS, "not tried", f"rows were not run beside an outlier: {seen.skipped}"
    if seen.refused:
        return (
            Outcome.PASS,
            "refuses with an error",
            f"rows beside one of far greater numbers are an error: {seen.error}",
        )
    differing = _worst(seen.differences)
    if differing is not None:
        said = f"beside one of far greater numbers rows get other answers: {_difference(differing, tolerances)}"
        cause = "it takes a scale from all rows of a call, as dynamic quantisation does"
        return Outcome.FAIL, "differs", f"{said}; {cause}: a request's own rows change each other's answers"
    return (
        Outcome.PASS,
        "answers",
        f"{seen.rows} rows keep their answers beside one of far greater numbers{_within(seen)}",
    )


def _nan(seen: Observation, _: Tolerances) -> _Reading:
    if seen.skipped:
        return Outcome.PASS, "not tried", f"NaN was not tried: {seen.skipped}"
    return Outcome.PASS, *_behaviour(seen, "rows with NaN")


def _infinity(seen: Observation, _: Tolerances) -> _Reading:
    if seen.skipped:
        return Outcome.PASS, "not tried", f"infinities were not tried: {seen.skipped}"
    return Outcome.PASS, *_behaviour(seen, "rows with infinities")


def _extremes(seen: Observation, _: Tolerances) -> _Reading:
    if seen.skipped:
        return Outcome.PASS, "not tried", f"extreme values were not tried: {seen.skipped}"
    outcome = Outcome.FAIL if seen.not_finite else Outcome.PASS
    return outcome, *_behaviour(seen, "extreme values")


def _empty_batch(seen: Observation, _: Tolerances) -> _Reading:
    if seen.skipped:
        return Outcome.PASS, "not tried", f"an empty batch was not tried: {seen.skipped}"
    if seen.refused:
        return Outcome.PASS, "refuses with an error", f"an empty batch is an error: {seen.error}"
    if seen.wrong_rows:
        return Outcome.FAIL, "answers with rows", f"an empty batch gets an answer that is not empty: {seen.wrong_rows}"
    return Outcome.PASS, "answers", "an empty batch gets an empty answer"


_READ: Mapping[Probe, Callable[[Observation, Tolerances], _Reading]] = {
    Probe.REPEATS: _repeats,
    Probe.BATCH_AGAINST_SINGLE: _batch_against_single,
    Probe.OUTLIER: _outlier,
    Probe.NAN: _nan,
    Probe.INFINITY: _infinity,
    Probe.EXTREMES: _extremes,
    Probe.EMPTY_BATCH: _empty_batch,
}


def _behaviour(seen: Observation, what: str) -> tuple[str, str]:
    parts = []
    if seen.not_finite:
        parts.append(f"{what} get answers with NaN or infinities{_of(seen.not_finite, seen)}")
    if seen.refused:
        parts.append(f"{what} are an error{_of(seen.refused, seen)}: {seen.error}")
    if not parts:
        return "answers", f"{what} get finite answers"
    return "answers with NaN" if seen.not_finite else "refuses with an error", "; ".join(parts)


def _of(some: tuple[str, ...], seen: Observation) -> str:
    """Which of several inputs; nothing where there was one."""
    return f" for {listed(some)}" if len(seen.tried) > 1 else ""


def _furthest(differences: tuple[Difference, ...]) -> Difference | None:
    """The one that goes furthest beyond its tolerance, or comes nearest to it, among those that have a distance."""
    distant = [difference for difference in differences if difference.worst is not None]
    return max(distant, key=lambda d: (d.worst or 0.0) - (d.allowed or 0.0), default=None)


def _worst(differences: tuple[Difference, ...]) -> Difference | None:
    found = [difference for difference in differences if difference.differing]
    return max(found, key=lambda d: d.differing / max(d.values, 1), default=None)


def _difference(difference: Difference, tolerances: Tolerances) -> str:
    output = excerpt(difference.output, 60)
    if difference.why:
        return f"the output {output!r} is {difference.why}"
    said = f"{difference.differing} of {difference.values} values of the output {output!r} differ"
    if difference.worst is not None:
        said += f", by up to {difference.worst:.3g}"
    tolerance = tolerances.get(difference.output)
    if tolerance is not None:
        said += f" (tolerance {tolerance.atol:g} + {tolerance.rtol:g} of the value)"
    return said


def _within(seen: Observation) -> str:
    worst = max((d.worst for d in seen.differences if d.worst is not None), default=0.0)
    return f", within {worst:.2g}" if worst else ""
