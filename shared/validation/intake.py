"""Intake: is a drop well formed? Runs in the sandboxed process.

A well-formed drop is a whole, valid ONNX model, alone or in a bundle with a manifest that reads, every file that the
manifest names and no other, and data files that hold plain arrays. Whether the model is any good is not asked here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.core.errors import InvalidInputError
from shared.registry.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Task, manifest_from, parse_manifest
from shared.validation.archive import Archive, open_archive
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.wire import MODEL_FILE, REFERENCE_FILE, VALIDATION_FILE, IntakeTask, Stage

if TYPE_CHECKING:
    import onnx

_MAX_MEMBERS = 64
_TASK_KEY = "slipway.task"
_TOTAL_TO_FILE = 2
"""A bundle may expand to this many times what a single file may have."""


def take_in(work: IntakeTask, *, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> Manifest:
    """Check a drop, and unpack a bundle into `workdir` under the fixed names of shared.validation.wire.

    Libraries load only when their turn comes, so a damaged archive is refused before onnx is imported. Raises
    DropRefusedError.
    """
    name = work.filename.lower()
    size_bytes = work.path.stat().st_size
    if size_bytes > file_bytes:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"the drop has {size_bytes} bytes: at most {file_bytes} are allowed"
        )
    if name.endswith(".onnx"):
        begin(Stage.CHECKING)
        return manifest_of_bare(_read_model(work.path))
    if name.endswith(".zip"):
        return _take_in_bundle(work.path, workdir, file_bytes, begin)
    raise DropRefusedError(
        RefusalCode.UNKNOWN_FORM,
        f"{excerpt(work.filename, 100)!r} is neither an .onnx file nor a .zip bundle: drop one of these",
    )


def manifest_of_bare(model: "onnx.ModelProto") -> Manifest:
    """The manifest of a model that came without one: its task from the metadata entry `slipway.task`.

    Without that entry it is taken for a classifier. Raises DropRefusedError for a task that does not exist.
    """
    task = next((entry.value for entry in model.metadata_props if entry.key == _TASK_KEY), Task.CLASSIFICATION)
    try:
        return manifest_from({"task": task})
    except InvalidInputError as error:
        raise DropRefusedError(
            RefusalCode.BAD_MANIFEST,
            f"the model's metadata entry {_TASK_KEY!r} is {excerpt(task, 60)!r}: use one of {', '.join(Task)}",
        ) from error


def _take_in_bundle(path: Path, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> Manifest:
    begin(Stage.UNPACKING)
    with open_archive(
        path,
        what="the bundle",
        damaged=RefusalCode.NOT_ZIP,
        max_members=_MAX_MEMBERS,
        max_bytes=_TOTAL_TO_FILE * file_bytes,
    ) as bundle:
        manifest = _read_manifest(bundle)
        wanted = {manifest.model: MODEL_FILE, manifest.validation: VALIDATION_FILE, manifest.reference: REFERENCE_FILE}
        targets = {name: workdir / fixed for name, fixed in wanted.items() if name is not None}
        _check_members(bundle.names, targets)
        for name, target in targets.items():
            bundle.unpack(name, target, max_bytes=file_bytes)
    begin(Stage.CHECKING)
    _read_model(targets[manifest.model])
    begin(Stage.READING_DATA)
    _check_data(manifest.validation, targets, file_bytes)
    _check_data(manifest.reference, targets, file_bytes)
    return manifest


def _read_manifest(bundle: Archive) -> Manifest:
    if MANIFEST_NAME not in bundle.names:
        raise DropRefusedError(
            RefusalCode.MISSING_FILE, f"the bundle has no {MANIFEST_NAME} at its root: add one that names its files"
        )
    try:
        return parse_manifest(bundle.read(MANIFEST_NAME, MAX_MANIFEST_BYTES))
    except DropRefusedError:
        raise
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def _check_members(names: list[str], targets: dict[str, Path]) -> None:
    missing = [name for name in targets if name not in names]
    if missing:
        raise DropRefusedError(
            RefusalCode.MISSING_FILE, f"the bundle lacks {_quoted(missing)}, which its {MANIFEST_NAME} names"
        )
    unexpected = [name for name in names if name != MANIFEST_NAME and name not in targets]
    if unexpected:
        raise DropRefusedError(
            RefusalCode.UNEXPECTED_FILE,
            f"the bundle holds {_quoted(unexpected)}, which its {MANIFEST_NAME} does not name: name or remove it",
        )


def _check_data(name: str | None, targets: dict[str, Path], file_bytes: int) -> None:
    if name is not None:
        from shared.validation.datafile import read_arrays  # noqa: PLC0415 - loads numpy

        read_arrays(targets[name], what=name, max_bytes=file_bytes)


def _read_model(path: Path) -> "onnx.ModelProto":
    from shared.validation.graph import read_model  # noqa: PLC0415 - loads onnx

    return read_model(path)


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(excerpt(name, 60)) for name in names[:5]) + (" and more" if len(names) > 5 else "")
