"""Steps on the predictions: metrics against thresholds, the champion on the same rows, parts of the data, drift.

None of them ends the chain: who reads the report wants to know all that is wrong, not the first of it. Statistics load
when they are needed.
"""

from shared.core.verdict import Verdict, joined
from shared.registry.signature import SignatureChange
from shared.validation.chain import Chain, Sample
from shared.validation.checks.verdicts import failed, listed, unclear
from shared.validation.datafile import Array
from shared.validation.model import ModelError
from shared.validation.predictions import read_predictions
from shared.validation.refusal import excerpt
from shared.validation.steps.champion import champion_predictions
from shared.validation.wire import Stage

_MAX_REASON = 250
_UNPROTECTED = (
    "the policy limits the gap between groups, and the manifest names no column of them: name one as `protected`"
)
_INSTEAD = (
    "name another version as champion, or set the policy's noninferiority_margin to null, and run `slipway revalidate`"
)


def measure(chain: Chain) -> bool:
    """Metrics with their intervals, against the policy's thresholds; then what the manifest claims."""
    data, outputs = chain.data, chain.outputs
    if data is None or outputs is None or data.labels is None:
        return True
    from shared.validation.statistics.estimates import measure as measured_of  # noqa: PLC0415 - when it is needed
    from shared.validation.statistics.limits import claims, thresholds  # noqa: PLC0415

    chain.begin(Stage.MEASURING)
    manifest = chain.work.manifest
    try:
        chain.predictions = read_predictions(data.labels, outputs, chain.loaded.signature, manifest)
    except ModelError as error:
        chain.add(failed("metrics", str(error), n=data.rows))
        return True
    measured = measured_of(chain.predictions, claimed=manifest.metrics)
    chain.metrics = measured.values
    chain.sections["metrics"] = measured.estimates
    chain.sections["confusion"] = measured.confusion
    chain.sections["calibration"] = measured.calibration
    chain.add(*thresholds(measured, manifest.task, chain.work.policy), *claims(measured, manifest.metrics))
    return True


def compare(chain: Chain) -> bool:
    """Non-inferiority to the champion on the same rows."""
    if chain.predictions is None or (chain.champion is None and not chain.champion_unusable):
        return True
    found = champion_predictions(chain)
    if found is None:
        chain.add(_not_compared(chain))
        return True
    champion, foreign = found
    from shared.validation.statistics.comparison import compare as compared_of  # noqa: PLC0415

    chain.begin(Stage.MEASURING)
    compared = compared_of(
        chain.predictions, champion, champion_version=chain.work.champion_version, policy=chain.work.policy
    )
    chain.sections["comparison"] = compared.findings
    sentence = compared.verdict.sentence
    if foreign:
        sentence += f"; {foreign} rows that are foreign to the champion count as its errors"
    chain.add(compared.verdict.model_copy(update={"sentence": sentence}))
    return True


def slices(chain: Chain) -> bool:
    """Parts of the data where the version fares worse: of the columns that manifest or policy name, or of all features.

    Only parts of named columns decide; one that the policy names and the data lacks leaves the check open. Somewhere
    between its features every model is worse than elsewhere: near where classes meet.
    """
    if chain.predictions is None or chain.data is None:
        return True
    from shared.validation.statistics.slices import find_slices  # noqa: PLC0415

    chain.begin(Stage.MEASURING)
    wanted = tuple(dict.fromkeys((*chain.work.policy.slices, *chain.work.manifest.slices)))
    sliced = find_slices(
        chain.predictions,
        _columns(chain.data, wanted) if wanted else _features(chain.data),
        policy=chain.work.policy,
        named=bool(wanted),
    )
    chain.sections["slices"] = sliced.findings
    chain.sections["slices_tested"] = sliced.tested
    lacking = [name for name in chain.work.policy.slices if name not in chain.data.columns]
    if lacking:
        chain.add(_lacking(sliced.verdict, lacking))
    else:
        chain.add(sliced.verdict if wanted else sliced.verdict.model_copy(update={"advisory": True}))
    return True


def _lacking(verdict: Verdict, columns: list[str]) -> Verdict:
    """A verdict on slices, of which some could not be looked at."""
    names = listed(columns, quoted=True)
    open_one = unclear(verdict.check, f"the policy has {names} measured, which the validation data lacks: add it")
    return verdict.model_copy(
        update={
            "outcome": joined((verdict.model_copy(update={"advisory": False}), open_one)),
            "sentence": f"{open_one.sentence}; {verdict.sentence}",
            "advisory": False,
        }
    )


def fairness(chain: Chain) -> bool:
    """Gaps between the groups of protected columns, which the manifest names; it must where the policy limits them."""
    wanted = chain.work.manifest.protected
    if chain.predictions is None or chain.data is None:
        return True
    if not wanted:
        if chain.work.policy.fairness_gap is not None:
            chain.add(unclear("fairness", _UNPROTECTED))
        return True
    from shared.validation.statistics.fairness import fairness_gaps  # noqa: PLC0415

    chain.begin(Stage.MEASURING)
    found = fairness_gaps(chain.predictions, _columns(chain.data, wanted), policy=chain.work.policy)
    chain.sections["fairness"] = found.findings
    chain.add(found.verdict)
    return True


def drift(chain: Chain) -> bool:
    """The features of the validation data beside those of the reference data."""
    if chain.data is None or chain.reference is None:
        return True
    from shared.validation.statistics.drift import reference_drift  # noqa: PLC0415

    chain.begin(Stage.MEASURING)
    drifted = reference_drift(_features(chain.reference), _features(chain.data), policy=chain.work.policy)
    chain.sections["drift"] = drifted.findings
    chain.sections["features_tested"] = drifted.tested
    chain.add(drifted.verdict)
    return True


def _not_compared(chain: Chain) -> Verdict:
    """Advice where the version breaks the champion's callers, for a rollout of it must be forced; else it decides."""
    from shared.validation.statistics.comparison import CHECK  # noqa: PLC0415

    diff = chain.sections.get("signature")
    breaks = diff is not None and diff.change is SignatureChange.BREAKING
    said = f"not compared: {chain.champion_name} {excerpt(chain.champion_unusable, _MAX_REASON)}; {_INSTEAD}"
    return unclear(CHECK, said, advisory=breaks or chain.work.policy.noninferiority_margin is None)


def _columns(data: Sample, names: tuple[str, ...]) -> dict[str, Array]:
    return {name: data.columns[name] for name in names if name in data.columns}


def _features(data: Sample) -> dict[str, Array]:
    """The columns that are features of the model, not those that are only declared."""
    return _columns(data, data.features)
