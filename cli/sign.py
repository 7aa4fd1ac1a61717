"""`slipway sign` and `slipway keygen`: a drop's signature, in OpenSSF model signing's form. Needs no running system.

A private key is read, or written to a file that only its owner may read; it goes nowhere else.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.command import JsonOption
from cli.folder import check_key_file, plain_files
from cli.outcome import Answer, Json, tell
from shared.core.errors import InvalidInputError
from shared.signing.bundle import SIGNATURE_FILE

PASSWORD = "SLIPWAY_SIGNING_PASSWORD"  # noqa: S105 - the name of a setting
_MANIFESTS = ("slipway.yaml", "MLmodel")
_MAX_KEY_BYTES = 64 * 1024


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command()(sign)
    app.command()(keygen)


def sign(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A drop: a slipway.yaml or MLmodel, and the rest.")],
    *,
    key: Annotated[
        Path, typer.Option("--key", metavar="FILE", help=f"A private key in PEM; [env: {PASSWORD}] where it has one.")
    ],
    json_output: JsonOption = False,
) -> int:
    """Sign every file of a folder, hidden ones left out, and put the signature into it as model.sig."""
    from shared.signing.keys import TrustedKey  # noqa: PLC0415
    from shared.signing.sign import read_private_key, sign_files  # noqa: PLC0415 - heavy

    with _readable(key):
        check_key_file(key)
        with key.open("rb") as file:
            pem = file.read(_MAX_KEY_BYTES)
        private = read_private_key(pem, password=os.environ.get(PASSWORD, "").encode() or None)
        files = _digests(folder)
        signature = sign_files(files, private, name=folder.resolve().name)
        _replace(folder / SIGNATURE_FILE, signature)
    fingerprint = TrustedKey.of(private.public_key()).fingerprint
    value: Json = {"signature": str(folder / SIGNATURE_FILE), "files": files, "key": fingerprint}
    return tell(Answer(value=value, show=lambda: _show_signed(value)), as_json=json_output)


def keygen(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where the private key goes; it must not exist.")],
    *,
    json_output: JsonOption = False,
) -> int:
    """Make a key pair on the curve P-256: the private key in FILE, the public one in FILE.pub, both in PEM."""
    from shared.signing.keys import TrustedKey  # noqa: PLC0415
    from shared.signing.sign import new_key  # noqa: PLC0415 - heavy

    private, public = new_key()
    public_file = file.with_name(f"{file.name}.pub")
    with _readable(file):
        _create(file, private, mode=0o600)
        try:
            _create(public_file, public, mode=0o644)
        except OSError:
            file.unlink()
            raise
    fingerprint = TrustedKey.from_pem(public.decode()).fingerprint
    value: Json = {"private_key": str(file), "public_key": str(public_file), "fingerprint": fingerprint}
    return tell(Answer(value=value, show=lambda: _show_made(value)), as_json=json_output)


def _digests(folder: Path) -> dict[str, str]:
    """The files that a push of the folder takes, but the signature, with their digests."""
    if not any((folder / name).is_file() for name in _MANIFESTS):
        raise InvalidInputError(f"{folder} holds no {' and no '.join(_MANIFESTS)}: name the folder of a drop")
    found = {}
    for name, path in plain_files(folder).items():
        if name != SIGNATURE_FILE:
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all. The hidden name keeps a push meanwhile from taking the half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)


def _create(path: Path, data: bytes, *, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise InvalidInputError(f"{error.filename} exists already: name another file, or move it away") from error
    except OSError as error:
        reason = error.strerror or error
        raise InvalidInputError(f"{error.filename or path} cannot be read or written: {reason}") from error


def _show_signed(value: Json) -> None:
    print(f"{len(value['files'])} files signed with the key {value['key']}: {value['signature']}")


def _show_made(value: Json) -> None:
    print(f"private key: {value['private_key']} (keep it)")
    print(f"public key:  {value['public_key']} (name it in the model's policy, under signing.trusted_keys)")
    print(f"fingerprint: {value['fingerprint']}")
