"""The keys of the host's HTTP functions, in a JSON file that its owner alone may read:

    {"masterKey": "...", "functionKeys": {"default": "..."}}

The first host to start writes it, with random keys; later ones read it, so that keys outlive restarts.
"""

import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from local.host.errors import HostStartError

_KEY_BYTES = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The master key, which opens everything, and the host keys, any of which opens the functions."""

    master: str
    functions: Mapping[str, str]

    def opens_admin(self, key: str | None) -> bool:
        """Whether a key opens what wants the level `admin`."""
        return _same(key, self.master)

    def opens_function(self, key: str | None) -> bool:
        """Whether a key opens what wants the level `function`."""
        # Each is compared, so that the time taken does not tell which came close.
        found = [_same(key, known) for known in (self.master, *self.functions.values())]
        return any(found)


def load_keys(path: Path) -> Keys:
    """Read the keys, or create them where there is no file. Raises HostStartError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            _create(path)
        return _read(path)
    except OSError as error:
        raise HostStartError(f"the keys file {path} cannot be used: {error.strerror}") from error


def _read(path: Path) -> Keys:
    try:
        document = json.loads(path.read_bytes())
        keys = Keys(master=document["masterKey"], functions=document["functionKeys"])
        texts = [keys.master, keys.functions["default"], *keys.functions.values()]
        if not all(isinstance(text, str) and text for text in texts):
            raise ValueError("an empty key")  # noqa: TRY301 - one message for all that is wrong
    except (ValueError, KeyError, TypeError, AttributeError):
        raise HostStartError(
            f'{path} does not hold keys ({{"masterKey": "...", "functionKeys": {{"default": "..."}}}}): '
            "mend it, or remove it to have new keys made"
        ) from None
    return keys


def _create(path: Path) -> None:
    document = {
        "masterKey": secrets.token_urlsafe(_KEY_BYTES),
        "functionKeys": {"default": secrets.token_urlsafe(_KEY_BYTES)},
    }
    # Written whole beside it, then linked: of two hosts that start at once, one file wins, and nobody reads half of it.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(document, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        path.hardlink_to(temporary)
    except FileExistsError:
        return
    finally:
        temporary.unlink()


def _same(given: str | None, known: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode(), known.encode())
