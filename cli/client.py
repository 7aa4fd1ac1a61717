"""The admin API and the model server, as a command sees them: JSON in, JSON out, errors of the domain.

A request whose answer is lost is sent again where that does no harm: a GET changes nothing, a policy is put whole, and
a command that carries an id has its effect once. Any other POST is sent once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from cli.outcome import CliError, ExitCode, Json
from cli.printable import printable
from cli.target import Target
from shared.core.errors import ConflictError, UnavailableError

if TYPE_CHECKING:
    import httpx

_TRIES = 3
_IDS = frozenset({"command_id", "plan_id"})
"""What makes a POST that comes twice one command."""
_TIMEOUT_S = 30.0
_UNAUTHORIZED = 401


class _RefusedError(CliError):
    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, ExitCode.FAILED, code)


class Client:
    """Speaks to one target. Use it as a context manager."""

    def __init__(self, target: Target, *, transport: httpx.BaseTransport | None = None) -> None:
        """`transport` takes the place of the network."""
        import httpx  # noqa: PLC0415 - a third of a second, which `--help` need not pay

        self._target = target
        # Certificates and proxies come from the environment, as for every other tool.
        self._http = httpx.Client(timeout=_TIMEOUT_S, transport=transport, headers={"user-agent": "slipway-cli"})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, *path: str, query: Mapping[str, str] | None = None, timeout_s: float = _TIMEOUT_S) -> Json:
        """GET from the admin API. Raises CliError, ConflictError or UnavailableError."""
        return self._admin("GET", path, query=query, timeout_s=timeout_s)

    def text(self, *path: str) -> str:
        """GET a document that is not JSON from the admin API."""
        response = self._ask("GET", path)
        return response.text if response.is_success else str(_read(response, "the admin API"))

    def items(self, *path: str, query: Mapping[str, str] | None = None) -> Iterator[Json]:
        """The items of a list, from page to page."""
        continuation = ""
        while True:
            more = {"continuation": continuation} if continuation else {}
            page = self._admin("GET", path, query=dict(query or {}) | more)
            yield from told(page)
            continuation = page.get("continuation") or ""
            if not continuation:
                return

    def post(self, *path: str, body: Json, timeout_s: float = _TIMEOUT_S) -> Json:
        """POST to the admin API, and wait that long for the answer. A body with an id may be sent again."""
        return self._value(self._ask("POST", path, body=body, timeout_s=timeout_s), "the admin API")

    def put(self, *path: str, body: Json, query: Mapping[str, str] | None = None) -> Json:
        """PUT to the admin API."""
        return self._admin("PUT", path, body=body, query=query)

    def predict(self, body: Json) -> Json:
        """Ask the model server's plain API."""
        response = self._send("POST", f"{self._target.model_server_url}/predict", "the model server", body=body)
        return self._value(response, "the model server")

    def _admin(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> Json:
        return self._value(self._ask(method, path, query=query, body=body, timeout_s=timeout_s), "the admin API")

    def _value(self, response: httpx.Response, service: str) -> Json:
        """The body of a good response; for a person, without what a terminal would take for orders."""
        found = _read(response, service)
        return found if self._target.as_json else printable(found)

    def _ask(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> httpx.Response:
        url = f"{self._target.functions_url}/api/" + "/".join(quote(part, safe="") for part in path)
        key = self._target.api_key
        headers, bearer = {"x-functions-key": key} if key else {}, self._target.bearer

        def ask() -> httpx.Response:
            signed = headers | bearer.header()
            return self._send(method, url, "the admin API", query=query, body=body, headers=signed, timeout_s=timeout_s)

        response = ask()
        # A token lasts an hour, and a rollout may be followed for longer. What was refused was not done.
        return ask() if response.status_code == _UNAUTHORIZED and bearer.renew() else response

    def _send(
        self,
        method: str,
        url: str,
        service: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = _TIMEOUT_S,
    ) -> httpx.Response:
        import httpx  # noqa: PLC0415

        tries = _TRIES if method != "POST" or _has_id(body) else 1
        for attempt in range(1, tries + 1):
            try:
                return self._http.request(
                    method, url, params=query or None, json=body, headers=headers, timeout=timeout_s
                )
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise CliError(f"{url} is not a URL that can be asked: {error}", ExitCode.USAGE, "usage") from error
            except httpx.ConnectError as error:
                raise UnavailableError(service, f"nothing answers at {url} ({error}): is the system up?") from error
            except httpx.HTTPError as error:
                if attempt == tries:
                    raise UnavailableError(
                        service, f"{url} did not answer ({type(error).__name__} {error}){_doubt(method)}"
                    ) from error
        raise AssertionError("unreachable: the last try returns or raises")


def told(page: Json) -> list[Json]:
    """The items of a page. What the API could not read, and left out, is told on standard error."""
    for one in printable(page.get("unreadable", [])):
        print(f"slipway: left out, for it cannot be read: {one['document']} ({one['problem']})", file=sys.stderr)
    items: list[Json] = page["items"]
    return items


def _has_id(body: Json) -> bool:
    return isinstance(body, dict) and not _IDS.isdisjoint(body)


def _doubt(method: str) -> str:
    """What is not known after the answer to a change was lost."""
    return "" if method == "GET" else ": whether it was done is not known, so look before you ask for it again"


def _read(response: httpx.Response, service: str) -> Json:
    """The body of a good response; the error that a bad one tells of."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and body is not None:
        return body
    message = _message(body) or f"{service} answered {response.status_code} without saying why"
    match response.status_code:
        case 401 | 403:
            raise CliError(
                f"{service} refused the key: give the right one with --key or SLIPWAY_KEY; where it asks for sign-in "
                "too, set SLIPWAY_AUDIENCE or SLIPWAY_TOKEN",
                ExitCode.FAILED,
                "refused",
            )
        case 404 if body is not None:
            raise CliError(message, ExitCode.NOT_FOUND, "not_found")
        case 404:
            raise CliError(
                f"{service} knows no {response.url}: does the address name Slipway?", ExitCode.NOT_FOUND, "not_found"
            )
        case 409:
            raise ConflictError(message)
        case 429 | 502 | 503 | 504:
            raise CliError(message, ExitCode.NOT_REACHABLE, "unavailable")
        case 400 | 413 | 422:
            raise _RefusedError(message, "invalid_input")
        case _:
            raise _RefusedError(message, "failed")


def _message(body: Json) -> str:
    """What an error's body says: the admin API's {"error": {"message"}}, or the model server's {"error"}."""
    error = body.get("error") if isinstance(body, dict) else None
    found = error.get("message") if isinstance(error, dict) else error
    return found if isinstance(found, str) else ""
