"""Reads zip archives that nobody vouches for: bundles, and the NPZ files that numpy writes, which are zips too.

Everything that the directory of the archive declares is checked before a member is opened, and what a member really
holds is checked while it is read. Nothing is written under a name that came from the archive.
"""

import contextlib
import errno
import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from shared.validation.refusal import DropRefusedError, RefusalCode

_CHUNK_BYTES = 1024 * 1024
_MAX_RATIO = 200
_FREE_BYTES = 16 * 1024 * 1024
"""What may expand by any ratio: small archives of zeros are common and harmless."""
_ENCRYPTED_FLAGS = 0x0001 | 0x0040 | 0x2000
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)


class Archive:
    """An open archive whose directory has been checked: safe, distinct names, within limits."""

    def __init__(self, file: zipfile.ZipFile, what: str, damaged: RefusalCode) -> None:
        self._file = file
        self._what = what
        self._damaged = damaged

    @property
    def names(self) -> list[str]:
        """The members' names, in the archive's order."""
        return [info.filename for info in self._file.infolist() if not _is_folder(info)]

    def size_bytes(self, name: str) -> int:
        """What a member expands to, as declared."""
        return self._file.getinfo(name).file_size

    @contextlib.contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        """A member as a stream. Raises DropRefusedError, also from the block, where the archive is damaged."""
        try:
            with self._file.open(name) as stream:
                yield stream
        except _DAMAGE as error:
            raise _damaged(self._what, self._damaged, f"{name!r} cannot be read ({error})") from error
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise _damaged(self._what, self._damaged, f"{name!r} lies outside of it") from error

    def read(self, name: str, max_bytes: int) -> bytes:
        """A small member, whole. Raises DropRefusedError where it is larger than `max_bytes`."""
        with self.member(name) as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise DropRefusedError(RefusalCode.TOO_LARGE, f"{name!r} is larger than the {max_bytes} bytes it may have")
        return data

    def digest(self, name: str) -> str:
        """The SHA-256 (hexadecimal) of a member, which is streamed."""
        digest = hashlib.sha256()
        for chunk in self._chunks(name):
            digest.update(chunk)
        return digest.hexdigest()

    def unpack(self, name: str, target: Path, *, max_bytes: int) -> str:
        """Stream a member of at most `max_bytes` into an empty or a new file. Returns its SHA-256."""
        declared = self.size_bytes(name)
        if declared > max_bytes:
            raise DropRefusedError(
                RefusalCode.TOO_LARGE, f"{name!r} has {declared} bytes: a file may have at most {max_bytes}"
            )
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        digest = hashlib.sha256()
        with os.fdopen(descriptor, "wb") as sink:
            for chunk in self._chunks(name):
                digest.update(chunk)
                sink.write(chunk)
        return digest.hexdigest()

    def _chunks(self, name: str) -> Iterator[bytes]:
        declared = self.size_bytes(name)
        read = 0
        with self.member(name) as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                read += len(chunk)
                yield chunk
            # The zip reader stops at the declared size and compares the checksum there; a stream that ends
            # early ends without either.
            if read != declared:
                raise _damaged(self._what, self._damaged, f"{name!r} holds {read} bytes and declares {declared}")


@contextlib.contextmanager
def open_archive(
    path: Path,
    *,
    what: str,
    damaged: RefusalCode,
    max_members: int,
    max_bytes: int,
    is_safe: Callable[[str], bool] | None = None,
) -> Iterator[Archive]:
    """Open a zip archive, called `what` in messages, whose members expand to at most `max_bytes` together.

    Members lie at its root; with `is_safe` also in directories, under names that it says are safe. Raises
    DropRefusedError: with the code `damaged` where it is no readable zip, else with what is unsafe about it.
    """
    try:
        with path.open("rb") as source:
            if source.read(4) != b"PK\x03\x04":
                raise _damaged(what, damaged, "it does not start like a zip archive with files in it")
        file = zipfile.ZipFile(path)
    except _DAMAGE as error:
        raise _damaged(what, damaged, str(error)) from error
    with file:
        _check_directory(file, what, damaged, max_members, is_safe)
        _check_expansion(file, what, max_bytes, path.stat().st_size)
        yield Archive(file, what, damaged)


def _check_directory(
    file: zipfile.ZipFile, what: str, damaged: RefusalCode, max_members: int, is_safe: Callable[[str], bool] | None
) -> None:
    members = file.infolist()
    if len(members) > max_members:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"{what} has {len(members)} members: at most {max_members} are allowed"
        )
    seen: set[str] = set()
    for info in members:
        _check_name(info, what, is_safe)
        _check_member(info, what, damaged)
        if info.filename in seen:
            raise DropRefusedError(RefusalCode.DUPLICATE_FILE, f"{what} holds {info.filename[:100]!r} twice: keep one")
        seen.add(info.filename)


def _check_name(info: zipfile.ZipInfo, what: str, is_safe: Callable[[str], bool] | None) -> None:
    name = info.orig_filename
    if is_safe is None:
        safe = name not in {"", ".", ".."} and not any(sign in name for sign in ("/", "\\", ":", "\0"))
        advice = "put plain files at its root, without directories"
    else:
        safe = is_safe(name.removesuffix("/") if _is_folder(info) else name)
        advice = "use letters, digits, '.', '_' and '-', begin with no '.', and nest at most three directories"
    if not safe or name != info.filename:
        raise DropRefusedError(RefusalCode.UNSAFE_PATH, f"{what} has a member named {name[:100]!r}: {advice}")


def _is_folder(info: zipfile.ZipInfo) -> bool:
    """Whether it stands for a directory: a name with a slash at its end, and nothing in it."""
    return info.filename.endswith("/") and info.file_size == 0


def _check_member(info: zipfile.ZipInfo, what: str, damaged: RefusalCode) -> None:
    name = info.filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFDIR if _is_folder(info) else stat.S_IFREG}:
        raise DropRefusedError(
            RefusalCode.UNSAFE_PATH, f"{what} has a link or special file named {name[:100]!r}: put plain files in it"
        )
    if info.flag_bits & _ENCRYPTED_FLAGS:
        raise DropRefusedError(
            RefusalCode.ENCRYPTED, f"{name[:100]!r} in {what} is encrypted: drop it without a password"
        )
    if info.compress_type not in _METHODS:
        raise _damaged(what, damaged, f"{name[:100]!r} is compressed by another method than deflate")


def _check_expansion(file: zipfile.ZipFile, what: str, max_bytes: int, size_bytes: int) -> None:
    """By declared sizes; a member cannot give more than it declares, which the zip reader sees to."""
    expanded = sum(info.file_size for info in file.infolist())
    if expanded > max_bytes:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"{what} expands to {expanded} bytes: at most {max_bytes} are allowed"
        )
    if expanded > _FREE_BYTES and expanded > _MAX_RATIO * size_bytes:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE,
            f"{what} expands from {size_bytes} to {expanded} bytes, more than {_MAX_RATIO} times its size",
        )


def _damaged(what: str, code: RefusalCode, why: str) -> DropRefusedError:
    return DropRefusedError(code, f"{what} is not a readable zip archive: {why}")
