"""`slipway push`: put a model into the incoming container, where its way begins.

A folder is packed into one bundle, or pushed file by file with its manifest last.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.client import Client
from cli.command import command
from cli.folder import folder_drop, pack
from cli.outcome import Answer, CliError, ExitCode, Json
from cli.printable import printable
from cli.target import Target
from shared.core.errors import InvalidInputError
from shared.core.ids import ModelName, model_name

if TYPE_CHECKING:
    from cli.upload import Dropped, Say

_FORMS = (".onnx", ".zip")
_UNDECIDED = {"registered", "validating"}
_POLL_S = 0.5


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    command(app)(push)


def push(
    target: Target,
    path: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="An .onnx file, a .zip bundle, or a folder.")],
    model: Annotated[str, typer.Option("--model", "-m", help="The model's name.")],
    *,
    as_folder: Annotated[
        bool, typer.Option("--as-folder", help="Push a folder file by file, for files too large for a bundle.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it is validated or refused.")] = False,
    timeout_s: Annotated[float, typer.Option("--timeout", min=0, help="How many seconds to wait.")] = 300.0,
) -> Answer:
    """Drop a model: an .onnx file, a .zip bundle, or a folder with a slipway.yaml, which is packed."""
    name = model_name(model)
    with _saying() as say:
        say(f"reading {path}")
        _refuse_too_large(target, path, name)
        dropped = (_dropped_folder if as_folder else _dropped_file)(target, path, name, say)
        value: Json = {"model": name, "container": dropped.container, **_facts(dropped), "drop": None, "version": None}
        if wait:
            with Client(target) as client:
                value |= wait_for_decision(client, name, dropped, timeout_s=timeout_s, say=say)
    return Answer(value=value, show=lambda: _show(value), exit_code=_exit_code(value))


def _refuse_too_large(target: Target, path: Path, name: ModelName) -> None:
    from cli.push_size import refuse_too_large  # noqa: PLC0415 - a third of a second

    try:
        if path.exists():
            refuse_too_large(target, path, name)
    except OSError as error:
        raise InvalidInputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


def _dropped_file(target: Target, path: Path, name: ModelName, say: Say) -> Dropped:
    # A second, which no other command need pay.
    from cli.upload import upload  # noqa: PLC0415

    with packed(path) as file:
        return upload(target.storage_connection, file, name, say=say)


def _dropped_folder(target: Target, path: Path, name: ModelName, say: Say) -> Dropped:
    from cli.upload import upload_folder  # noqa: PLC0415 - as above

    if not path.is_dir():
        raise InvalidInputError(f"{path} is no folder: leave out --as-folder, or name a folder")
    try:
        return upload_folder(target.storage_connection, folder_drop(path), name, say=say)
    except OSError as error:
        raise InvalidInputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


@contextmanager
def packed(path: Path) -> Generator[Path]:
    """The file to upload for what the user names. Raises InvalidInputError."""
    try:
        if path.is_dir():
            with tempfile.TemporaryDirectory(prefix="slipway-push-") as scratch:
                bundle = Path(scratch) / f"{path.resolve().name or 'bundle'}.zip"
                pack(path, bundle)
                yield bundle
        elif not path.is_file():
            raise InvalidInputError(f"{path} is no file and no folder: name an .onnx file, a .zip bundle or a folder")
        elif path.suffix.lower() not in _FORMS:
            raise InvalidInputError(f"{path} is neither an .onnx file nor a .zip bundle: name one, or a folder")
        else:
            yield path
    except OSError as error:
        raise InvalidInputError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error


@contextmanager
def _saying() -> Generator[Say]:
    """Shows on standard error, where that is a terminal, what is being done."""
    from rich.console import Console  # noqa: PLC0415 - as above
    from rich.markup import escape  # noqa: PLC0415

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(escape(printable(text)))


def wait_for_decision(
    client: Client, model: ModelName, dropped: Dropped, *, timeout_s: float, say: Say
) -> dict[str, Json]:
    """The drop and its version once both are decided. Raises CliError where that takes longer than the timeout."""
    deadline = time.monotonic() + timeout_s
    while True:
        drop = _drop(client, model, dropped)
        say(f"{dropped.blob} is dropped and {_awaited(drop)}")
        found = _decided(client, model, drop) if drop else None
        if found is not None:
            return found
        if time.monotonic() >= deadline:
            waits = f", and waits for {'; '.join(drop['waiting_for'])}" if drop and drop.get("waiting_for") else ""
            raise CliError(
                f"{dropped.blob} is dropped{waits}, and was not decided within {timeout_s:g} s: `slipway status "
                f"{model}` tells what becomes of it",
                ExitCode.FAILED,
                "timeout",
            )
        time.sleep(_POLL_S)


def _awaited(drop: Json) -> str:
    """How far a drop is, for who waits."""
    if drop is None:
        return "not looked at yet"
    if drop["state"] == "registered":
        return f"registered: version {drop['version']} is being validated"
    return f"waits for {'; '.join(drop['waiting_for'])}" if drop.get("waiting_for") else str(drop["state"])


def _drop(client: Client, model: ModelName, dropped: Dropped) -> Json:
    drops = client.items("models", model, "drops")
    return next((d for d in drops if d["blob"] == dropped.blob and d["etag"].strip('"') == dropped.etag), None)


def _decided(client: Client, model: ModelName, drop: Json) -> dict[str, Json] | None:
    if drop["state"] == "refused":
        return {"drop": drop}
    if drop["state"] != "registered":
        return None
    version = client.get("models", model, "versions", str(drop["version"]))
    return None if version["state"] in _UNDECIDED else {"drop": drop, "version": version}


def _exit_code(value: Json) -> ExitCode:
    drop, version = value["drop"], value["version"]
    refused = drop is not None and drop["state"] == "refused"
    rejected = version is not None and version["state"] == "rejected"
    return ExitCode.FAILED if refused or rejected else ExitCode.OK


def _show(value: Json) -> None:
    from cli import show  # noqa: PLC0415

    show.pushed(value)


def _facts(dropped: Dropped) -> dict[str, Json]:
    return {
        "blob": dropped.blob,
        "etag": dropped.etag,
        "size_bytes": dropped.size_bytes,
        "sha256": dropped.digest,
        "created": dropped.created,
    }
