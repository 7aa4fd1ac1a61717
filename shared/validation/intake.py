"""Intake: is a drop well formed? Runs in the sandboxed process.

A well-formed drop is a whole, valid ONNX model: alone, or with the files that hold its tensors, data files that read,
and a manifest that names every file, or an MLmodel that stands for one. A folder's manifest has every file's digest. A
signature must be good. Whether the model is any good is not asked here.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.core.errors import InvalidInputError
from shared.registry.manifest import (
    MANIFEST_NAME,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    Manifest,
    Task,
    is_drop_path,
    manifest_from,
    parse_mapping,
)
from shared.registry.policy import SigningPolicy
from shared.signing.bundle import MAX_SIGNATURE_BYTES, SIGNATURE_FILE
from shared.validation.archive import open_archive
from shared.validation.dropfiles import BundleFiles, DropFiles, FolderFiles, check_names, listed
from shared.validation.metadata import manifest_values, merged
from shared.validation.mlflow import (
    MAX_MLMODEL_BYTES,
    MLMODEL_NAME,
    Mlmodel,
    is_mlflow_file,
    read_mlmodel,
    values_from_graph,
)
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.wire import Accepted, FileRole, IntakeTask, Stage, TakenFile

if TYPE_CHECKING:
    import onnx

_TOTAL_TO_FILE = 2
"""A bundle may expand to this many times what a single file may have."""
_ANY_TASK: Mapping[str, Any] = {"task": Task.CLASSIFICATION.value}
"""Stands in where an MLmodel may still tell the task."""


def take_in(work: IntakeTask, *, workdir: Path, file_bytes: int, begin: Callable[[Stage], None]) -> Accepted:
    """Check a drop; a bundle is unpacked into `workdir`, and what the ONNX checker reads is written there.

    Libraries load only when their turn comes, so a damaged archive is refused before onnx is imported. Raises
    DropRefusedError.
    """
    if work.path is None:
        begin(Stage.CHECKING)
        return _take_in_files(FolderFiles(work.folder, file_bytes), work.signing, file_bytes, begin, workdir)
    name = work.filename.lower()
    size_bytes = work.path.stat().st_size
    if size_bytes > file_bytes:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"the drop has {size_bytes} bytes: at most {file_bytes} are allowed"
        )
    if name.endswith(".onnx"):
        return _take_in_bare(work.path, work, begin, workdir)
    if work.is_bundle:
        begin(Stage.UNPACKING)
        with open_archive(
            work.path,
            what=BundleFiles.what,
            damaged=RefusalCode.NOT_ZIP,
            max_members=2 * MAX_FILES,  # directories have members of their own
            max_bytes=_TOTAL_TO_FILE * file_bytes,
            is_safe=is_drop_path,
        ) as archive:
            files = BundleFiles(archive, workdir, file_bytes)
            return _take_in_files(files, work.signing, file_bytes, begin, workdir)
    raise DropRefusedError(
        RefusalCode.UNKNOWN_FORM,
        f"{excerpt(work.filename, 100)!r} is neither an .onnx file nor a .zip bundle: drop one of these, or a folder",
    )


def manifest_of_bare(model: "onnx.ModelProto", metadata: Mapping[str, str]) -> Manifest:
    """The manifest of a model that came without one: from its own metadata, and its blob's, which wins.

    Without a task it is taken for a classifier. Raises DropRefusedError naming an entry that cannot be used.
    """
    try:
        own = manifest_values({entry.key: entry.value for entry in model.metadata_props})
        values = merged(_ANY_TASK, own, manifest_values(metadata))
        return manifest_from(values, source="the model's metadata")
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def manifest_of_folder(path: Path) -> Manifest:
    """A folder's manifest by itself, which tells what the folder waits for. Raises DropRefusedError.

    That of an MLflow model may leave out the task, which then is not known before the model is read.
    """
    with path.open("rb") as file:
        values = _mapping(file.read(MAX_MANIFEST_BYTES + 1))
    files = values.get("files")
    return _manifest(values, _ANY_TASK if isinstance(files, Mapping) and MLMODEL_NAME in files else {})


def _take_in_bare(path: Path, work: IntakeTask, begin: Callable[[Stage], None], workdir: Path) -> Accepted:
    begin(Stage.CHECKING)
    if work.signing.required:
        raise DropRefusedError(
            RefusalCode.UNSIGNED,
            f"the model's policy wants signed drops: drop a bundle or folder with the signature as {SIGNATURE_FILE}",
        )
    manifest = manifest_of_bare(_read_model(path, {}, workdir), work.metadata)
    return Accepted(manifest=manifest, files=(TakenFile(role=FileRole.MODEL, name=manifest.model, file=""),))


def _take_in_files(
    files: DropFiles, signing: SigningPolicy, file_bytes: int, begin: Callable[[Stage], None], workdir: Path
) -> Accepted:
    check_names(files)
    if signing.required and SIGNATURE_FILE not in files.names:
        raise DropRefusedError(
            RefusalCode.UNSIGNED,
            f"{files.what} has no {SIGNATURE_FILE}, and the model's policy wants signed drops: sign it",
        )
    signed_by = _signed_by(files, signing)
    mlmodel, values = _description(files)
    draft = _manifest(values, {**_ANY_TASK, **mlmodel.values} if mlmodel else {})
    roles = _named(draft)
    _check_whole(files, draft, roles)
    begin(Stage.CHECKING)
    others = files.names - roles.keys() - {MANIFEST_NAME, MLMODEL_NAME, SIGNATURE_FILE}
    if mlmodel:
        others = frozenset(name for name in others if not is_mlflow_file(name))
    model = _read_model(files.path(draft.model), {name: files.path(name) for name in others}, workdir)
    external = _locations(model)
    unexpected = others - external - draft.files.keys()
    if unexpected:
        raise DropRefusedError(
            RefusalCode.UNEXPECTED_FILE,
            f"{files.what} holds {listed(unexpected)}, which its {_naming(files)} does not name: name or remove it",
        )
    manifest = _finished(draft, values, mlmodel, model)
    del model
    begin(Stage.READING_DATA)
    for name in (manifest.validation, manifest.reference):
        _check_data(name, files, manifest, file_bytes)
    roles |= dict.fromkeys(sorted(external), FileRole.EXTERNAL)
    if SIGNATURE_FILE in files.names:
        roles[SIGNATURE_FILE] = FileRole.SIGNING
    taken = tuple(TakenFile(role=role, name=name, file=files.answer_name(name)) for name, role in roles.items())
    return Accepted(manifest=manifest, files=taken, signed_by=signed_by)


def _description(files: DropFiles) -> tuple[Mlmodel | None, Mapping[Any, Any]]:
    """What describes the drop: its MLmodel, if it has one, and the keys of its manifest."""
    values: Mapping[Any, Any] = {}
    if MANIFEST_NAME in files.names:
        values = _mapping(files.read(MANIFEST_NAME, MAX_MANIFEST_BYTES))
    elif MLMODEL_NAME not in files.names or isinstance(files, FolderFiles):
        nested = sorted(name for name in files.names if name.endswith((f"/{MANIFEST_NAME}", f"/{MLMODEL_NAME}")))
        advice = f"{nested[0]!r} lies deeper: drop what is beside it" if nested else "add one that names its files"
        raise DropRefusedError(RefusalCode.MISSING_FILE, f"{files.what} has no {MANIFEST_NAME} at its root: {advice}")
    if MLMODEL_NAME not in files.names:
        return None, values
    try:
        return read_mlmodel(files.read(MLMODEL_NAME, MAX_MLMODEL_BYTES)), values
    except DropRefusedError:
        raise
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def _mapping(text: bytes) -> Mapping[Any, Any]:
    try:
        return parse_mapping(text)
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def _manifest(values: Mapping[Any, Any], below: Mapping[str, Any]) -> Manifest:
    """The manifest of a drop's own values, and others below them."""
    try:
        return manifest_from(merged(below, values), source=MLMODEL_NAME if below and not values else MANIFEST_NAME)
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error


