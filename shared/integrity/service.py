"""Integrity: whether the stored bytes of versions are those that were registered.

Artifacts lie under the SHA-256 of their bytes and are never overwritten by Slipway; whoever can write to storage can
overwrite them all the same. `check_live` looks at the versions in use as often as the timer wants: an artifact whose
ETag is that of the last look is not read again, and any other is hashed. `audit` hashes whatever it is asked for,
however little seems changed. Bytes of another size than was registered are altered without being read, so that
nobody has a look read more than was stored; and so are bytes that change at each try to read them.

A version of which a part is altered or gone says so, in its document and its audit stream, once for each finding; an
alert fires; and it cannot be rolled out. A version that cannot be looked at keeps no other from it. Once the right
bytes are back, that is taken back by the next look. The model servers check each artifact that they load by themselves,
and do not wait for this.

What this cannot see is a change of bytes that leaves the ETag as it was, between two audits: storage that lies.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pydantic import ValidationError

from shared.alerts.documents import AlertRule
from shared.alerts.service import AlertService
from shared.core.clock import Clock
from shared.core.errors import ChangedMeanwhileError, NotFoundError, SlipwayError
from shared.core.ids import version_number
from shared.core.workdir import work_folder
from shared.integrity.documents import ArtifactCheck, check_id
from shared.registration.documents import NO_MODEL
from shared.registry.documents import ModelVersion, VersionState, version_id
from shared.retention.uses import Uses, digests_of, sizes_of
from shared.routing.plan import MAX_FILE_BYTES, artifact_blob_name
from shared.store.ports import BlobContainer, BlobInfo, BlobStore
from shared.store.repository import Repository

BUDGET_BYTES = 4_000_000_000
"""How much one look hashes. What is left over, the next one does."""
AUDIT_BYTES = 200_000_000
"""After how much an audit answers, for a caller does not wait forever. A version is always done whole."""

_TRIES = 3

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a look at an artifact found: the SHA-256 of its bytes, or in `wrong` why they were not hashed."""

    found: str = ""
    wrong: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A stored part that is not what it should be."""

    what: str
    digest: str
    seen: Seen

    @property
    def sentence(self) -> str:
        """The problem in words."""
        wrong = self.seen.wrong or f"holds bytes with the SHA-256 {self.seen.found}"
        return f"{self.what} at {artifact_blob_name(self.digest)} {wrong}"

    @property
    def facts(self) -> dict[str, str]:
        """The problem as evidence."""
        return {"what": self.what, "digest": self.digest, "found": self.seen.found, "wrong": self.seen.wrong}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A version of which a part is not what was registered."""

    model: str
    version: int
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What a look came to. `hashed_bytes` is what had to be read; `left_over` versions wait for the next look."""

    versions: int
    hashed_bytes: int
    left_over: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPage:
    """A part of an audit. `after` is the last version that it looked at, or None at the end."""

    versions: int
    artifacts: int
    hashed_bytes: int
    findings: tuple[Finding, ...]
    after: int | None


class IntegrityService:
    """Checks stored artifacts."""

    def __init__(
        self,
        *,
        versions: Repository[ModelVersion],
        checks: Repository[ArtifactCheck],
        uses: Uses,
        alerts: AlertService,
        blobs: BlobStore,
        clock: Clock,
        budget_bytes: int = BUDGET_BYTES,
        audit_bytes: int = AUDIT_BYTES,
    ) -> None:
        self._versions = versions
        self._checks = checks
        self._uses = uses
        self._alerts = alerts
        self._blobs = blobs
        self._clock = clock
        self._budget_bytes = budget_bytes
        self._audit_bytes = audit_bytes

    def check_live(self) -> Checked:
        """Look at the versions in use, and at those that an alert fires about.

        A version that cannot be looked at keeps no other from it; what went wrong is raised together at the end.
        """
        reading = _Reading(self._blobs, self._checks, self._clock)
        findings: list[Finding] = []
        failures: list[Exception] = []
        count, left_over = 0, 0
        for version in self._live(failures):
            if reading.hashed_bytes >= self._budget_bytes:
                left_over += 1
                continue
            count += 1
            try:
                findings += self._settle(version, self._look(version, reading))
            except (SlipwayError, ValidationError, OSError) as error:
                error.add_note(f"looking at version {version.version} of {version.model}")
                failures.append(error)
        _log.info("checked %d versions, hashed %d bytes, %d left over", count, reading.hashed_bytes, left_over)
        if failures:
            raise ExceptionGroup("not every version in use could be looked at", failures)
        return Checked(versions=count, hashed_bytes=reading.hashed_bytes, left_over=left_over, findings=tuple(findings))

    def audit(self, model: str, after: int = 0) -> AuditPage:
        """Hash every artifact of a model's versions that are not archived, a part of them at a call.

        The parts go by the numbers of the versions: give the `after` of the last one to get the next.
        """
        reading = _Reading(self._blobs, self._checks, self._clock, anew=True)
        findings: list[Finding] = []
        count, last = 0, after
        for version in self._versions.where(partition=model):
            if version.version <= after:
                continue
            if reading.hashed_bytes >= self._audit_bytes:
                return _page(count, reading, findings, last)
            last = version.version
            if version.state is not VersionState.ARCHIVED:
                count += 1
                findings += self._settle(version, self._look(version, reading))
        return _page(count, reading, findings, None)

    def _live(self, failures: list[Exception]) -> Iterator[ModelVersion]:
        """The versions in use, then those that an alert fires about. Alerts about archived ones end here.

        Those of a model of which a document cannot be read are left out; why is added to `failures`.
        """
        yielded: set[str] = set()
        for model in self._uses.models():
            for version in self._used(model, failures):
                yielded.add(version.stream)
                yield version
        for alert in list(self._alerts.firing(AlertRule.ARTIFACT_ALTERED)):
            if alert.subject in yielded:
                continue
            number = version_number(alert.subject.rpartition(":")[2])
            try:
                alerted = self._versions.find(alert.model, version_id(number))
            except ValidationError as error:
                failures.append(error)
                continue
            if alerted is None or alerted.state is VersionState.ARCHIVED:
                self._alerts.resolve(alert.rule, alert.subject, "the version is archived", model=alert.model)
            else:
                yield alerted

    def _used(self, model: str, failures: list[Exception]) -> list[ModelVersion]:
        """The versions of a model that are in use, as far as they can be read."""
        found = []
        try:
            for number in sorted(self._uses.of(model)):
                version = self._versions.find(model, version_id(number))
                # The version that served before the latest rollout may be archived meanwhile.
                if version is not None and version.state is not VersionState.ARCHIVED:
                    found.append(version)
        except ValidationError as error:
            error.add_note(f"looking at the versions of {model} that are in use")
            failures.append(error)
        return found

    def _look(self, version: ModelVersion, reading: "_Reading") -> list[Problem]:
        """What is wrong with a version's artifacts."""
        sizes = sizes_of(version)
        problems = []
        for digest, what in digests_of(version).items():
            seen = reading.of(digest, sizes.get(digest))
            if seen.found != digest:
                problems.append(Problem(what=what, digest=digest, seen=seen))
        return problems

    def _settle(self, version: ModelVersion, problems: list[Problem]) -> list[Finding]:
        """Have the version and its alert say what was found.

        While they differ the alert fires, so that a crash between the two is seen by the next look.
        """
        sentence = "; ".join(problem.sentence for problem in problems)
        subject = version.stream
        if problems:
            self._alerts.fire(
                AlertRule.ARTIFACT_ALTERED,
                subject,
                f"version {version.version} of {version.model} cannot be relied on: {sentence}. "
                "Find out who changed the storage, and put the right bytes back",
                model=version.model,
                evidence={"version": version.version, "artifacts": [problem.facts for problem in problems]},
            )
        note = partial(_note, problems=problems, sentence=sentence, now=self._clock.now())
        self._versions.change(version.partition, version.id, note)
        if not problems:
            self._alerts.resolve(
                AlertRule.ARTIFACT_ALTERED, subject, "its stored parts are what was registered", model=version.model
            )
            return []
        return [Finding(model=version.model, version=version.version, sentence=sentence)]


