"""The functions app as one archive: what git knows of, less what `.funcignore` names.

The archive depends on the files' contents alone: no time, no owner and no order of a directory goes into it, so that
the same commit makes the same bytes anywhere. It holds no file that git ignores, and is written whole or not at all.
"""

import fnmatch
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from cli.command import JsonOption
from cli.outcome import Answer, CliError, ExitCode, Json, tell
from shared.core.errors import InvalidInputError

REPOSITORY = Path(__file__).resolve().parent.parent
IGNORE_FILE = ".funcignore"
_NEEDED = ("function_app.py", "host.json", "requirements.txt")
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An archive that was written."""

    files: int
    size_bytes: int
    digest: str
    """SHA-256, in hexadecimal."""


def package(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write; one that is there is replaced.")],
    *,
    json_output: JsonOption = False,
) -> int:
    """Pack the functions app for deployment: what git knows of, less what .funcignore names."""
    made = write_package(REPOSITORY, file)
    value: Json = {"file": str(file), "files": made.files, "size_bytes": made.size_bytes, "sha256": made.digest}

    def show() -> None:
        print(f"{file}: {made.files} files, {made.size_bytes:,} bytes, sha256 {made.digest}")

    return tell(Answer(value=value, show=show), as_json=json_output)


def write_package(root: Path, file: Path) -> Package:
    """Write the archive of the repository at `root`. Raises CliError, InvalidInputError."""
    names = packaged(root)
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise InvalidInputError(f"{root} is no functions app: it has no {', no '.join(missing)} that is deployed")
    half = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(half, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in names:
                entry = zipfile.ZipInfo(name, date_time=_LONG_AGO)
                entry.external_attr = _MODE
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, (root / name).read_bytes())
        data = half.read_bytes()
        half.replace(file)
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInputError(f"{error.filename or file} cannot be read or written: {reason}") from error
    finally:
        half.unlink(missing_ok=True)
    return Package(files=len(names), size_bytes=len(data), digest=hashlib.sha256(data).hexdigest())


def packaged(root: Path) -> list[str]:
    """The files that are deployed, relative to the root, in order. Raises CliError, InvalidInputError."""
    patterns = read_patterns((root / IGNORE_FILE).read_text("utf-8"))
    return [name for name in _known_to_git(root) if (root / name).is_file() and not is_ignored(name, patterns)]


def read_patterns(text: str) -> list[str]:
    """The patterns of an ignore file. Raises InvalidInputError for what is_ignored does not know."""
    patterns = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for pattern in patterns:
        if pattern.startswith("!") or "**" in pattern or "\\" in pattern:
            raise InvalidInputError(
                f"{IGNORE_FILE} holds {pattern!r}: use names and `*`, and a `/` at the end for a folder"
            )
    return patterns


def is_ignored(name: str, patterns: Sequence[str]) -> bool:
    """Whether a file is left out, as gitignore(5) has it: a name anywhere, or a path from the root on."""
    parts = name.split("/")
    for length in range(1, len(parts) + 1):
        is_folder = length < len(parts)
        for pattern in patterns:
            wanted = pattern.rstrip("/")
            if pattern.endswith("/") and not is_folder:
                continue
            matches = parts[:length] if "/" in wanted else parts[length - 1 : length]
            wanted_parts = wanted.lstrip("/").split("/")
            if len(matches) == len(wanted_parts) and all(map(fnmatch.fnmatchcase, matches, wanted_parts)):
                return True
    return False


def _known_to_git(root: Path) -> list[str]:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CliError(
            f"git cannot tell which files of {root} are the app's: use a clone of the repository, and install git",
            ExitCode.FAILED,
            "no_git",
        ) from error
    return sorted(set(listed.stdout.decode().split("\0")) - {""})
