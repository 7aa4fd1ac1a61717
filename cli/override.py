"""`slipway override`: a signed header with which a request names the version that answers. Needs no running system."""

import getpass
import re
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.command import JsonOption
from cli.folder import check_key_file
from cli.outcome import Answer, Json, tell
from shared.core.errors import InvalidInputError
from shared.core.ids import endpoint_name

_MAX_KEY_BYTES = 64 * 1024
_LIFETIME = re.compile(r"(?P<number>[1-9][0-9]{0,5})(?P<unit>[smhd])")
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(override)


def override(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model's name.")],
    *,
    version: Annotated[int, typer.Option("--version", min=1, help="The version that is to answer.")],
    lifetime: Annotated[str, typer.Option("--for", metavar="TIME", help="As in 90s, 30m, 1h or 7d, the longest.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The servers' key file; its first key signs.")],
    by: Annotated[str, typer.Option("--by", metavar="NAME", help="Who signs it; without it, the user.")] = "",
    json_output: JsonOption = False,
) -> int:
    """Print a header that has a version of a model answer the requests that bear it."""
    from shared.signing.override import HEADER, Override, read_override_keys, sign_override  # noqa: PLC0415

    signed = Override(
        endpoint=endpoint_name(model),
        version=version,
        expires_s=int(time.time()) + _lifetime_s(lifetime),
        by=by or getpass.getuser(),
    )
    header = sign_override(signed, read_override_keys(_text_of(key)))
    value: Json = {"header": HEADER, "value": header, "expires_s": signed.expires_s}
    return tell(Answer(value=value, show=lambda: print(f"{HEADER}: {header}")), as_json=json_output)


def _lifetime_s(text: str) -> int:
    from shared.signing.override import LONGEST_S  # noqa: PLC0415

    match = _LIFETIME.fullmatch(text)
    seconds = int(match["number"]) * _UNITS_S[match["unit"]] if match else 0
    if not 0 < seconds <= LONGEST_S:
        raise InvalidInputError(f"--for is {text[:40]!r}: use a time as in 90s, 30m, 1h or 7d, the longest")
    return seconds


def _text_of(key: Path) -> str:
    try:
        check_key_file(key)
        with key.open("rb") as file:
            return file.read(_MAX_KEY_BYTES).decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{key} is no key file: it holds more than hexadecimal digits and comments") from error
    except OSError as error:
        raise InvalidInputError(f"{key} cannot be read: {error.strerror or error}") from error
