"""What must hold before a rollout starts: the version's state, its approvals, its cryptographic signature under the
policy of now, and what it means to stable's callers.

Pure functions; the service asks them within the endpoint's conditional change, so that what they saw is what begins.
"""

from dataclasses import dataclass

from shared.core.errors import ConflictError
from shared.registry.documents import ModelVersion, VersionState
from shared.registry.policy import SigningPolicy
from shared.registry.rollout_policy import RolloutPolicy
from shared.registry.signature import SignatureChange, signature_diff
from shared.routing.plan import Signing
from shared.signing.keys import read_keys

_SAID = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenCallers:
    """That a candidate breaks the callers of the stable version, or may: each difference, and all in one sentence."""

    differences: tuple[str, ...]
    sentence: str


def check_state(version: ModelVersion) -> None:
    """Raise ConflictError for a version that is not validated, or of which a stored part is not what it was."""
    if version.state is not VersionState.VALIDATED:
        raise ConflictError(
            f"version {version.version} of {version.model} is {version.state}: only a validated one can roll out"
        )
    check_unaltered(version, "roll out", "put the right bytes back")


def check_unaltered(version: ModelVersion, deed: str, remedy: str) -> None:
    """Raise ConflictError for a version of which a stored part is not what was registered."""
    if version.altered:
        raise ConflictError(f"version {version.version} of {version.model} cannot {deed}: {version.altered}; {remedy}")


def lacking_approvals(version: ModelVersion, policy: RolloutPolicy) -> str:
    """The approvals that a version lacks and who may give them, in words; empty where it lacks none."""
    missing = version.approvals_missing(policy.approvals)
    if not missing:
        return ""
    named = [f"its author {version.author}"] if version.author else []
    named += [approval.by for approval in version.approvals]
    besides = f" but {', '.join(named)}" if named else ""
    return (
        f"version {version.version} of {version.model} has {len(version.approvals)} approvals of the "
        f"{policy.approvals} that its policy wants: {missing} more may come from anybody{besides}"
    )


def unsigned(version: ModelVersion, policy: SigningPolicy) -> str:
    """Why a version's cryptographic signature does not do under a policy, in words; empty where it does.

    A drop is looked at under the policy of its intake. Keys that were trusted then need not be any more.
    """
    named = f"version {version.version} of {version.model}"
    if version.signing is None:
        if not policy.required:
            return ""
        return f"{named} has no cryptographic signature, and its policy requires one: drop it again, signed"
    if not policy.trusted_keys:
        return ""
    keys, unusable = read_keys(policy.trusted_keys)
    if any(key.fingerprint == version.signed_by for key in keys):
        return ""
    besides = f" ({'; '.join(unusable)})" if unusable else ""
    return (
        f"{named} is signed by the key {version.signed_by or 'of no known fingerprint'}, which is not among the "
        f"{len(keys)} that its policy trusts now{besides}: drop it again, signed by one of them, or trust that key"
    )


def signing_under(policy: SigningPolicy, version: ModelVersion) -> Signing | None:
    """A version's signature, and who may have made it under a policy; where that trusts no key, under its intake's."""
    if version.signing is None or not policy.trusted_keys:
        return version.signing
    return version.signing.model_copy(update={"trusted_keys": policy.trusted_keys})


def why_held(version: ModelVersion, policy: RolloutPolicy) -> str:
    """Why no rollout begins, or not the one that policy asked for, in words; empty where nothing holds it."""
    return (
        version.altered
        or version.rollout_refused
        or (lacking_approvals(version, policy) if version.rollout_pending else "")
    )


def broken_callers(stable: ModelVersion, candidate: ModelVersion) -> BrokenCallers | None:
    """How a candidate's signature breaks those who call stable, or that nobody knows. None where it does not."""
    unknown = [version.version for version in (stable, candidate) if version.signature is None]
    if stable.signature is None or candidate.signature is None:
        differences = tuple(f"the signature of version {number} is not known" for number in unknown)
        return BrokenCallers(
            differences=differences,
            sentence=f"whether version {candidate.version} breaks those who call version {stable.version} cannot be "
            f"told: {'; '.join(differences)}",
        )
    found = signature_diff(stable.signature, candidate.signature)
    if found.change is not SignatureChange.BREAKING:
        return None
    more = f" and {len(found.differences) - _SAID} more" if len(found.differences) > _SAID else ""
    return BrokenCallers(
        differences=found.differences,
        sentence=f"version {candidate.version} breaks those who call version {stable.version}: "
        + "; ".join(found.differences[:_SAID])
        + more,
    )
