"""TLS for the transport: a server's context from files, read again when they change, as Kubernetes rotates secrets."""

import logging
import ssl
from pathlib import Path

from aks_serving.file_changes import FileChanges
from shared.core.errors import InvalidInputError

log = logging.getLogger(__name__)


class ReloadingContext:
    """A context of TLS 1.2 and later for HTTP/1.1. `context` stays the same object: what opens after a reload gets the
    new certificate, what is open keeps the one it has.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """`certificate` is a chain in PEM, the server's own first; `key` its private key. Raises InvalidInputError."""
        self._certificate = certificate
        self._key = key
        self._changes = FileChanges(certificate, key)
        self.context = _context(certificate, key)

    def reload(self) -> bool:
        """Read the files again where they changed; whether they were taken. Files that do not fit each other, as in the
        midst of a rotation, are logged and change nothing.
        """
        if not self._changes.look():
            return False
        try:
            _context(self._certificate, self._key)
        except InvalidInputError as error:
            log.warning("the certificate stays as it was: %s", error)
            return False
        self.context.load_cert_chain(self._certificate, self._key)
        log.info("the certificate was read again from %s", self._certificate)
        return True


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"the certificate {certificate} and the key {key} cannot be used: {error}: give a chain and its key in PEM"
        ) from error
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal."""
    return ""
