"""The server's HTTP API, apart from any transport: a request in, a response out.

Errors of the domain become statuses here, by one table, and nowhere else. Nothing that a client sends raises out of
`Api.handle`; what goes wrong unexpectedly is logged, and answered with 500 and no detail.
"""

import logging
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol

import msgspec

from aks_serving import plain, prometheus, v2
from aks_serving.counts import VersionTally
from aks_serving.deployment import Serving
from aks_serving.errors import BodyTooLargeError, ModelRunError, NotServingError, OverloadedError
from aks_serving.predictor import Prediction, predict
from shared.core.errors import InvalidInputError, NotFoundError, SlipwayError, UnavailableError
from shared.core.ids import version_number
from shared.telemetry.histogram import quantile

log = logging.getLogger(__name__)

SERVER_NAME = "slipway"
SERVER_VERSION = "0.1.0"
JSON = b"application/json"

type Headers = list[tuple[bytes, bytes]]

_STATUS: tuple[tuple[type[SlipwayError], int], ...] = (
    (BodyTooLargeError, 413),
    (InvalidInputError, 400),
    (NotFoundError, 404),
    (UnavailableError, 503),
    (ModelRunError, 500),
)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """An HTTP request, its body read. `user` is the header x-slipway-user, `encoding` Content-Encoding."""

    method: str
    path: str
    body: bytes = b""
    user: bytes = b""
    encoding: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An HTTP response. Content-Length is the transport's."""

    status: int
    body: bytes
    content_type: bytes = JSON
    headers: Headers


class _MethodNotAllowedError(SlipwayError):
    def __init__(self, method: str, allowed: str) -> None:
        super().__init__(f"{method[:20]} is not answered here: use {allowed}")
        self.allowed = allowed


class Server(Protocol):
    """What the API needs of the server behind it."""

    @property
    def servings(self) -> dict[str, Serving]:
        """What answers each endpoint now."""
        ...

    @property
    def waiting(self) -> int:
        """Requests that wait or run."""
        ...

    @property
    def windows_lost(self) -> int:
        """Telemetry windows that storage never got."""
        ...

    def not_ready(self) -> str:
        """Why the server is not ready; empty where it is."""
        ...

    def totals(self) -> dict[str, Any]:
        """Counts since the start, by endpoint and version."""
        ...

    async def reload(self) -> None:
        """Poll the plans and try failed loads again. Raises UnavailableError."""
        ...


