"""What is held to before a body is read, where another server's transport carries the requests."""

from aks_serving.exchange import Exchange
from aks_serving.http.access import Tokens, check_access
from aks_serving.http.body import too_large
from aks_serving.http.head import RefusedError

_REPLACED = "\ufffd"
_SPACE = " "
_LENGTH_DIGITS = 18


def admit(exchange: Exchange, *, max_body_bytes: int, tokens: Tokens | None) -> None:
    """Refuse what its head alone lets be refused. Raises RefusedError."""
    path, headers = exchange.path, exchange.headers
    if _REPLACED in path or any(character < _SPACE or character == "\x7f" for character in path):
        raise RefusedError(400, "the path is not UTF-8, or holds a control character")
    check_access(tokens, path, headers.get(b"authorization"))
    length = headers.get(b"content-length", b"")
    if length.isdigit() and (len(length) > _LENGTH_DIGITS or int(length) > max_body_bytes):
        raise too_large(max_body_bytes)