def _finished(
    draft: Manifest, values: Mapping[Any, Any], mlmodel: Mlmodel | None, model: "onnx.ModelProto"
) -> Manifest:
    """The manifest with what only the graph tells, where an MLmodel leaves it to that."""
    if mlmodel is None:
        return draft
    try:
        graph = values_from_graph(mlmodel, model)
    except InvalidInputError as error:
        raise DropRefusedError(RefusalCode.BAD_MANIFEST, str(error)) from error
    return _manifest(values, merged(graph, mlmodel.values))


def _named(manifest: Manifest) -> dict[str, FileRole]:
    """The files that a manifest names, by their role."""
    roles = {
        manifest.model: FileRole.MODEL,
        manifest.validation: FileRole.VALIDATION,
        manifest.reference: FileRole.REFERENCE,
    }
    return {name: role for name, role in roles.items() if name is not None}


def _naming(files: DropFiles) -> str:
    """The file that names the others."""
    return MANIFEST_NAME if MANIFEST_NAME in files.names else MLMODEL_NAME


def _check_whole(files: DropFiles, manifest: Manifest, roles: Mapping[str, FileRole]) -> None:
    """Is every file there that the manifest names, with its digest; and does a folder's name every file?"""
    missing = [name for name in (*roles, *manifest.files) if name not in files.names]
    if missing:
        raise DropRefusedError(
            RefusalCode.MISSING_FILE, f"{files.what} lacks {listed(set(missing))}, which its {_naming(files)} names"
        )
    unlisted = files.names - manifest.files.keys() - {MANIFEST_NAME, SIGNATURE_FILE}
    if unlisted and isinstance(files, FolderFiles):
        raise DropRefusedError(
            RefusalCode.UNEXPECTED_FILE,
            f"the folder holds {listed(unlisted)}, which `files` of its {MANIFEST_NAME} does not name: add it there "
            "with its SHA-256, or remove it",
        )
    for name in roles.keys() & manifest.files.keys():
        files.path(name)  # unpacked and hashed at once
    for name, digest in manifest.files.items():
        if (found := files.digest(name)) != digest.removeprefix("sha256:"):
            raise DropRefusedError(
                RefusalCode.WRONG_DIGEST,
                f"{name!r} has the SHA-256 {found}, and the {MANIFEST_NAME} names {digest}: it was cut or changed",
            )


