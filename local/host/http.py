"""HTTP triggers: routes requests to functions as Azure's host does, on 127.0.0.1.

- No route for path and method: 404, also where the path exists for another method (azure-functions-host #10098).
- Levels `anonymous`, `function` (a host key or the master key) and `admin` (the master key); the key comes in the
  header `x-functions-key`, else in `?code=`. Without it: 401, before the body is read. Unlike Core Tools, this holds
  on a developer's machine too.
- A request with `X-MS-CLIENT-PRINCIPAL*` headers loses them: in Azure only the platform can set them.
- A body over 100 MB: 413. A function that raised: 500, its traceback in the log and not in the answer.
- Headers and query parameters that repeat are joined by commas, and empty ones left out, as the worker gets them in
  Azure.

`GET /admin/host/status` tells the host's id, for the master key.
"""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from local.host.bindings import Function
from local.host.errors import HostStartError
from local.host.invocations import Invoked, Invoker
from local.host.keys import Keys
from local.host.protos import RpcHttp, RpcHttpCookie, SameSite, TypedData
from local.host.routes import Route, decoded_path
from local.host.settings import AppSettings

_log = logging.getLogger("host.http")

MAX_BODY_BYTES = 100 * 1024 * 1024
_LEVELS = ("anonymous", "function", "admin")
_KEY_HEADER = "x-functions-key"
_KEY_PARAMETER = "code"
_PRINCIPAL_PREFIX = "x-ms-client-principal"
_STATUS_PATH = "admin/host/status"
# The server sets these from the body it sends.
_FRAMING_HEADERS = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive"})
_SAME_SITE = {SameSite.Lax: "Lax", SameSite.Strict: "Strict", SameSite.ExplicitNone: "None"}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpTrigger:
    """A function with an HTTP trigger, its route and its level."""

    function: Function
    route: Route
    level: str

    @classmethod
    def of(cls, function: Function, settings: AppSettings, *, prefix: str) -> "HttpTrigger":
        """Read an HTTP trigger's declaration. Raises HostStartError."""
        fields = function.trigger.fields
        level = str(fields.get("authLevel") or "function").lower()
        if level not in _LEVELS:
            raise HostStartError.in_function(function.name, f"its auth level is {level!r}: use {', '.join(_LEVELS)}")
        route = settings.resolve(str(fields.get("route") or function.name), function=function.name)
        methods = frozenset(str(method).upper() for method in fields.get("methods") or ())
        template = f"{prefix}/{route.strip('/')}".strip("/")
        if template.split("/")[0].casefold() in {"admin", "runtime"}:
            raise HostStartError.in_function(function.name, f"its route {template!r} is kept by the host")
        return cls(function=function, route=Route.parse(template, methods, function=function.name), level=level)


class HttpFront:
    """The ASGI application in front of the functions."""

    def __init__(self, triggers: Iterable[HttpTrigger], *, keys: Keys, host_id: str, invoker: Invoker) -> None:
        # Sorting is stable: of equal routes the one declared first wins.
        self._triggers = sorted(triggers, key=lambda trigger: trigger.route.rank)
        self._keys = keys
        self._host_id = host_id
        self._invoker = invoker

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._answer(Request(scope, receive))
        except HTTPException as error:
            response = Response(status_code=error.status_code, headers=error.headers)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path = decoded_path(request.scope["raw_path"])
        if path.casefold() == _STATUS_PATH and request.method == "GET":
            self._authorize(request, "admin")
            return JSONResponse({"id": self._host_id, "state": "Running"})
        trigger, params = self._route(request.method, path)
        self._authorize(request, trigger.level)
        rpc = RpcHttp(
            method=request.method,
            url=str(request.url),
            headers=_joined(
                (name, value) for name, value in request.headers.items() if not name.startswith(_PRINCIPAL_PREFIX)
            ),
            params=params,
            query=_joined(request.query_params.multi_items()),
            body=await _body(request),
        )
        invoked = await self._invoker.call(trigger.function, TypedData(http=rpc), {})
        try:
            return _response(invoked)
        except (ValueError, KeyError):
            _log.exception("function=%s gave an answer that is not HTTP", trigger.function.name)
            return Response(status_code=500)

    def _route(self, method: str, path: str) -> tuple[HttpTrigger, dict[str, str]]:
        for trigger in self._triggers:
            params = trigger.route.match(method, path)
            if params is not None:
                return trigger, params
        raise HTTPException(404)

    def _authorize(self, request: Request, level: str) -> None:
        key = request.headers.get(_KEY_HEADER) or request.query_params.get(_KEY_PARAMETER)
        opened = level == "anonymous" or (
            self._keys.opens_function(key) if level == "function" else self._keys.opens_admin(key)
        )
        if not opened:
            raise HTTPException(401)


async def _body(request: Request) -> TypedData:
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise HTTPException(413, headers={"connection": "close"})
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, headers={"connection": "close"})
    return TypedData(bytes=bytes(body)) if body else TypedData()


def _joined(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    joined: dict[str, str] = {}
    for name, value in pairs:
        if value:
            joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _response(invoked: Invoked) -> Response:
    """The answer to a call. Raises ValueError where the function's response cannot be sent."""
    if not invoked.succeeded:
        return Response(status_code=500)
    answer = invoked.http
    if answer is None or answer.kind is None:
        return Response(status_code=200)
    if answer.kind != "http":
        return Response(_bytes(answer), media_type="application/json" if answer.kind == "json" else "text/plain")
    rpc: RpcHttp = answer.value
    response = Response(_bytes(rpc.body), status_code=_status(rpc.status_code))
    _set_headers(response, rpc.headers)
    for cookie in rpc.cookies or ():
        _set_cookie(response, cookie)
    return response


def _set_headers(response: Response, headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if "\r" in name + value or "\n" in name + value:
            raise ValueError(f"the header {name!r} holds a line break")
        if name.lower() not in _FRAMING_HEADERS:
            response.headers[name] = value


def _set_cookie(response: Response, cookie: RpcHttpCookie) -> None:
    parts = [f"{cookie.name}={cookie.value}"]
    for label, held in (("Domain", cookie.domain), ("Path", cookie.path)):
        if held is not None and held.value:
            parts.append(f"{label}={held.value}")
    if cookie.expires is not None:
        parts.append(f"Expires={formatdate(cookie.expires.value.seconds, usegmt=True)}")
    if cookie.max_age is not None:
        parts.append(f"Max-Age={cookie.max_age.value:.0f}")
    parts += [
        label
        for label, held in (("Secure", cookie.secure), ("HttpOnly", cookie.http_only))
        if held is not None and held.value
    ]
    if cookie.same_site in _SAME_SITE:
        parts.append(f"SameSite={_SAME_SITE[SameSite(cookie.same_site)]}")
    response.headers.append("set-cookie", "; ".join(parts))


def _status(text: str) -> int:
    status = int(text)
    if not 200 <= status <= 599:
        raise ValueError(f"{status} is not a status that a function can answer with")
    return status


def _bytes(value: TypedData | None) -> bytes:
    if value is None or value.kind is None:
        return b""
    return bytes(value.value) if value.kind == "bytes" else str(value.value).encode()
