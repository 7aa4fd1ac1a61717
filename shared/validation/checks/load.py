"""What loading a model costs, and what it takes and gives. Pure."""

from collections.abc import Mapping

from shared.core.verdict import Outcome, Verdict
from shared.registry.manifest import Tolerance
from shared.registry.policy import ValidationPolicy
from shared.registry.signature import FREE, Signature, SignatureChange, SignatureDiff, TensorSpec
from shared.validation.checks.verdicts import failed, passed, size
from shared.validation.details import LoadFigures
from shared.validation.refusal import excerpt

_SHOWN = 5
_EVIDENCE = "/details/load"
_MAX_SIGNATURE_BYTES = 200_000
_MAX_DIFFERENCES = 100
_MAX_DIFFERENCE_LENGTH = 300


def predicted_server_bytes(*, grown_bytes: int, size_bytes: int) -> int:
    """What a version adds to each worker of a model server: what it added to this process, and at least what it is.

    `size_bytes` is that of its files. External data is mapped, and in memory as far as used: sooner or later, all.
    The bytes that the server makes its session from are there only while it loads. benchmarks/memory_prediction.py
    measures both.
    """
    return max(grown_bytes, size_bytes)


def loads(signature: Signature, figures: LoadFigures) -> Verdict:
    """What a model that loaded takes and gives, and in what time."""
    sentence = (
        f"the model loads in {figures.load_s:.2g} s: {_listed(signature.inputs)} gives {_listed(signature.outputs)}"
    )
    return passed("load", sentence, evidence=_EVIDENCE)


def signature_unusable(found: Signature) -> Verdict | None:
    """Can calls have the rows that the inputs want, and does the signature fit into the version's document, which
    repeats it? None where it is so.
    """
    rows = {spec.shape[:1] for spec in found.inputs}
    if (0,) in rows and rows <= {(0,), (FREE,)}:
        return failed(
            "load", "the graph fixes its rows at 0, which no request has: export it with a free first dimension"
        )
    size_bytes = len(found.model_dump_json())
    if size_bytes <= _MAX_SIGNATURE_BYTES:
        return None
    said = (
        f"the names and shapes of {len(found.inputs)} inputs and {len(found.outputs)} outputs take {size(size_bytes)}, "
        f"above {size(_MAX_SIGNATURE_BYTES)}: shorten the names, or join inputs to one tensor"
    )
    return failed("load", said)


def tolerance(claimed: Mapping[str, Tolerance], too_wide: Mapping[str, Tolerance], policy: ValidationPolicy) -> Verdict:
    """Are the tolerances that a manifest claims within the policy's? Wider ones let any answer pass for another."""
    limits = f"the policy's max_rtol {policy.max_rtol:g} and max_atol {policy.max_atol:g}"
    if not too_wide:
        return passed("tolerance", f"the manifest's {len(claimed)} tolerances are within {limits}", n=len(claimed))
    name, widest = max(too_wide.items(), key=lambda item: (item[1].rtol, item[1].atol))
    sentence = (
        f"the manifest claims rtol {widest.rtol:g} and atol {widest.atol:g} for the output {excerpt(name, 60)!r}, "
        f"beyond {limits}: claim less, or have them raised"
    )
    return failed("tolerance", sentence, n=len(claimed))


def bounded(diff: SignatureDiff) -> SignatureDiff:
    """A difference as a report can hold it: not too many sentences, none too long."""
    kept = tuple(excerpt(difference, _MAX_DIFFERENCE_LENGTH) for difference in diff.differences[:_MAX_DIFFERENCES])
    more = len(diff.differences) - len(kept)
    return SignatureDiff(change=diff.change, differences=(*kept, f"and {more} more") if more else kept)


def memory(figures: LoadFigures, policy: ValidationPolicy, *, has_run: bool = True) -> Verdict:
    """Is what the version will cost a server within the policy's limit?"""
    predicted, limit = figures.predicted_server_bytes, policy.max_memory_bytes
    fits = predicted <= limit
    unknown = "" if has_run else "; by loading alone, for no batch can be made up to run it on"
    return Verdict(
        check="memory",
        outcome=Outcome.PASS if fits else Outcome.FAIL,
        sentence=(
            f"the version will take about {size(predicted)} of a server's memory, "
            f"{'within' if fits else 'above'} the limit of {size(limit)}{unknown}"
        ),
        value=predicted,
        limit=limit,
        evidence=f"{_EVIDENCE}/predicted_server_bytes",
    )


def signature(diff: SignatureDiff, champion_version: int | None) -> Verdict:
    """What the version's signature means to those who call the champion. A breaking one is advice here.

    It may be meant, and a rollout of it has to be forced: that is decided where rollouts start.
    """
    champion = "the champion" if champion_version is None else f"the champion, version {champion_version},"
    said = "; ".join(excerpt(difference, 200) for difference in diff.differences[:_SHOWN])
    breaking = diff.change is SignatureChange.BREAKING
    sentence = {
        SignatureChange.SAME: f"the model takes and gives what {champion} does",
        SignatureChange.WIDENING: f"the model takes all that {champion} takes, and more: {said}",
        SignatureChange.BREAKING: f"the model breaks callers of {champion} so that its rollout must be forced: {said}",
    }[diff.change]
    return Verdict(
        check="signature",
        outcome=Outcome.FAIL if breaking else Outcome.PASS,
        sentence=sentence,
        n=len(diff.differences),
        evidence="/details/signature",
        advisory=breaking,
    )


def _listed(specs: tuple[TensorSpec, ...]) -> str:
    shown = [f"{excerpt(spec.name, 60)} {spec.datatype} {list(spec.shape)}" for spec in specs[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(specs) - _SHOWN} more" if len(specs) > _SHOWN else "")
