"""What the head of a request settles, found out once for all requests whose heads are the same bytes.

A client that keeps its connection sends the same head again and again. Of a usual one (a prediction as JSON or binary
data, no coding, no query, no version named, no cookie to issue) the path, the form of the body and where the subject
stands are the same each time; only the body is left to read. Whatever is not usual, in its head or in its body, is left
to the general way, which also writes every error: nothing here answers with one.

What is found belongs to a snapshot (aks_serving.serving.Servings.usual), and goes with it.
"""

from abc import ABC, abstractmethod

from aks_serving import tables
from aks_serving.asks import HttpAsk, PlainAsk, V2Ask
from aks_serving.exchange import HEADER_LENGTH, JSON, Exchange
from aks_serving.fast import FastReader, Read
from aks_serving.override import VERSION_HEADER
from aks_serving.serving import Serving, Servings
from aks_serving.subjects import body_subject, cookie_subject, header_subject
from shared.core.errors import SlipwayError
from shared.signing.override import HEADER as OVERRIDE_HEADER

_GENERAL = (b"content-encoding", VERSION_HEADER, OVERRIDE_HEADER.encode())
_LENGTH_DIGITS = 12
_MAX_HEADS = 1024


class Usual(ABC):
    """What heads of the same bytes settle. `begin` begins a request, or is false where its body is for the general way,
    and then nothing was done.
    """

    __slots__ = ()

    @abstractmethod
    def begin(self, exchange: Exchange, timeout_s: float) -> bool:
        """`timeout_s` is how long a request may wait that names no time. Raises InvalidInputError for its subject."""


class _General(Usual):
    """A head that is for the general way."""

    __slots__ = ()

    def begin(self, exchange: Exchange, timeout_s: float) -> bool:  # noqa: ARG002 - as Usual has it
        return False


class _Usual(Usual):
    __slots__ = ("_cookie_subject", "_header_subject", "_hears_body", "_reader", "_serving")

    def __init__(self, serving: Serving, reader: FastReader, headers: dict[bytes, bytes]) -> None:
        """Raises InvalidInputError where the head names a subject that cannot be one."""
        source = serving.plan.subject
        self._serving = serving
        self._reader = reader
        self._header_subject = header_subject(headers, source)
        self._cookie_subject = cookie_subject(headers, source)
        self._hears_body = source.body and self._header_subject is None

    def _start(self, exchange: Exchange, ask: HttpAsk, read: Read, timeout_s: float) -> None:
        user = read.user
        if self._hears_body and user is not None and user != "":
            subject: str | None = body_subject(user)
        else:
            subject = self._header_subject or self._cookie_subject
        ask.exchange, ask.extra = exchange, ()
        exchange.body = b""  # it was read, may be large, and the request may wait
        ask.deadline_s = ask.started_s + (timeout_s if read.timeout_s is None else read.timeout_s)
        ask.begin(version=None, subject=subject)

    @property
    def may_issue_cookie(self) -> bool:
        """Whether the head names no subject where the plan has callers named by a cookie."""
        return self._serving.plan.subject.cookie is not None and not (self._header_subject or self._cookie_subject)


class _UsualPlain(_Usual):
    __slots__ = ()

    def begin(self, exchange: Exchange, timeout_s: float) -> bool:
        read = self._reader.plain(exchange.body, self._serving.plan.endpoint)
        if read is None or read.version is not None:
            return False
        ask = PlainAsk(self._serving, exchange.received_s, read.packed, read.rows)
        self._start(exchange, ask, read, timeout_s)
        return True


class _UsualV2(_Usual):
    __slots__ = ("header_length",)

    header_length: int | None

    def begin(self, exchange: Exchange, timeout_s: float) -> bool:
        read = self._reader.v2(exchange.body, self.header_length)
        if read is None or (read.binary and self._serving.gives_bytes):
            return False
        ask = V2Ask(self._serving, exchange.received_s, read.packed, read.rows)
        ask.request_id, ask.binary = read.id, read.binary
        self._start(exchange, ask, read, timeout_s)
        return True


GENERAL = _General()


def usual(exchange: Exchange, servings: Servings) -> Usual:
    """What the head of a request settles, where the transport tells which requests share it."""
    head = exchange.head
    if head is None:
        return GENERAL
    known = servings.usual
    if len(known) >= _MAX_HEADS:
        known.clear()
    found = known[head] = _found(exchange, servings)
    return found


def _found(exchange: Exchange, servings: Servings) -> Usual:
    headers = exchange.headers
    is_plain = exchange.path == "/predict"
    serving = servings.only if is_plain else servings.infer_paths.get(exchange.path)
    if serving is None or serving.fast is None or exchange.method != "POST":
        return GENERAL
    if (is_plain and exchange.query) or not headers.keys().isdisjoint(_GENERAL):
        return GENERAL
    try:
        if is_plain:
            if tables.form_of(headers.get(b"content-type", JSON)) is not None:
                return GENERAL
            way: _Usual = _UsualPlain(serving, serving.fast, headers)
        else:
            v2 = way = _UsualV2(serving, serving.fast, headers)
            length = headers.get(HEADER_LENGTH)
            if length is not None and not (length.isdigit() and len(length) <= _LENGTH_DIGITS):
                return GENERAL
            v2.header_length = None if length is None else int(length)
    except SlipwayError:
        return GENERAL
    return GENERAL if way.may_issue_cookie else way
