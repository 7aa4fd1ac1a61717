"""What retention would do: a pure function of what is stored.

A version is archived when nothing keeps it: its validation has concluded, nothing uses it, it is not among the newest
validated ones that policy keeps, and it is older than policy keeps. A blob is deleted when archived versions alone
stand on it and it has lain long enough. Each version that stays says all that keeps it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.registration.documents import Drop
from shared.registry.documents import ModelVersion, VersionState
from shared.registry.policy import RetentionPolicy
from shared.retention.documents import Deeds, KeptVersion, PlannedBlob, PlannedVersion, RetentionPlan
from shared.retention.uses import UsesOf, digests_of
from shared.routing.plan import artifact_blob_name
from shared.store.ports import BlobContainer, BlobInfo

MAX_VERSIONS = 100
"""To archive one is some ten calls to the database, and who asks for a run waits for all of them."""
MAX_BLOBS = 3_000
"""They are shown whole before they are run, and deleted one after the other in one go of the timer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DropBlobs:
    """A drop that has ended, and those of its blobs that lie there as they were read."""

    drop: Drop
    blobs: tuple[BlobInfo, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which versions are archived, and what keeps the others."""

    archive: tuple[PlannedVersion, ...]
    keep: tuple[KeptVersion, ...]
    is_partial: bool = False


def chosen(versions: Iterable[ModelVersion], uses: UsesOf, policy: RetentionPolicy, now: datetime) -> Choice:
    """Choose among a model's versions."""
    known = sorted(versions, key=lambda version: version.version)
    validated = [version.version for version in known if version.state is VersionState.VALIDATED]
    newest = set(validated[-policy.keep_latest :])
    archive: list[PlannedVersion] = []
    keep: list[KeptVersion] = []
    for version in known:
        reasons = list(uses.get(version.version, ()))
        if version.state is not VersionState.ARCHIVED:
            reasons += _own_reasons(version, policy, now)
            if version.version in newest:
                reasons.append(f"it is among the {policy.keep_latest} newest validated versions")
        if reasons:
            keep.append(KeptVersion(version=version.version, state=version.state, reasons=tuple(reasons)))
        elif version.state is not VersionState.ARCHIVED:
            reason = f"it was {version.state} on {_ended_at(version):%Y-%m-%d}, and nothing uses it"
            archive.append(PlannedVersion(version=version.version, state=version.state, reason=reason))
    archive, rest = archive[:MAX_VERSIONS], archive[MAX_VERSIONS:]
    later = ("the next plan takes it: this one is full",)
    keep += [KeptVersion(version=version.version, state=version.state, reasons=later) for version in rest]
    return Choice(archive=tuple(archive), keep=tuple(keep), is_partial=bool(rest))


def plan_of(
    *,
    model: str,
    policy: RetentionPolicy,
    versions: Iterable[ModelVersion],
    choice: Choice,
    stored: Mapping[str, BlobInfo],
    referenced: Mapping[str, str],
    drops: Iterable[DropBlobs],
    now: datetime,
    grace: timedelta,
) -> RetentionPlan:
    """Make the plan.

    `stored` are the artifacts by their names; `referenced` names, by digest, a version that is to keep it: no
    version in `choice.archive` stands there.
    """
    going = {version.version for version in choice.archive}
    kept = {version.version for version in choice.keep}
    delete: dict[str, PlannedBlob] = {}
    for version in sorted(versions, key=lambda version: version.version):
        is_archived = version.state is VersionState.ARCHIVED and version.version not in kept
        if version.version not in going and not is_archived:
            continue
        for digest, what in digests_of(version).items():
            info = stored.get(artifact_blob_name(digest))
            if info is None or digest in referenced or now - info.last_modified <= grace:
                continue
            reason = f"{what} of version {version.version}"
            delete.setdefault(digest, _planned(BlobContainer.ARTIFACTS, info, reason))
    blobs = [*delete.values(), *_dropped(drops, policy, now)]
    return RetentionPlan(
        model=model,
        policy=policy,
        deeds=Deeds(archive=choice.archive, delete=tuple(blobs[:MAX_BLOBS])),
        keep=choice.keep,
        is_partial=choice.is_partial or len(blobs) > MAX_BLOBS,
    )


def _own_reasons(version: ModelVersion, policy: RetentionPolicy, now: datetime) -> list[str]:
    reasons = []
    if version.state.is_undecided:
        reasons.append("its validation has not concluded")
    if version.rollout_pending:
        reasons.append("its rollout is asked for")
    if version.altered:
        reasons.append(f"find out first why it was altered: {version.altered}")
    if now - _ended_at(version) < timedelta(days=policy.keep_days):
        reasons.append(f"it is younger than {policy.keep_days:g} days")
    return reasons


def _dropped(drops: Iterable[DropBlobs], policy: RetentionPolicy, now: datetime) -> list[PlannedBlob]:
    """The blobs of drops that ended long ago. What was registered of them lies in the artifacts."""
    age = timedelta(days=policy.keep_days)
    return [
        _planned(BlobContainer.INCOMING, info, f"a drop that was {ended.drop.state}")
        for ended in drops
        if now - ended.drop.attempted_at >= age
        for info in ended.blobs
        if now - info.last_modified >= age
    ]


def _planned(container: BlobContainer, info: BlobInfo, reason: str) -> PlannedBlob:
    return PlannedBlob(container=container, name=info.name, etag=info.etag, size_bytes=info.size_bytes, reason=reason)


def _ended_at(version: ModelVersion) -> datetime:
    return version.decided_at or version.registered_at
