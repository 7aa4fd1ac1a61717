"""Bearer tokens: who may call, where the server asks. Health and readiness are open to all.

Tokens are compared by their digests, all of them each time, so that no answer's time tells how much of one was right.
"""

import hmac
import logging
from hashlib import sha256
from pathlib import Path

from aks_serving.file_changes import FileChanges
from aks_serving.http.head import RefusedError
from shared.core.errors import InvalidInputError

log = logging.getLogger(__name__)

_OPEN = frozenset({"/health", "/ready"})
_OPEN_UNDER = "/v2/health/"
_MIN_TOKEN_BYTES = 16
_MAX_FILE_BYTES = 64 * 1024


class Tokens:
    """The tokens of a file, one a line; empty lines and lines that begin with `#` are skipped. Several at once let
    callers change from one to the next.
    """

    def __init__(self, path: Path) -> None:
        """Raises InvalidInputError where the file cannot be read, or holds no token."""
        self._path = path
        self._changes = FileChanges(path)
        self._digests = _read(path)

    def allow(self, authorization: bytes | None) -> bool:
        """Whether a request with this Authorization header may go on."""
        if authorization is None:
            return False
        scheme, _, token = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        digest = sha256(token.strip(b" ")).digest()
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(digest, known)
        return found

    def reload(self) -> bool:
        """Read the file again where it changed; whether it was taken. A bad file is logged, and changes nothing."""
        if not self._changes.look():
            return False
        try:
            self._digests = _read(self._path)
        except InvalidInputError as error:
            log.warning("the tokens stay as they were: %s", error)
            return False
        return True


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return path in _OPEN or path.startswith(_OPEN_UNDER)


def check_access(tokens: Tokens | None, path: str, authorization: bytes | None) -> None:
    """Raises RefusedError unless the tokens, where there are any, let a request go on."""
    if tokens is not None and not is_open(path) and not tokens.allow(authorization):
        raise RefusedError(401, "a bearer token known here is wanted: send the header Authorization: Bearer <token>")


def _read(path: Path) -> tuple[bytes, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"the token file {path} cannot be read: {error.strerror}") from error
    if len(text) > _MAX_FILE_BYTES:
        raise InvalidInputError(f"the token file {path} is larger than {_MAX_FILE_BYTES} bytes")
    tokens = [line.strip() for line in text.splitlines()]
    tokens = [token for token in tokens if token and not token.startswith(b"#")]
    if not tokens:
        raise InvalidInputError(f"the token file {path} holds no token: write one a line")
    if short := [number for number, token in enumerate(tokens, 1) if len(token) < _MIN_TOKEN_BYTES]:
        raise InvalidInputError(
            f"token {short[0]} of {path} is shorter than {_MIN_TOKEN_BYTES} bytes: make a longer one"
        )
    return tuple(sha256(token).digest() for token in tokens)
