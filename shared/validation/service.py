"""Validation of registered versions: fetches the parts, has them checked in the sandbox, records the verdicts.

A version is decided once. Two validations of one version may run at once after a crash or a double event: the first to
save decides, and the other finds a version that is decided.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from shared.core.canonical import digest_of
from shared.core.clock import Clock
from shared.core.errors import IntegrityError, NotFoundError
from shared.core.ids import VersionNumber
from shared.core.messages import CommandKind, RolloutCommand, ValidateVersion
from shared.core.verdict import Outcome, Verdict
from shared.core.workdir import work_folder
from shared.registry.documents import ModelVersion, ValidationSummary, VersionState, version_id
from shared.registry.service import RegistryService
from shared.rollout.documents import automatic_command_id
from shared.routing.plan import MAX_FILE_BYTES, artifact_blob_name
from shared.store.ports import BlobContainer, BlobStore
from shared.store.repository import Repository
from shared.validation.failures import MAX_FAILURES, SandboxUnavailableError, is_failure, last_error
from shared.validation.report import ValidationReport
from shared.validation.sandbox import ModelFiles, SandboxLimits, Validation, run_validation

_log = logging.getLogger(__name__)


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
        check: Callable[..., Validation] = run_validation,
    ) -> None:
        self._versions = versions
        self._registry = registry
        self._blobs = blobs
        self._clock = clock
        self._limits = limits
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
        version = self._registry.version(model, number)
        blob = None
        if version.validation:
            blob = self._blobs.read(BlobContainer.REPORTS, version.validation.report_blob, max_bytes=10_000_000)
        if blob is None:
            raise NotFoundError(f"a validation report of version {number} of model {model!r}")
        return ValidationReport.model_validate_json(blob.data).model_dump(mode="json")

    def _validate(self, version: ModelVersion) -> ModelVersion:
        policy = self._registry.model(version.model).policy
        with work_folder("validation") as folder:
            validation = self._check(version, folder)
            if validation.report.outcome is Outcome.ERROR:
                # The checks themselves could not run: nothing that the version is to be rejected for at once.
                raise SandboxUnavailableError(_errors(validation.report))
            golden_digest = None
            if validation.golden:
                golden_digest = validation.golden.digest
                self._blobs.create(BlobContainer.ARTIFACTS, artifact_blob_name(golden_digest), validation.golden.path)
        report_blob = self._store_report(version, validation.report)
        return self._decide(version, validation.report, golden_digest, report_blob, rolls_out=policy.rollout.automatic)

    def _note_failure(self, version: ModelVersion, error: Exception) -> ModelVersion:
        _log.warning("validating version %s of %s failed", version.version, version.model, exc_info=error)

        def note(current: ModelVersion) -> bool:
            current.failures += 1
            current.last_error = last_error(error)
            return True

        return self._versions.change(version.partition, version.id, note)

    def _give_up(self, version: ModelVersion) -> ModelVersion:
        sentence = f"validation failed {version.failures} times; the last time: {version.last_error}"
        verdict = Verdict(check="validation", outcome=Outcome.ERROR, sentence=sentence, n=version.failures)
        report = ValidationReport(outcome=Outcome.ERROR, verdicts=(verdict,))
        return self._decide(version, report, None, self._store_report(version, report), rolls_out=False)

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

    def _check(self, version: ModelVersion, folder: Path) -> Validation:
        parts = {
            "model": self._fetch(version.artifact_digest, folder / "model"),
            "validation": self._fetch(version.validation_digest, folder / "validation"),
            "reference": self._fetch(version.reference_digest, folder / "reference"),
        }
        model = parts["model"]
        if model is None:
            raise IntegrityError(f"version {version.version} of {version.model} has no artifact")
        workdir = folder / "work"
        workdir.mkdir()
        return self._check_parts(
            model=ModelFiles(path=model.resolve(), name=version.model_file),
            validation=parts["validation"],
            reference=parts["reference"],
            manifest=version.manifest,
            policy=self._registry.model(version.model).policy.validation,
            workdir=workdir,
            limits=self._limits,
        )

    def _fetch(self, digest: str | None, path: Path) -> Path | None:
        if digest is None:
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
        body = report.model_dump(mode="json")
        name = f"{version.model}/{version.version}/validation-{digest_of(body)[:16]}.json"
        self._blobs.create(BlobContainer.REPORTS, name, report.model_dump_json().encode())
        return name

    def _decide(
        self,
        version: ModelVersion,
        report: ValidationReport,
        golden_digest: str | None,
        report_blob: str,
        *,
        rolls_out: bool,
    ) -> ModelVersion:
        now = self._clock.now()
        summary = ValidationSummary(
            outcome=report.outcome, verdicts=list(report.verdicts), metrics=report.metrics, report_blob=report_blob
        )

        def decide(current: ModelVersion) -> bool:
            if not current.state.is_undecided:
                return False
            current.state = VersionState.VALIDATED if report.accepted else VersionState.REJECTED
            current.decided_at = now
            current.validation = summary
            current.golden_digest = golden_digest
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


def _errors(report: ValidationReport) -> str:
    return "; ".join(verdict.sentence for verdict in report.verdicts if verdict.outcome is Outcome.ERROR)
