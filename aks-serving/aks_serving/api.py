"""The server's HTTP API, apart from any transport: an exchange in, its answer out, now or later.

Predictions of the usual form take the short way: read at once (aks_serving.fast), assigned, run with whatever else this
turn of the event loop brings, answered from the engine. Everything else is read in general. Nothing that a client sends
raises out of `Api.handle`; what goes wrong unexpectedly is logged, and answered with 500 and no detail.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from aks_serving import exposition, openapi, plain, prometheus, stats, tables, v2, v2_extensions
from aks_serving.asks import GeneralV2Ask, HttpAsk, PlainAsk, V2Ask
from aks_serving.encodings import decoded
from aks_serving.errors import WRONG, BodyTooLargeError
from aks_serving.exchange import HEADER_LENGTH, OK, Exchange, Head, Response
from aks_serving.failures import AGAIN, check_method, failure
from aks_serving.fast import model_of
from aks_serving.feedback import FeedbackIntake
from aks_serving.feedback_items import MAX_BODY_BYTES, FeedbackTooLargeError
from aks_serving.override import VERSION_HEADER, Pinning, pinned_version
from aks_serving.serving import Serving, Servings
from aks_serving.subjects import issue_cookie, subject_of
from aks_serving.usual import Usual, usual
from shared.core.clock import Clock, SystemClock
from shared.core.errors import InvalidInputError, NotFoundError, SlipwayError
from shared.core.ids import version_number
from shared.signing.override import HEADER as OVERRIDE_HEADER

log = logging.getLogger(__name__)

_OVERRIDE = OVERRIDE_HEADER.encode()
_JSON = b"application/json"
_METRICS = Head(200, content_type=exposition.CONTENT_TYPE)
_OPENMETRICS = Head(200, content_type=exposition.OPENMETRICS)
_NOT_READY = Head(503, AGAIN)
_WRONG = SlipwayError(WRONG)
_encode = msgspec.json.Encoder().encode


class Server(Protocol):
    """What the API needs of the server behind it."""

    @property
    def servings(self) -> Servings:
        """What answers each endpoint now."""
        ...

    def not_ready(self) -> str:
        """Why the server is not ready; empty where it is."""
        ...

    def totals(self) -> dict[str, Any]:
        """Counts since the start, by endpoint and version."""
        ...

    def tripped(self) -> Mapping[str, Mapping[int, str]]:
        """By endpoint, the versions that are out of traffic, and why."""
        ...

    def facts(self) -> prometheus.Facts:
        """What a scrape tells of."""
        ...

    async def reload(self) -> None:
        """Poll the plans and try failed loads again. Raises UnavailableError."""
        ...


class Api:
    """Answers exchanges. Used from the event loop alone."""

    def __init__(
        self,
        server: Server,
        *,
        timeout_s: float = math.inf,
        override_keys: Sequence[bytes] = (),
        pinning: Pinning = Pinning.OPEN,
        max_body_bytes: int = 16 * 1024 * 1024,
        secure_cookies: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """`timeout_s` is how long a request may wait that names no time of its own, and `clock` what feedback goes by.

        With `secure_cookies` browsers send the cookies that are issued over TLS alone.
        """
        self._secure_cookies = secure_cookies
        self._server = server
        self._timeout_s = timeout_s
        self._override_keys = override_keys
        self._pinning = pinning
        self._max_body_bytes = max_body_bytes
        self._feedback_intake = FeedbackIntake(lambda: server.servings, clock or SystemClock())
        self._tasks: set[asyncio.Task[None]] = set()
        self._fixed: dict[str, tuple[str, Callable[[Exchange], Response]]] = {
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/ab-test/stats": ("GET", self._stats),
            "/metrics": ("GET", self._metrics),
            "/openapi.json": ("GET", self._openapi),
            "/v2": ("GET", self._v2_server),
            "/v2/health/live": ("GET", self._v2_live),
            "/v2/health/ready": ("GET", self._ready),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer an exchange, now or later. Never raises."""
        try:
            servings = self._server.servings
            found: Usual = servings.usual.get(exchange.head) or usual(exchange, servings)
            if found.begin(exchange, self._timeout_s):
                return
            path = exchange.path
            if path == "/predict":
                self._predict(exchange)
            elif path in servings.infer_paths:
                check_method(exchange.method, "POST")
                self._v2_infer(exchange, servings.infer_paths[path], None)
            elif path == "/feedback":
                check_method(exchange.method, "POST")
                self._later(exchange, self._feedback(self._feedback_body(exchange)))
            elif path == "/models/reload":
                check_method(exchange.method, "POST")
                self._later(exchange, self._reload())
            else:
                self._other(exchange)
        except SlipwayError as error:
            exchange.reply(failure(error))
        except Exception:
            log.exception("%s %r went wrong", exchange.method, exchange.path[:200])
            exchange.reply(failure(_WRONG))

    def _predict(self, exchange: Exchange) -> None:
        check_method(exchange.method, "POST")
        body = self._body(exchange)
        content_type = exchange.headers.get(b"content-type", _JSON)
        if content_type != _JSON:
            form = tables.form_of(content_type)
            if form is not None:
                self._begin_plain(exchange, tables.read_request(form, body, exchange.query), held_bytes=len(body))
                return
        servings = self._server.servings
        serving = servings.only or servings.get(model_of(body))
        if serving is not None and serving.fast is not None and not exchange.query:
            read = serving.fast.plain(body, serving.plan.endpoint)
            if read is not None:
                ask = PlainAsk(serving, exchange.received_s, read.packed, read.rows)
                self._begin(exchange, ask, version=read.version, user=read.user, timeout_s=read.timeout_s)
                return
        self._begin_plain(exchange, plain.read_request(body, exchange.query), held_bytes=len(body))

    def _begin_plain(self, exchange: Exchange, asked: plain.PredictRequest | tables.Asked, *, held_bytes: int) -> None:
        serving = self._server.servings.named(asked.model)
        ask = PlainAsk(serving, exchange.received_s, read=asked.feeds, held_bytes=held_bytes)
        timeout_s = None if asked.timeout_ms is None else asked.timeout_ms / 1e3
        self._begin(exchange, ask, version=asked.model_version, user=asked.user_id, timeout_s=timeout_s)

    def _v2_infer(self, exchange: Exchange, serving: Serving, version: int | None) -> None:
        body = self._body(exchange)
        header_length = _header_length(exchange, body)
        if serving.fast is not None:
            read = serving.fast.v2(body, header_length)
            if read is not None and not (read.binary and serving.gives_bytes):
                ask = V2Ask(serving, exchange.received_s, read.packed, read.rows)
                ask.request_id, ask.binary = read.id, read.binary
                self._begin(exchange, ask, version=version, user=read.user, timeout_s=read.timeout_s)
                return
        asked = v2.read_request(body, header_length)
        priority = asked.priority()
        general = GeneralV2Ask(serving, exchange.received_s, read=asked.feeds, held_bytes=len(body), priority=priority)
        general.request = asked
        self._begin(exchange, general, version=version, user=asked.user(), timeout_s=asked.timeout_s())

    def _begin(
        self, exchange: Exchange, ask: HttpAsk, *, version: int | str | None, user: object, timeout_s: float | None
    ) -> None:
        serving = ask.serving
        ask.exchange, ask.extra = exchange, ()
        source = serving.plan.subject
        subject = subject_of(exchange.headers, user, source)
        if version is not None or VERSION_HEADER in exchange.headers or _OVERRIDE in exchange.headers:
            pin = pinned_version(
                exchange.headers,
                None if version is None else version_number(str(version)),
                endpoint=serving.plan.endpoint,
                keys=self._override_keys,
                pinning=self._pinning,
                now_s=time.time(),
            )
            version = None if pin is None else pin.version
            if pin is not None and pin.by:
                serving.overridden(pin.version, pin.by)
        elif subject is None and source.cookie is not None:
            subject, cookie = issue_cookie(source.cookie, secure=self._secure_cookies)
            ask.extra = (cookie,)
        exchange.body = b""  # what is needed of it was read; it may be large, and the request may wait
        ask.deadline_s = ask.started_s + (self._timeout_s if timeout_s is None else timeout_s)
        ask.begin(version=version, subject=subject)

    def _other(self, exchange: Exchange) -> None:
        fixed = self._fixed.get(exchange.path)
        if fixed is not None:
            method, answer = fixed
            check_method(exchange.method, method)
            exchange.reply(answer(exchange))
            return
        match exchange.path.rstrip("/").split("/")[1:]:
            case ["v2"] | ["v2", "health", "live" | "ready"]:
                exchange.path = exchange.path.rstrip("/")
                self._other(exchange)
            case ["v2", *parts] if (found := self._v2_extension(exchange, parts)) is not None:
                exchange.reply(found)
            case ["v2", "models", model, *rest]:
                version = None
                if len(rest) >= 2 and rest[0] == "versions":
                    version = version_number(rest[1])
                    rest = rest[2:]
                serving = self._server.servings.named(model)
                if rest == ["infer"]:
                    check_method(exchange.method, "POST")
                    self._v2_infer(exchange, serving, version)
                else:
                    exchange.reply(self._v2_model(exchange, serving, version, rest))
            case _:
                raise NotFoundError(f"the path {exchange.path[:200]!r}")

    def _v2_server(self, _: Exchange) -> Response:
        return _ok({"name": v2.SERVER_NAME, "version": v2.SERVER_VERSION, "extensions": list(v2.HTTP_EXTENSIONS)})

    def _v2_extension(self, exchange: Exchange, parts: list[str]) -> Response | None:
        server = self._server
        body = self._body(exchange) if parts == ["repository", "index"] else b""
        found = v2_extensions.answer(exchange.method, parts, body, server.servings, server.totals)
        return None if found is None else Response(OK, _encode(found))

    def _v2_live(self, _: Exchange) -> Response:
        return _ok({"live": True})

    def _v2_model(self, exchange: Exchange, serving: Serving, version: int | None, rest: list[str]) -> Response:
        model = serving.plan.endpoint
        if rest not in ([], ["ready"]):
            raise NotFoundError(f"the path {exchange.path[:200]!r}")
        check_method(exchange.method, "GET")
        if rest:
            if version is not None and version not in serving.lanes:
                absent = serving.absent(version)
                if isinstance(absent, NotFoundError):
                    raise absent
            ready = serving.answers if version is None else version in serving.lanes
            return Response(OK if ready else _NOT_READY, _encode({"name": model, "ready": ready}))
        return _ok(v2.metadata(model, sorted(serving.lanes), v2_extensions.signature_of(serving, version)))

    def _health(self, _: Exchange) -> Response:
        return _ok({"status": "ok"})

    def _ready(self, _: Exchange) -> Response:
        reason = self._server.not_ready()
        if reason:
            return Response(_NOT_READY, _encode({"ready": False, "reason": reason}))
        return _ok({"ready": True})

    async def _feedback(self, body: bytes) -> Response:
        return Response(OK, _encode(await self._feedback_intake.take(body)))

    async def _reload(self) -> Response:
        await self._server.reload()
        tripped = self._server.tripped()
        servings = self._server.servings
        return _ok(
            {"endpoints": {name: stats.served(found, tripped.get(name, {})) for name, found in servings.items()}}
        )

    def _stats(self, _: Exchange) -> Response:
        totals, tripped = self._server.totals(), self._server.tripped()
        endpoints = {
            name: stats.served(serving, tripped.get(name, {}))
            | {"versions": {str(v): stats.statistics(t) for v, t in sorted(totals.get(name, {}).items())}}
            for name, serving in self._server.servings.items()
        }
        return _ok({"endpoints": endpoints})

    def _metrics(self, exchange: Exchange) -> Response:
        openmetrics = exposition.wants_openmetrics(exchange.headers.get(b"accept", b""))
        return Response(
            _OPENMETRICS if openmetrics else _METRICS, prometheus.text(self._server.facts(), openmetrics=openmetrics)
        )

    def _openapi(self, _: Exchange) -> Response:
        return Response(OK, openapi.document())

    def _body(self, exchange: Exchange, limit: int | None = None) -> bytes:
        """The body, unpacked; where a limit is given that is lower than the transport's, held to it."""
        encoding = exchange.headers.get(b"content-encoding")
        if encoding is not None:
            return decoded(exchange.body, encoding, limit=self._max_body_bytes if limit is None else limit)
        if limit is not None and len(exchange.body) > limit:
            raise BodyTooLargeError(limit)
        return exchange.body

    def _feedback_body(self, exchange: Exchange) -> bytes:
        content_type = exchange.headers.get(b"content-type", _JSON)
        if not tables.is_json(content_type):
            raise tables.UnsupportedTypeError(content_type, "send application/json")
        limit = min(MAX_BODY_BYTES, self._max_body_bytes)
        try:
            return self._body(exchange, limit)
        except BodyTooLargeError as error:
            raise FeedbackTooLargeError(len(exchange.body), limit) from error

    def _later(self, exchange: Exchange, answer: Coroutine[Any, Any, Response]) -> None:
        async def wait() -> None:
            try:
                exchange.reply(await answer)
            except SlipwayError as error:
                exchange.reply(failure(error))
            except Exception:
                log.exception("%s %r went wrong", exchange.method, exchange.path[:200])
                exchange.reply(failure(_WRONG))

        task = asyncio.get_running_loop().create_task(wait())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _ok(body: dict[str, Any]) -> Response:
    return Response(OK, _encode(body))


def _header_length(exchange: Exchange, body: bytes) -> int | None:
    """How much of the body, its content coding undone, is JSON, where binary data follows."""
    text = exchange.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isdigit() and len(text) <= 12 and int(text) <= len(body)):
        raise InvalidInputError(
            f"the header Inference-Header-Content-Length is {text[:40]!r}: use the length of the body's JSON part, "
            f"at most the body's {len(body)} bytes"
        )
    return int(text)
