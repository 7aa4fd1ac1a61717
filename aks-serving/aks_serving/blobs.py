"""Blob storage's REST interface, the four calls that a server makes of it, over kept-alive connections.

Azure's own client would do the same, at 25 MB of memory in a process whose all takes little more than three times that,
and at milliseconds of the interpreter for each poll, which requests wait for. It stays where neither matters: in the
control plane, and for managed identities.

One call is one attempt, but that one over a kept connection which the service has closed meanwhile is made anew: every
call here may be made twice. Safe from several threads. https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api
"""

import base64
import contextlib
import hashlib
import hmac
import http.client
import socket
import ssl
import urllib.request
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from urllib.parse import SplitResult, quote, unquote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from shared.core.errors import InvalidInputError, UnavailableError

NOT_MODIFIED, NOT_FOUND = 304, 404

_VERSION = "2021-12-02"
_CONNECT_S, _READ_S = 3.0, 20.0
_MAX_IDLE = 4
_PAGE = 5000
_MAX_PAGE_BYTES = 64 * 1024 * 1024
_CHUNK_BYTES = 4 * 1024 * 1024
_SERVICE = "blob storage"
_SIGNED = ("content-encoding", "content-language", "content-length", "content-md5", "content-type", "date")
_SIGNED_CONDITIONS = ("if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range")

type Sign = Callable[[str, str, Mapping[str, str], dict[str, str]], None]
"""Adds what authorises a request to its headers: from method, path, query and headers. Raises UnavailableError."""


class RefusedError(Exception):
    """The service answered with an error: its HTTP status and its own code."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(f"HTTP {status} {code}".strip())
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Where an account is, and how requests to it are authorised: by a signature, or by a query that is added."""

    url: SplitResult
    sign: Sign | None = None
    sas: str = ""

    @classmethod
    def from_connection_string(cls, text: str) -> "Account":
        """Raises InvalidInputError."""
        parts = dict(part.partition("=")[::2] for part in text.strip().rstrip(";").split(";"))
        found = {name.strip().lower(): value.strip() for name, value in parts.items()}
        name, endpoint = found.get("accountname", ""), found.get("blobendpoint", "")
        if not endpoint and name:
            suffix = found.get("endpointsuffix") or "core.windows.net"
            endpoint = f"{found.get('defaultendpointsprotocol') or 'https'}://{name}.blob.{suffix}"
        url = checked_url(endpoint)
        if sas := found.get("sharedaccesssignature", "").lstrip("?"):
            return cls(url=url, sas=sas)
        try:
            key = base64.b64decode(found.get("accountkey", ""), validate=True)
        except ValueError as error:
            raise InvalidInputError("its AccountKey is not base64") from error
        if not (name and key):
            raise InvalidInputError("it has no AccountName with an AccountKey, and no SharedAccessSignature")
        return cls(url=url, sign=shared_key(name, key))


