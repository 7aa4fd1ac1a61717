"""Validation of registered versions: fetches the parts, has them checked in the sandbox, records the verdicts.

A version is decided once. Two validations of one version may run at once after a crash or a double event: the first to
save decides, and the other finds a version that is decided. What a version is compared with is the champion of the
moment in which its check begins; the report names it.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from shared.core.canonical import digest_of
from shared.core.clock import Clock
from shared.core.errors import IntegrityError, NotFoundError, UnavailableError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.core.workdir import work_folder
from shared.registry.documents import ModelVersion, ValidationSummary, VersionState, version_id
from shared.registry.policy import ValidationPolicy
from shared.registry.service import RegistryService
from shared.rollout.documents import automatic_command_id
from shared.routing.plan import MAX_FILE_BYTES, artifact_blob_name
from shared.store.ports import BlobContainer, BlobStore
from shared.store.repository import Repository
from shared.validation.failures import MAX_FAILURES, SandboxUnavailableError, is_failure, last_error
from shared.validation.report import ValidationReport
from shared.validation.sandbox import ModelFiles, SandboxLimits, StoredPart, Validation, run_validation

_log = logging.getLogger(__name__)
_TRIES = 5
_MAX_REPORT_BYTES = 32 * 1024 * 1024


class ValidationService:
    """Validates versions."""

    def __init__(
        self,
        *,
        versions: Repository[ModelVersion],
        registry: RegistryService,
        blobs: BlobStore,
        clock: Clock,
        limits: SandboxLimits,
        champion: Callable[[str], int | None] = lambda _: None,
        check: Callable[..., Validation] = run_validation,
    ) -> None:
        """`champion` names the version of a model that a new one is compared with."""
        self._versions = versions
        self._registry = registry
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
        self._champion = champion
        self._check_parts = check

    def validate(self, message: ValidateVersion) -> ModelVersion | None:
        """Validate a version, unless it is decided. None where it does not exist.

        What fails MAX_FAILURES times is rejected with an ERROR verdict; until then the failure is raised. Raises
        UnavailableError.
        """
        try:
            version = self._begin(message)
        except NotFoundError:
            _log.warning("version %s of %s does not exist and is not validated", message.version, message.model)
            return None
        if not version.state.is_undecided:
            return version
        try:
            return self._validate(version)
        except Exception as error:
            if not is_failure(error):
                raise
            version = self._note_failure(version, error)
            if version.failures < MAX_FAILURES:
                raise
        return self._give_up(version)

    def report(self, model: str, number: VersionNumber) -> Mapping[str, object]:
        """The whole report of a version's validation. Raises NotFoundError where there is none."""
        return self._report(self._registry.version(model, number)).model_dump(mode="json")

    def page(self, model: str, number: VersionNumber) -> str:
        """The report as an HTML page, as it was made when the version was decided. Raises NotFoundError."""
        version = self._registry.version(model, number)
        report = self._report(version)
        if version.validation:
            name = _page_blob(version.validation.report_blob)
            blob = self._blobs.read(BlobContainer.REPORTS, name, max_bytes=_MAX_REPORT_BYTES)
            if blob is not None:
                return blob.data.decode()
        return _page(version, report)

    def _report(self, version: ModelVersion) -> ValidationReport:
        blob = None
        if version.validation:
            name = version.validation.report_blob
            blob = self._blobs.read(BlobContainer.REPORTS, name, max_bytes=_MAX_REPORT_BYTES)
        if blob is None:
            raise NotFoundError(f"a validation report of version {version.version} of model {version.model!r}")
        return ValidationReport.model_validate_json(blob.data)

    def _validate(self, version: ModelVersion) -> ModelVersion:
        model = self._registry.model(version.model)
        with work_folder("validation") as folder:
            validation = self._check(version, model.policy.validation, folder)
            if validation.report.outcome is Outcome.ERROR:
                # The checks themselves could not run: nothing that the version is to be rejected for at once.
                raise SandboxUnavailableError(_errors(validation.report))
            for part in validation.left:
                self._store(part)
        return self._decide(
            version,
            validation.report,
            left=validation,
            policy_version=model.policy_version,
            rolls_out=model.policy.rollout.automatic,
        )

    def _store(self, part: StoredPart) -> None:
        """Store what validation left. What stood there before might be cleaned away just now: a touch keeps it."""
        name = artifact_blob_name(part.digest)
        for _ in range(_TRIES):
            if self._blobs.create(BlobContainer.ARTIFACTS, name, part.path):
                return
            if self._blobs.touch(BlobContainer.ARTIFACTS, name):
                return
        raise UnavailableError("blob storage", f"{name} was removed each time that it was stored")

    def _note_failure(self, version: ModelVersion, error: Exception) -> ModelVersion:
        _log.warning("validating version %s of %s failed", version.version, version.model, exc_info=error)

        def note(current: ModelVersion) -> bool:
            if current.validation != version.validation:
                return False
            current.failures += 1
            current.last_error = last_error(error)
            return True

        return self._versions.change(version.partition, version.id, note)

    def _give_up(self, version: ModelVersion) -> ModelVersion:
        sentence = f"validation failed {version.failures} times; the last time: {version.last_error}"
        verdict = Verdict(check="validation", outcome=Outcome.ERROR, sentence=sentence, n=version.failures)
        report = ValidationReport(outcome=Outcome.ERROR, verdicts=(verdict,))
        return self._decide(version, report)

    def _begin(self, message: ValidateVersion) -> ModelVersion:
        now = self._clock.now()

        def begin(version: ModelVersion) -> bool:
            if not version.state.is_undecided:
                return False
            version.state = VersionState.VALIDATING
            version.attempts += 1
            version.attempted_at = now
            return True

        return self._versions.change(message.model, version_id(message.version), begin)

    def _check(self, version: ModelVersion, policy: ValidationPolicy, folder: Path) -> Validation:
        workdir = folder / "work"
        workdir.mkdir()
        champion, champion_unusable = self._champion_of(version), ""
        champion_files = None
        if champion is not None:
            try:
                champion_files = self._fetch_model(champion, folder / "champion")
            except (IntegrityError, NotFoundError) as error:
                # What befell the champion is nothing that this version did, and nothing that a retry would cure.
                champion_unusable = f"cannot be had: {error}"
        return self._check_parts(
            model=self._fetch_model(version, folder / "candidate"),
            validation=self._fetch(version.validation_digest, folder / "validation"),
            reference=self._fetch(version.reference_digest, folder / "reference"),
            manifest=version.manifest,
            policy=policy,
            workdir=workdir,
            limits=self._limits,
            champion=champion_files,
            champion_version=champion.version if champion else None,
            champion_manifest=champion.manifest if champion else None,
            champion_unusable=champion_unusable,
        )

    def _champion_of(self, version: ModelVersion) -> ModelVersion | None:
        """The version to compare with; a model's first, and the champion itself, have none."""
        number = self._champion(version.model)
        if number is None or number == version.version:
            return None
        try:
            return self._registry.version(version.model, VersionNumber(number))
        except NotFoundError:
            _log.warning("version %s of %s is the champion and does not exist", number, version.model)
            return None

    def _fetch_model(self, version: ModelVersion, folder: Path) -> ModelFiles:
        """A version's files in a new folder, under names of ours."""
        folder.mkdir()
        path = self._fetch(version.artifact_digest, folder / "model")
        if path is None:
            raise IntegrityError(f"version {version.version} of {version.model} has no artifact")
        external = {}
        for number, file in enumerate(version.external):
            found = self._fetch(file.digest, folder / f"external-{number}")
            if found is not None:
                external[file.name] = found.resolve()
        return ModelFiles(path=path.resolve(), name=version.model_file, external=external)

    def _fetch(self, digest: str | None, path: Path) -> Path | None:
        """An artifact in a new file. Raises IntegrityError where it is gone or altered, UnavailableError."""
        if not digest:
            return None
        name = artifact_blob_name(digest)
        info = self._blobs.info(BlobContainer.ARTIFACTS, name)
        if info is None:
            raise IntegrityError(f"artifact {name} is gone: restore it, or drop the model again")
        found = self._blobs.download(BlobContainer.ARTIFACTS, name, path, etag=info.etag, max_bytes=MAX_FILE_BYTES)
        if found != digest:
            raise IntegrityError(f"artifact {name} holds bytes of digest {found}: it was changed after registration")
        return path

    def _store_report(self, version: ModelVersion, report: ValidationReport) -> str:
        name = f"{version.model}/{version.version}/validation-{digest_of(report.model_dump(mode='json'))[:16]}.json"
        self._blobs.create(BlobContainer.REPORTS, name, report.model_dump_json().encode())
        try:
            page = _page(version, report)
        except Exception:  # noqa: BLE001 - it repeats what is stored already: that it cannot be drawn decides nothing
            _log.exception("the report %s could not be drawn as a page", name)
        else:
            self._blobs.create(BlobContainer.REPORTS, _page_blob(name), page.encode())
        return name

    def _decide(
        self,
        version: ModelVersion,
        report: ValidationReport,
        *,
        left: Validation | None = None,
        policy_version: int = 0,
        rolls_out: bool = False,
    ) -> ModelVersion:
        report_blob = self._store_report(version, report)
        now = self._clock.now()
        summary = ValidationSummary(
            outcome=report.outcome,
            verdicts=list(report.verdicts),
            metrics=report.metrics,
            report_blob=report_blob,
            policy_version=policy_version,
        )

        def decide(current: ModelVersion) -> bool:
            # Another attempt may have decided it since, and somebody have asked for one under another policy.
            if not current.state.is_undecided or current.validation != version.validation:
                return False
            current.state = VersionState.VALIDATED if report.accepted else VersionState.REJECTED
            current.decided_at = now
            current.validation = summary
            current.golden_digest = _digest(left.golden if left else None)
            current.profile_digest = _digest(left.profile if left else None)
            current.performance_digest = _digest(left.performance if left else None)
            current.signature = report.signature
            current.record(f"version_{current.state}", now, version=current.version, **summary.model_dump(mode="json"))
            if report.accepted and rolls_out:
                current.rollout_pending = True
                current.send(
                    RolloutCommand(
                        command=CommandKind.START,
                        command_id=automatic_command_id(current.model, current.version),
                        endpoint=current.model,
                        version=current.version,
                        requested_by="policy",
                        reason="validated",
                    )
                )
            return True

        return self._versions.change(version.partition, version.id, decide)


def _digest(part: StoredPart | None) -> str | None:
    return None if part is None else part.digest


def _errors(report: ValidationReport) -> str:
    return "; ".join(verdict.sentence for verdict in report.verdicts if verdict.outcome is Outcome.ERROR)


def _page_blob(report_blob: str) -> str:
    return f"{report_blob.removesuffix('.json')}.html"


def _page(version: ModelVersion, report: ValidationReport) -> str:
    from shared.validation.page import render_html  # noqa: PLC0415 - loads Jinja

    facts = {"drop": version.drop, "registered": version.registered_at.isoformat(timespec="seconds")}
    return render_html(report, title=f"{version.model}, version {version.version}", facts=facts)
