"""Which version a request's caller names, and whether it may: by body, path or header, or by a signed override.

The Gateway, which reads no bodies, goes by path and header where versions have pods of their own.

A version that the caller names is answered as pinned and counted apart from what the plan assigns. Where pinning is
open anybody may name one; where it is signed, only the bearer of an override header may. Requests that bear one are
counted by who signed it, whatever becomes of them: the control plane puts them on record.
"""

import logging
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

from aks_serving.file_changes import FileChanges
from shared.core.errors import InvalidInputError
from shared.core.ids import version_number
from shared.signing.override import HEADER, OverrideRefusedError, read_override, read_override_keys

log = logging.getLogger(__name__)

VERSION_HEADER = b"x-slipway-version"
"""The header, in gRPC the metadata, that names a version."""
_HEADER = HEADER.encode()


class Pin(NamedTuple):
    """The version that answers by the caller's wish."""

    version: int
    by: str = ""
    """Who signed the override that names it; empty without one."""


class Pinning(StrEnum):
    """Who may name the version that answers. The setting SLIPWAY_PINNING."""

    OPEN = "open"
    """Anybody."""
    SIGNED = "signed"
    """Whoever has a signed override."""


class OverrideKeys(Sequence[bytes]):
    """The keys of a file that sign overrides, any of them; none without a file. The setting SLIPWAY_OVERRIDE_KEYS."""

    def __init__(self, path: Path | None = None) -> None:
        """Raises InvalidInputError where the file cannot be read, or holds no key."""
        self._path = path
        self._changes = FileChanges() if path is None else FileChanges(path)
        self._keys = () if path is None else _keys_of(path)

    def __getitem__(self, index: Any) -> Any:  # noqa: ANN401 - as the tuple does
        return self._keys[index]

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Read the file again where it changed. One that cannot be used is logged, and changes nothing."""
        if self._path is None or not self._changes.look():
            return
        try:
            self._keys = _keys_of(self._path)
        except InvalidInputError as error:
            log.warning("the keys of overrides stay as they were: %s", error)
        else:
            log.info("the keys of overrides were read again from %s", self._path)


def _keys_of(path: Path) -> tuple[bytes, ...]:
    try:
        return read_override_keys(path.read_text("utf-8"))
    except (OSError, ValueError, InvalidInputError) as error:
        raise InvalidInputError(f"SLIPWAY_OVERRIDE_KEYS is {str(path)[:200]!r}, and cannot be used: {error}") from error


def pinned_version(
    headers: dict[bytes, bytes],
    asked: int | None,
    *,
    endpoint: str,
    keys: Sequence[bytes],
    pinning: Pinning,
    now_s: float,
) -> Pin | None:
    """The version that answers by the caller's wish, `asked` being what body or path name; None: the plan decides.

    `now_s` is the Unix time. Raises OverrideRefusedError for an override that does not hold, or a wish that needs one;
    InvalidInputError where override, header and `asked` name two versions, or the header none.
    """
    asked = _also_by_header(headers, asked)
    raw = headers.get(_HEADER)
    if raw is None:
        if asked is not None and pinning is Pinning.SIGNED:
            raise OverrideRefusedError(
                f"version {asked} is named, and on this server only a signed override may name one: send it in the "
                f"header {HEADER}, or name no version"
            )
        return None if asked is None else Pin(asked)
    if not keys:
        raise OverrideRefusedError(
            f"this server knows no key for the header {HEADER}: name a key file in SLIPWAY_OVERRIDE_KEYS"
        )
    override = read_override(raw.decode("latin-1"), keys, now_s=now_s)
    if override.endpoint != endpoint:
        raise OverrideRefusedError(f"the override is for endpoint {override.endpoint}, and the request for {endpoint}")
    if asked is not None and asked != override.version:
        raise InvalidInputError(
            f"the request names version {asked}, and its override version {override.version}: name one"
        )
    return Pin(override.version, override.by)


def _also_by_header(headers: dict[bytes, bytes], asked: int | None) -> int | None:
    """What body, path or header name."""
    raw = headers.get(VERSION_HEADER)
    if raw is None:
        return asked
    named = version_number(raw.decode("latin-1"))
    if asked is not None and asked != named:
        raise InvalidInputError(
            f"the request names version {asked}, and its header {VERSION_HEADER.decode()} version {named}: name one"
        )
    return named