class Blobs:
    """The blobs of one account. Every method raises UnavailableError where the service does not answer, and
    RefusedError where it answers with an error.
    """

    def __init__(self, account: Account, *, page: int = _PAGE) -> None:
        """`page` is how many names of a list come in one answer."""
        self.account = account
        self._page = page
        self._idle: list[http.client.HTTPConnection] = []
        weakref.finalize(self, _close, self._idle)

    def etags(self, container: str) -> dict[str, str]:
        """The names of all blobs, and their ETags."""
        found: dict[str, str] = {}
        marker = ""
        while True:
            query = {"restype": "container", "comp": "list", "maxresults": str(self._page)}
            with self._answer("GET", f"/{container}", query | ({"marker": marker} if marker else {})) as answer:
                page = b"".join(_chunks(answer, _MAX_PAGE_BYTES))
            try:
                root = ET.fromstring(page)  # noqa: S314 - the service's own
            except ET.ParseError as error:
                raise UnavailableError(_SERVICE, f"its list of blobs cannot be read: {error}") from error
            for blob in root.iterfind("./Blobs/Blob"):
                found[blob.findtext("Name") or ""] = (blob.findtext("./Properties/Etag") or "").strip('"')
            marker = root.findtext("NextMarker") or ""
            if not marker:
                return found

    def read(self, container: str, name: str, *, unless_etag: str | None, max_bytes: int) -> tuple[bytes, str]:
        """A blob, cut after `max_bytes`, and its ETag. Where that is `unless_etag`, a RefusedError of 304."""
        headers = {} if unless_etag is None else {"if-none-match": f'"{unless_etag}"'}
        with self._answer("GET", _path(container, name), headers=headers) as answer:
            return b"".join(_chunks(answer, max_bytes)), (answer.getheader("etag") or "").strip('"')

    def chunks(self, container: str, name: str) -> Iterator[bytes]:
        """A blob in parts of some MiB."""
        with self._answer("GET", _path(container, name)) as answer:
            yield from _chunks(answer, None)

    def create(self, container: str, name: str, data: bytes) -> bool:
        """Write a blob where there is none of that name; whether there was none."""
        headers = {"x-ms-blob-type": "BlockBlob", "content-type": "application/octet-stream", "if-none-match": "*"}
        try:
            with self._answer("PUT", _path(container, name), headers=headers, body=data):
                return True
        except RefusedError as error:
            if error.code in {"BlobAlreadyExists", "ConditionNotMet"}:
                return False
            raise

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> Iterator[http.client.HTTPResponse]:
        connection = None
        try:
            connection, answer = self._asked(method, path, query or {}, dict(headers or {}), body)
            if answer.status >= 300:
                code = answer.getheader("x-ms-error-code") or answer.reason
                answer.read(_CHUNK_BYTES)
                raise RefusedError(answer.status, code)
            yield answer
            answer.read(_CHUNK_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(_SERVICE, _said(error)) from error
        finally:
            if connection is not None:
                self._put_back(connection, answer)

    def _asked(
        self, method: str, path: str, query: Mapping[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        account = self.account
        path = account.url.path.rstrip("/") + path
        headers |= {"x-ms-date": formatdate(usegmt=True), "x-ms-version": _VERSION, "content-length": str(len(body))}
        if account.sign is not None:
            account.sign(method, path, query, headers)
        target = "?".join(
            filter(None, (path, "&".join(filter(None, (urlencode(query, quote_via=quote), account.sas)))))
        )
        while True:
            connection, kept = self._connection()
            try:
                connection.request(method, target, body=body or None, headers=headers)
                return connection, connection.getresponse()
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if not kept:
                    raise
            except BaseException:
                connection.close()
                raise

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was kept from an earlier request."""
        with contextlib.suppress(IndexError):
            return self._idle.pop(), True
        connection = _connected(self.account.url)
        if connection.sock is not None:
            connection.sock.settimeout(_READ_S)
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, False

    def _put_back(self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse) -> None:
        if answer.isclosed() and not answer.will_close and len(self._idle) < _MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()


def checked_url(text: str) -> SplitResult:
    """The URL of an account's blobs. Raises InvalidInputError."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise InvalidInputError(f"{text[:200]!r} is no URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.hostname or url.query or port == 0:
        raise InvalidInputError(f"{text[:200]!r} is no URL of blobs: https://<account>.blob.core.windows.net is one")
    return url


def shared_key(name: str, key: bytes) -> Sign:
    """Signs with an account's key."""

    def sign(method: str, path: str, query: Mapping[str, str], headers: dict[str, str]) -> None:
        values = [headers.get(header, "") for header in (*_SIGNED, *_SIGNED_CONDITIONS)]
        values[2] = "" if values[2] == "0" else values[2]
        own = [f"{header}:{value}" for header, value in sorted(headers.items()) if header.startswith("x-ms-")]
        asked = [f"{parameter}:{value}" for parameter, value in sorted(query.items())]
        text = "\n".join((method, *values, *own, f"/{name}{path}", *asked))
        signature = base64.b64encode(hmac.digest(key, text.encode(), hashlib.sha256)).decode()
        headers["authorization"] = f"SharedKey {name}:{signature}"

    return sign


def bearer(token: Callable[[], str]) -> Sign:
    """Signs with a token, which is asked for each time."""

    def sign(_method: str, _path: str, _query: Mapping[str, str], headers: dict[str, str]) -> None:
        headers["authorization"] = f"Bearer {token()}"

    return sign


def _path(container: str, name: str) -> str:
    return f"/{container}/{quote(name)}"


def _chunks(answer: http.client.HTTPResponse, max_bytes: int | None) -> Iterator[bytes]:
    """The body, to its end or to `max_bytes`. Raises HTTPException where it ends too soon: http.client would not."""
    expected = answer.length
    taken = 0
    while chunk := answer.read(_CHUNK_BYTES if max_bytes is None else min(_CHUNK_BYTES, max_bytes - taken)):
        taken += len(chunk)
        yield chunk
    if expected is not None and taken < expected and taken != max_bytes:
        raise http.client.IncompleteRead(b"", expected - taken)


def _connected(url: SplitResult) -> http.client.HTTPConnection:
    host = url.hostname or ""
    if url.scheme == "http":
        plain = http.client.HTTPConnection(host, url.port, timeout=_CONNECT_S)
        plain.connect()
        return plain
    context = ssl.create_default_context()
    proxy = urlsplit(urllib.request.getproxies().get("https", ""))
    if proxy.hostname and not urllib.request.proxy_bypass(host):
        connection = http.client.HTTPSConnection(proxy.hostname, proxy.port, timeout=_CONNECT_S, context=context)
        user = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}" if proxy.username else ""
        basic = {"Proxy-Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
        connection.set_tunnel(host, url.port or 443, basic)
    else:
        connection = http.client.HTTPSConnection(host, url.port, timeout=_CONNECT_S, context=context)
    connection.connect()
    return connection


def _close(connections: list[http.client.HTTPConnection]) -> None:
    while connections:
        connections.pop().close()


def _said(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
