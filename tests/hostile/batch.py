"""Looks at many mutants in one confined process: the functions that the sandbox's child calls, behind the same walls.

Started as a program with the mutants' numbers on standard input. Writes a line as it begins a mutant and one when it
has an answer, so that a mutant which ends the process is known.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from shared.core.verdict import Outcome
from shared.registry.policy import ValidationPolicy
from shared.validation.confine import confine
from shared.validation.intake import take_in
from shared.validation.refusal import DropRefusedError
from shared.validation.validate import validate
from shared.validation.wire import Accepted, FileRole, IntakeTask, Limits, ModelFiles, Stage, ValidateTask
from tests.hostile.mutants import mutant, seeds

_FILE_BYTES = 64 * 1024 * 1024
_POLICY = ValidationPolicy(require_validation_data=False)


def main() -> None:
    """Look at each mutant in turn."""
    numbers, parent_pid, cpu_s = json.loads(sys.stdin.read())
    seeds()
    _warm_up()
    limits = Limits(memory_bytes=3 * 1024**3, cpu_s=cpu_s, file_bytes=_FILE_BYTES, open_files=64)
    confine(limits, parent_pid, writable=[Path.cwd()])
    for number in numbers:
        _say(number, "")
        _say(number, _looked_at(number))
    sys.stdout.flush()
    os._exit(0)


def _warm_up() -> None:
    """What is loaded lazily is loaded once."""
    _looked_at(-1)


def _say(number: int, answer: str) -> None:
    sys.stdout.write(json.dumps([number, answer]) + "\n")
    sys.stdout.flush()


def _looked_at(number: int) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        filename, content = mutant(number)
        (folder / "drop").write_bytes(content)
        for part in ("taken", "validated"):
            (folder / part).mkdir()
        task = IntakeTask(path=folder / "drop", filename=filename)
        try:
            taken = take_in(task, workdir=folder / "taken", file_bytes=_FILE_BYTES, begin=_ignore)
        except DropRefusedError as refusal:
            return f"refused: {refusal.code}"
        except MemoryError:
            return "refused: memory"
        try:
            report = validate(_task(folder, taken), workdir=folder / "validated", file_bytes=_FILE_BYTES, begin=_ignore)
        except MemoryError:
            return "fail: memory"
        if report.outcome is Outcome.ERROR:
            return f"error: {[verdict.sentence for verdict in report.verdicts if verdict.outcome is Outcome.ERROR]}"
        return str(report.outcome)


def _task(folder: Path, taken: Accepted) -> ValidateTask:
    paths: dict[FileRole, dict[str, Path]] = {role: {} for role in FileRole}
    for file in taken.files:
        paths[file.role][file.name] = folder / "taken" / file.file if file.file else folder / "drop"
    ((name, path),) = paths[FileRole.MODEL].items()
    return ValidateTask(
        model=ModelFiles(path=path, name=name, external=paths[FileRole.EXTERNAL]),
        validation=next(iter(paths[FileRole.VALIDATION].values()), None),
        reference=next(iter(paths[FileRole.REFERENCE].values()), None),
        manifest=taken.manifest,
        policy=_POLICY,
    )


def _ignore(_: Stage) -> None:
    """Nobody looks at the stages."""


if __name__ == "__main__":
    main()
