"""Has the real sandbox look at a drop as registration and validation do, and says what came of it."""

from pathlib import Path

from shared.core.errors import UnavailableError
from shared.registry.policy import ValidationPolicy
from shared.validation.refusal import DropRefusedError
from shared.validation.sandbox import ModelFiles, SandboxLimits, run_intake, run_validation

PASSED = "passed"
_RELAXED = ValidationPolicy(require_validation_data=False)


def looked_at(folder: Path, filename: str, limits: SandboxLimits) -> tuple[str, str]:
    """What becomes of the file `drop` in a folder, whose working directories are made there.

    A refusal's code and sentence; or the check and the sentence of the first verdict that is not a pass, with the
    outcome before it where that is not FAIL; or `PASSED`.
    """
    for name in ("taken", "validated"):
        (folder / name).mkdir()
    try:
        intake = run_intake(folder / "drop", filename=filename, workdir=folder / "taken", limits=limits)
        report = run_validation(
            model=ModelFiles(
                path=intake.model.path,
                name=intake.model_file,
                external={name: part.path for name, part in intake.external.items()},
            ),
            validation=intake.validation.path if intake.validation else None,
            reference=None,
            manifest=intake.manifest,
            policy=_RELAXED,
            workdir=folder / "validated",
            limits=limits,
        ).report
    except DropRefusedError as refusal:
        return refusal.code.value, str(refusal)
    except UnavailableError as error:
        return "unavailable", str(error)
    for verdict in report.verdicts:
        if verdict.outcome != "pass" and not verdict.advisory:
            outcome = "" if verdict.outcome == "fail" else f"{verdict.outcome}: "
            return verdict.check, f"{outcome}{verdict.sentence}"
    return PASSED, ""
