"""Folders as they are pushed: packed into one bundle, or file by file with a manifest that names each one's digest.

Hidden files are left out. The same files give the same bundle and the same drop on every machine.
"""

import hashlib
import json
import re
import stat
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.core.canonical import digest_of
from shared.core.errors import InvalidInputError

MANIFEST = "slipway.yaml"
SIGNATURE = "model.sig"

_KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory"}
_EPOCH = (1980, 1, 1, 0, 0, 0)
_BLOCK_BYTES = 8 * 1024 * 1024
_FILES_KEY = re.compile(r"""^(["']?)files\1\s*:""", re.MULTILINE)
_END_OF_DOCUMENT = re.compile(r"^\.\.\.\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderDrop:
    """A folder to push file by file: `files` in the order of their names, then the manifest."""

    name: str
    files: Mapping[str, Path]
    manifest: bytes
    digest: str
    """A digest of all names and contents."""


def folder_drop(folder: Path) -> FolderDrop:
    """Read a folder. Its manifest is given a list of its files where it has none. Raises InvalidInputError."""
    files = plain_files(folder)
    path = files.pop(MANIFEST, None)
    if path is None:
        raise InvalidInputError(f"{folder} has no {MANIFEST}: write one, with a line such as `task: classification`")
    digests = {name: _sha256(file) for name, file in files.items()}
    named = {name: digest for name, digest in digests.items() if name != SIGNATURE}
    manifest = _naming_files(path, named, is_signed=SIGNATURE in files)
    content = digests | {MANIFEST: hashlib.sha256(manifest).hexdigest()}
    return FolderDrop(name=folder.resolve().name, files=files, manifest=manifest, digest=digest_of(content))


def plain_files(folder: Path) -> dict[str, Path]:
    """A folder's files by their names in it, in the order of those.

    Raises InvalidInputError where there are none, or where something is none; OSError where one cannot be looked at.
    """
    found = {path.relative_to(folder).as_posix(): path for path in _walk(folder)}
    for file in found.values():
        check_file(file)
    if not found:
        raise InvalidInputError(f"{folder} holds no files: put a {MANIFEST} and a model into it")
    return {name: found[name] for name in sorted(found)}


def check_file(path: Path) -> None:
    """Raises InvalidInputError where there is something else, of which nobody knows when it ends; OSError."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "a device")
        raise InvalidInputError(f"{path} is {kind}, and no file: put what it is to hold into a file")


def check_key_file(path: Path) -> None:
    """As `check_file`; but what a shell has open already, as in `--key <(...)`, is taken, for somebody writes it."""
    if path.resolve().exists():
        check_file(path)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in folder.walk(on_error=_raise):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (parent / name for name in names if not name.startswith(".")):
            if path.is_dir():
                raise InvalidInputError(
                    f"{path} is a link to a directory, which is not followed: put the directory itself there"
                )
            yield path


def _raise(error: OSError) -> None:
    raise error


def pack(folder: Path, bundle: Path) -> None:
    """Pack a folder's files: in the order of their names, uncompressed, without times."""
    files = plain_files(folder)
    with zipfile.ZipFile(bundle, "w", zipfile.ZIP_STORED) as archive:
        for name, file in files.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = 0o644 << 16
            entry.file_size = file.stat().st_size
            with file.open("rb") as source, archive.open(entry, "w") as packed_file:
                while block := source.read(_BLOCK_BYTES):
                    packed_file.write(block)


def _naming_files(path: Path, digests: Mapping[str, str], *, is_signed: bool) -> bytes:
    """The manifest's text with its files named; as it is where it names files itself, right or wrong."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    if _FILES_KEY.search(text):
        return data
    if is_signed:
        raise InvalidInputError(
            f"{path} does not name the folder's files, and the signature is over it as it is: name each of them under "
            "`files` with its SHA-256 and sign again, or push the folder as a bundle"
        )
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "---", "%"))]
    if (lines and lines[0].lstrip().startswith("{")) or _END_OF_DOCUMENT.search(text):
        raise InvalidInputError(
            f"{path} cannot be given a list of the folder's files: write it as `key: value` lines, or name them in it"
        )
    named = "".join(f"  {json.dumps(name)}: {json.dumps(digest)}\n" for name, digest in digests.items())
    return f"{text}{'' if text.endswith('\n') else '\n'}files:\n{named}".encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