def _check_data(name: str | None, files: DropFiles, manifest: Manifest, file_bytes: int) -> None:
    if name is not None:
        from shared.validation.tabular import read_table  # noqa: PLC0415 - loads numpy

        path = files.path(name)
        read_table(path, name=name, manifest=manifest, signature=None, what=name, max_bytes=file_bytes)


def _signed_by(files: DropFiles, signing: SigningPolicy) -> str:
    """The fingerprint of the key that signed the drop; empty where nobody did. Asked before anything is parsed."""
    if SIGNATURE_FILE not in files.names:
        return ""
    from shared.signing.errors import SigningError  # noqa: PLC0415 - loads cryptography
    from shared.signing.verify import verify_drop  # noqa: PLC0415

    digests = {name: files.digest(name) for name in files.names - {SIGNATURE_FILE}}
    try:
        return verify_drop(files.read(SIGNATURE_FILE, MAX_SIGNATURE_BYTES), digests, signing.trusted_keys)
    except SigningError as error:
        raise DropRefusedError(RefusalCode(error.code.value), str(error)) from error


def _locations(model: "onnx.ModelProto") -> frozenset[str]:
    """The files that hold tensors of a model which was read with them."""
    from shared.validation.external import external_files  # noqa: PLC0415 - not before a model is read

    return frozenset(external_files(model))


def _read_model(path: Path, external: Mapping[str, Path], workdir: Path) -> "onnx.ModelProto":
    from shared.validation.graph import read_model  # noqa: PLC0415 - loads onnx

    return read_model(path, workdir=workdir, external=external)
