"""Intake: is a drop well formed? Runs in the sandboxed process.

A well-formed drop is a whole, valid ONNX model, alone or in a bundle with a manifest that reads, every file that the
manifest names and no other, and data files that hold plain arrays. Whether the model is any good is not asked here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from shared.core.errors import InvalidInputError
from shared.registry.manifest import MANIFEST_NAME, MAX_MANIFEST_BYTES, Manifest, Task, manifest_from, parse_manifest
from shared.validation.archive import Archive, open_archive
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.wire import (
    MODEL_FILE,
    REFERENCE_FILE,
    VALIDATION_FILE,
    Accepted,
    FileRole,
    IntakeTask,
    Stage,
    TakenFile,
)

if TYPE_CHECKING:
    import onnx

_MAX_MEMBERS = 64
_TASK_KEY = "slipway.task"
_TOTAL_TO_FILE = 2
"""A bundle may expand to this many times what a single file may have."""


def take_in(work: IntakeTask, *, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> Accepted:
    """Check a drop, and unpack a bundle into `workdir` under the fixed names of shared.validation.wire.

    Libraries load only when their turn comes, so a damaged archive is refused before onnx is imported. Raises
    DropRefusedError.
    """
    if work.path is None:
        return _take_in_folder(work.folder, file_bytes, begin)
    name = work.filename.lower()
    size_bytes = work.path.stat().st_size
    if size_bytes > file_bytes:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"the drop has {size_bytes} bytes: at most {file_bytes} are allowed"
        )
    if name.endswith(".onnx"):
        begin(Stage.CHECKING)
        manifest = manifest_of_bare(_read_model(work.path))
        return Accepted(manifest=manifest, files=(TakenFile(role=FileRole.MODEL, name=manifest.model, file=""),))
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


def manifest_of_folder(path: Path) -> Manifest:
    """The manifest of a folder drop. Raises DropRefusedError."""
    with path.open("rb") as file:
        return _parsed(file.read(MAX_MANIFEST_BYTES + 1))


def _take_in_folder(folder: Mapping[str, Path], file_bytes: int, begin: Callable[[Stage], None]) -> Accepted:
    begin(Stage.CHECKING)
    if MANIFEST_NAME not in folder:
        raise DropRefusedError(RefusalCode.MISSING_FILE, f"the folder has no {MANIFEST_NAME}: add one")
    manifest = manifest_of_folder(folder[MANIFEST_NAME])
    _check_members(list(folder), dict.fromkeys(_named(manifest)))
    return _checked(manifest, folder, {name: name for name in folder}, file_bytes, begin)


def _named(manifest: Manifest) -> dict[str, FileRole]:
    """The files that a manifest names, by their role."""
    roles = {
        manifest.model: FileRole.MODEL,
        manifest.validation: FileRole.VALIDATION,
        manifest.reference: FileRole.REFERENCE,
    }
    return {name: role for name, role in roles.items() if name is not None}


def _checked(
    manifest: Manifest,
    paths: Mapping[str, Path],
    files: Mapping[str, str],
    file_bytes: int,
    begin: Callable[[Stage], None],
) -> Accepted:
    """Check the files that a manifest names, each at its path; `files` has the names to answer with."""
    begin(Stage.CHECKING)
    _read_model(paths[manifest.model])
    begin(Stage.READING_DATA)
    _check_data(manifest.validation, paths, file_bytes)
    _check_data(manifest.reference, paths, file_bytes)
    taken = tuple(TakenFile(role=role, name=name, file=files[name]) for name, role in _named(manifest).items())
    return Accepted(manifest=manifest, files=taken)


def _take_in_bundle(path: Path, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> Accepted:
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
    return _checked(manifest, targets, {name: target.name for name, target in targets.items()}, file_bytes, begin)


def _read_manifest(bundle: Archive) -> Manifest:
    if MANIFEST_NAME not in bundle.names:
        raise DropRefusedError(
            RefusalCode.MISSING_FILE, f"the bundle has no {MANIFEST_NAME} at its root: add one that names its files"
        )
    return _parsed(bundle.read(MANIFEST_NAME, MAX_MANIFEST_BYTES))


def _parsed(text: bytes) -> Manifest:
    try:
        return parse_manifest(text)
    except DropRefusedError:
        raise
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def _check_members(names: list[str], targets: Mapping[str, object]) -> None:
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


def _check_data(name: str | None, targets: Mapping[str, Path], file_bytes: int) -> None:
    if name is not None:
        from shared.validation.datafile import read_arrays  # noqa: PLC0415 - loads numpy

        read_arrays(targets[name], what=name, max_bytes=file_bytes)


def _read_model(path: Path) -> "onnx.ModelProto":
    from shared.validation.graph import read_model  # noqa: PLC0415 - loads onnx

    return read_model(path)


def _quoted(names: list[str]) -> str:
    return ", ".join(repr(excerpt(name, 60)) for name in names[:5]) + (" and more" if len(names) > 5 else "")
