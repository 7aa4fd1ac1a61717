"""Validates a drop on this machine before anybody pushes it: the same sandbox, the same checks, the same report.

Needs no running system. What it cannot know here is the champion, unless it is given one as a file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.core.errors import InvalidInputError
from shared.core.workdir import work_folder
from shared.registry.policy import Policy
from shared.validation.page import render_html
from shared.validation.refusal import DropRefusedError
from shared.validation.report import ValidationReport
from shared.validation.sandbox import Intake, ModelFiles, SandboxLimits, run_intake, run_validation

_INTAKE = "reading the drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalValidation:
    """What a drop's validation found: a report with its page, or the refusal that intake ended in."""

    accepted: bool
    refusal: Mapping[str, str] | None
    report: Mapping[str, Any] | None
    page: str | None


def policy_from(value: object) -> Policy:
    """A policy in its JSON form. Raises InvalidInputError naming the first thing wrong with it."""
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the policy"
        raise InvalidInputError(f"the policy: {where}: {first['msg']}") from error


def validate_file(
    file: Path, *, policy: Policy, champion: Path | None, progress: Callable[[str], None]
) -> LocalValidation:
    """Validate a drop (an .onnx file or a .zip bundle), beside a champion (another drop) where one is given.

    `progress` is told what is being done, in words. Raises InvalidInputError where the champion is no well-formed drop.
    """
    limits = SandboxLimits()
    with work_folder("validate") as folder:
        progress(_INTAKE)
        try:
            intake = _taken_in(file, folder / "candidate", policy, limits)
        except DropRefusedError as refusal:
            found = {"code": refusal.code.value, "reason": str(refusal)}
            return LocalValidation(accepted=False, refusal=found, report=None, page=None)
        champion_intake = _champion(champion, folder / "champion", limits) if champion else None
        workdir = folder / "work"
        workdir.mkdir()
        report = run_validation(
            model=_files(intake),
            validation=intake.validation.path if intake.validation else None,
            reference=intake.reference.path if intake.reference else None,
            manifest=intake.manifest,
            policy=policy.validation,
            workdir=workdir,
            limits=limits,
            champion=_files(champion_intake) if champion_intake else None,
            champion_manifest=champion_intake.manifest if champion_intake else None,
            progress=progress,
        ).report
    return _answer(report, file, champion)


def _answer(report: ValidationReport, file: Path, champion: Path | None) -> LocalValidation:
    facts = {"beside": champion.name} if champion else {}
    return LocalValidation(
        accepted=report.accepted,
        refusal=None,
        report=report.model_dump(mode="json"),
        page=render_html(report, title=file.name, facts=facts),
    )


def _champion(file: Path, workdir: Path, limits: SandboxLimits) -> Intake:
    try:
        return _taken_in(file, workdir, Policy(), limits)
    except DropRefusedError as refusal:
        raise InvalidInputError(f"the champion {file} is not a well-formed drop: {refusal}") from refusal


def _taken_in(file: Path, workdir: Path, policy: Policy, limits: SandboxLimits) -> Intake:
    workdir.mkdir()
    return run_intake(file, filename=file.name, workdir=workdir, limits=limits, signing=policy.signing)


def _files(intake: Intake) -> ModelFiles:
    external = {name: part.path.resolve() for name, part in intake.external.items()}
    return ModelFiles(path=intake.model.path.resolve(), name=intake.model_file, external=external)
