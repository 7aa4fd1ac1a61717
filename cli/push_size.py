"""Is what is to be pushed too large? Told before it is uploaded, and not after.

The limit of a model's file is its policy's, for which the admin API is asked. Where it cannot be, and where the model
is new, nobody is stopped: whoever may write to storage need not have a way to the API, and intake and validation look
at sizes in any case.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

from cli.client import Client
from cli.folder import plain_files
from cli.outcome import CliError, ExitCode
from cli.target import Target
from shared.core.errors import SlipwayError
from shared.core.ids import ModelName

MAX_FILE_BYTES = 8_000_000_000
"""The largest file that intake takes, and the servers load."""
_ASKED_S = 5.0


def refuse_too_large(target: Target, path: Path, model: ModelName) -> None:
    """Raises CliError where a file, a bundle or a folder would be refused for its size."""
    files = {name: file.stat().st_size for name, file in _files(path).items()}
    for name, size_bytes in files.items():
        if size_bytes > MAX_FILE_BYTES:
            raise _TooLargeError(f"{name} has {size_bytes} bytes: a file may have at most {MAX_FILE_BYTES}")
    # Which of several is the model, the manifest says: what holds for the smallest one holds for it.
    models = [(size, name) for name, size in (files | _within(path)).items() if name.lower().endswith(".onnx")]
    limit = _limit(target, model) if models else None
    if limit is not None and min(models)[0] > limit:
        size_bytes, name = min(models)
        raise _TooLargeError(
            f"{name} has {size_bytes} bytes, and the policy of {model} allows {limit} (validation.max_size_bytes), so "
            f"nothing was uploaded: make the model smaller, or allow more with `slipway policy set {model}`"
        )


class _TooLargeError(CliError):
    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.FAILED, "invalid_input")


def _files(path: Path) -> Mapping[str, Path]:
    return plain_files(path) if path.is_dir() else {path.name: path}


def _within(path: Path) -> dict[str, int]:
    """The sizes of what a bundle holds; nothing where that cannot be read."""
    if path.suffix.lower() != ".zip" or not path.is_file():
        return {}
    try:
        with zipfile.ZipFile(path) as bundle:
            return {entry.filename: entry.file_size for entry in bundle.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return {}


def _limit(target: Target, model: ModelName) -> int | None:
    """How many bytes the model's file may have; None where that cannot be asked."""
    try:
        with Client(target) as client:
            policy = client.get("models", model, timeout_s=_ASKED_S)["policy"]
            return int(policy["validation"]["max_size_bytes"])
    except SlipwayError:
        return None
