"""Reference profiles as a server reads them: whole, under their own digest, of the version's own inputs and outputs."""

from collections.abc import Iterable

from aks_serving.model import Signature
from shared.core.errors import InvalidInputError
from shared.telemetry.profile import AnswerSource, ColumnSource, Feature, Profile, SummarySource

MAX_PROFILE_BYTES = 8 * 1024 * 1024
MOST_BESIDE = 4
"""Profiles of other versions that stable's rows are counted by, at most: each costs as much as its own."""


def read_profile(data: bytes, digest: str, signature: Signature) -> Profile:
    """The profile of that digest. Raises InvalidInputError where it is none, or is not of a version's signature."""
    try:
        profile = Profile.model_validate_json(data)
    except ValueError as error:
        raise InvalidInputError(f"{digest} is no reference profile: {error}") from error
    if profile.id != digest:
        raise InvalidInputError(f"the reference profile {digest} has the id {profile.id}: it is not in canonical JSON")
    unknown = sorted(names_of(profile) - {spec.name for spec in (*signature.inputs, *signature.outputs)})
    if unknown:
        raise InvalidInputError(f"the reference profile {digest} asks for {unknown[0]!r}, which the model has not")
    return profile


def names_of(profile: Profile) -> set[str]:
    """The inputs and outputs that a profile asks for."""
    names = set()
    for feature in profile.features:
        match feature.source:
            case AnswerSource(output=name):
                names.add(name)
            case ColumnSource(input=name) | SummarySource(input=name):
                names.add(name)
    return names


def beside(
    own: Profile | None, signature: Signature, others: Iterable[tuple[Profile, Signature]]
) -> tuple[Profile, ...]:
    """The profiles of `others` that the rows of a version must be counted by, to be compared with theirs.

    Left out are those that count what came in as its own does, and those of versions that take other inputs.
    """
    found: dict[str, Profile] = {}
    for profile, theirs in others:
        asked = names_of(profile)
        inputs = [spec for spec in theirs.inputs if spec.name in asked]
        if (own is None or _of_inputs(profile) != _of_inputs(own)) and all(spec in signature.inputs for spec in inputs):
            found.setdefault(profile.id, profile)
    return tuple(found.values())[:MOST_BESIDE]


def _of_inputs(profile: Profile) -> list[Feature]:
    return [feature for feature in profile.features if not isinstance(feature.source, AnswerSource)]
