"""Whom a request is for: the key that decides, with the plan's salt, which version answers.

The plan says where a request may name its subject: a header, `user_id` in the body, a cookie; the first that is there
and not empty counts. Where a cookie is named and a request has none, `issue_cookie` gives its caller a random subject
to come back with, so that whoever is served by one version stays with it.
"""

import secrets
from hashlib import blake2b
from typing import NamedTuple

from shared.core.errors import InvalidInputError
from shared.routing.plan import FULL_WEIGHT_BP, SubjectSource

MAX_SUBJECT_BYTES = 1024
"""The longest subject, in UTF-8."""
_COOKIE_AGE_S = 365 * 86_400
_WHOLE = range(-(2**63), 2**64)
_HASH_BYTES = 8


class Share:
    """The subjects that fall to a candidate: those whose `bucket(salt, subject)` (shared.routing.assignment) is below
    its weight. Told in less than half of that function's time, since the salt is hashed once.
    """

    __slots__ = ("_below", "_salted")

    def __init__(self, salt: str, weight_bp: int) -> None:
        self._salted = blake2b(f"{salt}\0".encode(), digest_size=_HASH_BYTES)
        # hashed * 10,000 >> 64 < weight_bp, and bytes of one length are in the order of their numbers. Where the bound
        # is beyond the last hash, bytes that are one longer come after them all.
        least = -(-(weight_bp << 8 * _HASH_BYTES) // FULL_WEIGHT_BP)
        beyond = least >= 1 << 8 * _HASH_BYTES
        self._below = b"\xff" * (_HASH_BYTES + 1) if beyond else least.to_bytes(_HASH_BYTES)

    def holds(self, subject: str) -> bool:
        """Whether the candidate is a subject's version."""
        hashed = self._salted.copy()
        hashed.update(subject.encode())
        return hashed.digest() < self._below


class IssuedCookie(NamedTuple):
    """A new subject, and the response header that has its caller name it from then on."""

    subject: str
    header: tuple[bytes, bytes]


def subject_of(headers: dict[bytes, bytes], body_user: object, source: SubjectSource) -> str | None:
    """The subject that a request names, or None. `headers` have lower-case names; `body_user` is the body's `user_id`.

    A whole number in the body is the subject of its decimal digits. Raises InvalidInputError for a subject that is not
    UTF-8 or longer than MAX_SUBJECT_BYTES, and for a `user_id` that is neither text nor a whole number.
    """
    subject = header_subject(headers, source)
    if subject is not None:
        return subject
    if body_user is not None and body_user != "" and source.body:
        return body_subject(body_user)
    return cookie_subject(headers, source)


def header_subject(headers: dict[bytes, bytes], source: SubjectSource) -> str | None:
    """As `subject_of`, of the header alone."""
    if source.header is None:
        return None
    given = headers.get(source.header.encode())
    return _text(given, "the header", source.header) if given else None


def cookie_subject(headers: dict[bytes, bytes], source: SubjectSource) -> str | None:
    """As `subject_of`, of the cookie alone."""
    cookies = headers.get(b"cookie")
    if source.cookie is None or not cookies:
        return None
    value = _cookie(cookies, source.cookie.encode())
    return _text(value, "the cookie", source.cookie) if value else None


def issue_cookie(name: str, *, secure: bool) -> IssuedCookie:
    """A random subject in a cookie of this name, out of scripts' reach, for a year.

    `secure` keeps browsers from sending it without TLS; names that begin with `__Host-` or `__Secure-` want it anyway.
    """
    subject = secrets.token_urlsafe(16)
    value = f"{name}={subject}; Path=/; Max-Age={_COOKIE_AGE_S}; HttpOnly; SameSite=Lax"
    if secure or name.startswith(("__Host-", "__Secure-")):
        value += "; Secure"
    return IssuedCookie(subject, (b"set-cookie", value.encode()))


def _text(value: bytes, kind: str, name: str) -> str:
    if len(value) > MAX_SUBJECT_BYTES:
        raise _too_long(f"{kind} {name}", len(value))
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{kind} {name} is not UTF-8: send the subject as UTF-8 text") from error


def body_subject(value: object) -> str:
    """The subject that a body's `user_id` names. Raises InvalidInputError."""
    if isinstance(value, str):
        # The length is looked at first: text that is far too long need not be encoded to be refused.
        length = len(value)
        if length <= MAX_SUBJECT_BYTES and not value.isascii():
            try:
                length = len(value.encode())
            except UnicodeEncodeError as error:
                raise InvalidInputError("user_id holds half of a surrogate pair: send text that UTF-8 has") from error
        if length > MAX_SUBJECT_BYTES:
            raise _too_long("user_id", length)
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        if value not in _WHOLE:
            raise InvalidInputError("user_id is a whole number of more than 64 bits: send it as text")
        return str(value)
    raise InvalidInputError(f"user_id is a {type(value).__name__}: use text or a whole number")


def _cookie(cookies: bytes, name: bytes) -> bytes:
    """A cookie's value from the header Cookie (RFC 6265, section 4.2.1), the first of its name; empty without one."""
    if name not in cookies:
        return b""
    for pair in cookies.split(b";"):
        found, _, value = pair.partition(b"=")
        if found.strip(b" \t") == name:
            value = value.strip(b" \t")
            is_quoted = len(value) >= 2 and value[:1] == value[-1:] == b'"'
            return value[1:-1] if is_quoted else value
    return b""


def _too_long(what: str, length: int) -> InvalidInputError:
    return InvalidInputError(f"{what} has {length} bytes: a subject has at most {MAX_SUBJECT_BYTES}")