class Api:
    """Answers requests."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._plain = {
            "/predict": ("POST", self._predict),
            "/models/reload": ("POST", self._reload),
            "/health": ("GET", self._health),
            "/ready": ("GET", self._ready),
            "/ab-test/stats": ("GET", self._stats),
            "/metrics": ("GET", self._metrics),
        }

    async def handle(self, request: Request) -> Response:
        """The response to a request. Never raises."""
        try:
            route = self._plain.get(request.path)
            if route is not None:
                method, handler = route
                _check_method(request, method)
                return await handler(request)
            return await self._v2(request)
        except SlipwayError as error:
            return failure(error)
        except Exception:
            log.exception("%s %s went wrong", request.method, request.path)
            return failure(SlipwayError("the server made an error; its log says which"))

    async def _predict(self, request: Request) -> Response:
        started_s = perf_counter()
        asked = plain.read_request(_body(request))
        serving = self._serving(asked.model)
        prediction = await predict(
            serving,
            asked.feeds,
            version=asked.version(),
            subject=_user(request) or asked.subject(),
            started_s=started_s,
        )
        latency_ms = (perf_counter() - started_s) * 1e3
        return _predicted(plain.response(prediction, serving.plan.endpoint, latency_ms), prediction)

    async def _v2(self, request: Request) -> Response:
        match request.path.rstrip("/").split("/")[1:]:
            case ["v2"]:
                _check_method(request, "GET")
                return _ok({"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": []})
            case ["v2", "health", "live"]:
                _check_method(request, "GET")
                return _ok({"live": True})
            case ["v2", "health", "ready"]:
                _check_method(request, "GET")
                return await self._ready(request)
            case ["v2", "models", model, *rest]:
                version = None
                if len(rest) >= 2 and rest[0] == "versions":
                    version = version_number(rest[1])
                    rest = rest[2:]
                return await self._v2_model(request, self._serving(model), version, rest)
            case _:
                raise NotFoundError(f"the path {request.path[:200]!r}")

    async def _v2_model(self, request: Request, serving: Serving, version: int | None, rest: list[str]) -> Response:
        model = serving.plan.endpoint
        if rest == ["infer"]:
            _check_method(request, "POST")
            started_s = perf_counter()
            asked = v2.read_request(_body(request))
            subject = _user(request) or asked.subject()
            prediction = await predict(serving, asked.feeds, version=version, subject=subject, started_s=started_s)
            return _predicted(v2.response(asked, prediction, model), prediction)
        if rest not in ([], ["ready"]):
            raise NotFoundError(f"the path {request.path[:200]!r}")
        _check_method(request, "GET")
        if rest:
            ready = serving.answers if version is None else version in serving.lanes
            return _ok({"name": model, "ready": ready}, status=200 if ready else 503)
        route = serving.plan.stable or serving.plan.candidate
        number = version if version is not None else route.version if route is not None else 0
        lane = serving.lanes.get(number)
        if lane is None:
            raise NotFoundError(f"version {number} of endpoint {model!r}", hint=f"loaded: {sorted(serving.lanes)}")
        return _ok(v2.metadata(model, sorted(serving.lanes), lane.model.signature))

    async def _health(self, _: Request) -> Response:
        return _ok({"status": "ok"})

    async def _ready(self, _: Request) -> Response:
        reason = self._server.not_ready()
        return _ok({"ready": False, "reason": reason} if reason else {"ready": True}, status=503 if reason else 200)

    async def _reload(self, _: Request) -> Response:
        await self._server.reload()
        return _ok({"endpoints": {name: _served(serving) for name, serving in self._server.servings.items()}})

    async def _stats(self, _: Request) -> Response:
        totals = self._server.totals()
        endpoints = {
            name: _served(serving)
            | {"versions": {str(v): _statistics(t) for v, t in sorted(totals.get(name, {}).items())}}
            for name, serving in self._server.servings.items()
        }
        return _ok({"endpoints": endpoints})

    async def _metrics(self, _: Request) -> Response:
        server = self._server
        text = prometheus.text(server.totals(), server.servings, waiting=server.waiting, lost=server.windows_lost)
        return Response(status=200, body=text.encode(), content_type=prometheus.CONTENT_TYPE, headers=[])

    def _serving(self, model: str | None) -> Serving:
        servings = self._server.servings
        if model is None:
            if len(servings) == 1:
                return next(iter(servings.values()))
            if not servings:
                raise NotServingError("the model server", "it serves no model yet")
            raise InvalidInputError(f"name the model: the server serves {', '.join(sorted(servings))}")
        serving = servings.get(model)
        if serving is None:
            raise NotFoundError(f"model {model[:80]!r}", hint=f"served: {', '.join(sorted(servings)) or 'none'}")
        return serving


def failure(error: SlipwayError) -> Response:
    """The response that tells of an error."""
    if isinstance(error, _MethodNotAllowedError):
        return _ok({"error": str(error)}, status=405, headers=[(b"allow", error.allowed.encode())])
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = [(b"retry-after", b"1")] if isinstance(error, OverloadedError | NotServingError) else []
    return _ok({"error": str(error)}, status=status, headers=headers)


def _ok(body: dict[str, Any], *, status: int = 200, headers: Headers | None = None) -> Response:
    return Response(status=status, body=_encode(body), headers=headers or [])


def _predicted(body: dict[str, Any], prediction: Prediction) -> Response:
    headers: Headers = [
        (b"x-slipway-version", b"%d" % prediction.version),
        (b"x-slipway-generation", b"%d" % prediction.generation),
        (b"x-slipway-role", prediction.role.encode()),
    ]
    if prediction.fallback:
        headers.append((b"x-slipway-fallback", b"true"))
    return Response(status=200, body=_encode(body), headers=headers)


def _check_method(request: Request, allowed: str) -> None:
    if request.method != allowed and not (request.method == "HEAD" and allowed == "GET"):
        raise _MethodNotAllowedError(request.method, allowed)


def _body(request: Request) -> bytes:
    if request.encoding not in (b"", b"identity"):
        raise InvalidInputError("the body is compressed, which this server does not take: send it as it is")
    return request.body


def _user(request: Request) -> str | None:
    try:
        return request.user.decode() or None
    except UnicodeDecodeError as error:
        raise InvalidInputError("the header x-slipway-user is not UTF-8") from error


def _served(serving: Serving) -> dict[str, Any]:
    return {
        "generation": serving.plan.generation,
        "loaded": sorted(serving.lanes),
        "failed": {str(version): reason for version, reason in serving.failed.items()},
        "routes": [{"version": r.version, "role": r.role, "weight_bp": r.weight_bp} for r in serving.plan.routes],
    }


def _statistics(tally: VersionTally) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "errors": tally.errors,
        "fallbacks": tally.fallbacks,
        "pinned": tally.pinned,
        **{f"p{p}_ms": _rounded(quantile(tally.latency_ms, p / 100)) for p in (50, 95, 99)},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
