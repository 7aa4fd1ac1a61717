"""The files of a drop, alike for a zip bundle and for a folder: their names, sizes, digests, and where they lie.

A bundle's file is unpacked when it is first asked for, as `part-<n>`, never under its own name. A folder's stays where
it is. Loads no library that parses anything.
"""

import hashlib
from collections.abc import Iterable, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from shared.registry.manifest import MAX_FILES, is_drop_path
from shared.validation.archive import Archive
from shared.validation.refusal import DropRefusedError, RefusalCode, excerpt
from shared.validation.wire import part_file

_SHOWN = 5


class DropFiles(Protocol):
    """The files of a drop by their names in it.

    Each method raises DropRefusedError where a file is not whole.
    """

    what: str
    """What the drop is called in messages."""
    names: frozenset[str]

    def size_bytes(self, name: str) -> int:
        """How large a file is."""
        ...

    def read(self, name: str, max_bytes: int) -> bytes:
        """A small file, whole."""
        ...

    def digest(self, name: str) -> str:
        """The SHA-256 (hexadecimal) of a file, which is streamed."""
        ...

    def path(self, name: str) -> Path:
        """Where a file lies."""
        ...

    def answer_name(self, name: str) -> str:
        """The name by which the process that asked finds a file."""
        ...


class FolderFiles:
    """A folder that was downloaded, each file at a path of its own."""

    what = "the folder"

    def __init__(self, paths: Mapping[str, Path], max_bytes: int) -> None:
        for name in paths:
            if not is_drop_path(name):
                raise DropRefusedError(
                    RefusalCode.UNSAFE_PATH,
                    f"the folder has a file named {excerpt(name, 100)!r}: use letters, digits, '.', '_' and '-', begin "
                    "with no '.', and nest at most three directories",
                )
        self._paths = paths
        self.names = frozenset(paths)
        for name in paths:
            if self.size_bytes(name) > max_bytes:
                raise DropRefusedError(
                    RefusalCode.TOO_LARGE,
                    f"{name!r} has {self.size_bytes(name)} bytes: a file may have at most {max_bytes}",
                )

    def size_bytes(self, name: str) -> int:
        return self._paths[name].stat().st_size

    def read(self, name: str, max_bytes: int) -> bytes:
        with self._paths[name].open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise DropRefusedError(RefusalCode.TOO_LARGE, f"{name!r} is larger than the {max_bytes} bytes it may have")
        return data

    def digest(self, name: str) -> str:
        with self._paths[name].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def path(self, name: str) -> Path:
        return self._paths[name]

    def answer_name(self, name: str) -> str:
        return name


class BundleFiles:
    """An open zip bundle."""

    what = "the bundle"

    def __init__(self, archive: Archive, workdir: Path, max_bytes: int) -> None:
        self._archive = archive
        self._workdir = workdir
        self._max_bytes = max_bytes
        self._unpacked: dict[str, tuple[Path, str]] = {}
        self.names = frozenset(archive.names)

    def size_bytes(self, name: str) -> int:
        return self._archive.size_bytes(name)

    def read(self, name: str, max_bytes: int) -> bytes:
        return self._archive.read(name, max_bytes)

    def digest(self, name: str) -> str:
        return self._unpacked[name][1] if name in self._unpacked else self._archive.digest(name)

    def path(self, name: str) -> Path:
        if name not in self._unpacked:
            target = self._workdir / part_file(len(self._unpacked) + 1)
            self._unpacked[name] = target, self._archive.unpack(name, target, max_bytes=self._max_bytes)
        return self._unpacked[name][0]

    def answer_name(self, name: str) -> str:
        return self.path(name).name


def check_names(files: DropFiles) -> None:
    """Raises DropRefusedError where there are too many files, or one has the name of another's directory."""
    if len(files.names) > MAX_FILES:
        raise DropRefusedError(
            RefusalCode.TOO_LARGE, f"{files.what} has {len(files.names)} files: at most {MAX_FILES} are allowed"
        )
    for name in sorted(files.names):
        *folders, _ = name.split("/")
        both = next((folder for folder in accumulate(folders, "{}/{}".format) if folder in files.names), None)
        if both is not None:
            raise DropRefusedError(
                RefusalCode.UNSAFE_PATH, f"{files.what} has {both!r} as a file and as a directory: rename one"
            )


def listed(names: Iterable[str]) -> str:
    """Names for a message: the first few."""
    found = sorted(names)
    return ", ".join(repr(excerpt(name, 60)) for name in found[:_SHOWN]) + (" and more" if len(found) > _SHOWN else "")