class _Reading:
    """One look at artifacts: each is read once, whatever number of versions stand on it.

    `anew` has also those read of which the ETag is known.
    """

    def __init__(
        self, blobs: BlobStore, checks: Repository[ArtifactCheck], clock: Clock, *, anew: bool = False
    ) -> None:
        self._blobs = blobs
        self._checks = checks
        self._clock = clock
        self._anew = anew
        self.hashed_bytes = 0
        self.seen: dict[str, Seen] = {}

    def of(self, digest: str, size_bytes: int | None) -> Seen:
        """What lies under a digest. `size_bytes` is what was registered, where that is known."""
        if digest not in self.seen:
            self.seen[digest] = self._look(digest, size_bytes)
        return self.seen[digest]

    def _look(self, digest: str, size_bytes: int | None) -> Seen:
        name = artifact_blob_name(digest)
        for _ in range(_TRIES):
            info = self._blobs.info(BlobContainer.ARTIFACTS, name)
            if info is None:
                return Seen(wrong="is gone")
            if size_bytes is not None and info.size_bytes != size_bytes:
                return Seen(wrong=f"holds {info.size_bytes} bytes, and {size_bytes} were registered")
            if info.size_bytes > MAX_FILE_BYTES:
                return Seen(wrong=f"holds {info.size_bytes} bytes, and no part has more than {MAX_FILE_BYTES}")
            known = self._checks.find(NO_MODEL, check_id(digest))
            if known and known.etag == info.etag and not self._anew:
                return Seen(found=known.found)
            try:
                return Seen(found=self._hash(digest, info))
            except (ChangedMeanwhileError, NotFoundError):
                continue
        return Seen(wrong="kept changing while it was read")

    def _hash(self, digest: str, info: BlobInfo) -> str:
        """Hash the blob in the state that `info` tells of, and note the outcome."""
        with work_folder("artifact") as folder:
            found = self._blobs.download(
                BlobContainer.ARTIFACTS, info.name, folder / "artifact", etag=info.etag, max_bytes=info.size_bytes
            )
        self.hashed_bytes += info.size_bytes
        now = self._clock.now()

        def note(check: ArtifactCheck) -> bool:
            check.etag, check.found, check.checked_at = info.etag, found, now
            return True

        self._checks.find_or_create(ArtifactCheck(id=check_id(digest), digest=digest, checked_at=now))
        self._checks.change(NO_MODEL, check_id(digest), note)
        return found


def _note(version: ModelVersion, *, problems: list[Problem], sentence: str, now: datetime) -> bool:
    """Note what was found, unless it stands there."""
    if version.altered == sentence:
        return False
    version.altered = sentence
    if problems:
        artifacts = [problem.facts for problem in problems]
        version.record("artifact_altered", now, version=version.version, artifacts=artifacts)
    else:
        version.record("artifact_restored", now, version=version.version)
    return True


def _page(count: int, reading: _Reading, findings: list[Finding], after: int | None) -> AuditPage:
    return AuditPage(
        versions=count,
        artifacts=len(reading.seen),
        hashed_bytes=reading.hashed_bytes,
        findings=tuple(findings),
        after=after,
    )
