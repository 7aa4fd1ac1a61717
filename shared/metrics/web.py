"""One request to a metrics store: POST, a bounded time, a bounded answer, and no other host than the one that is set.

A redirection is not followed: the request carries a token, and an answer from elsewhere is no evidence. Nothing is
tried again here; the next tick is the next try.
"""

import http.client
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from shared.core.deadline import at_most
from shared.core.errors import SlipwayError

TIMEOUT_S = 5.0
"""The most that connecting to an address takes, and again the most from then to the last byte of the answer. What
resolves the host's name has limits of its own: see shared.rollout.queries.ASK_S."""
MAX_ANSWER_BYTES = 1_000_000
_SAID = 300

type Tokens = Callable[[], str]
"""Gives a bearer token that holds now. Raises SlipwayError where there is none to be had."""


class StoreError(SlipwayError):
    """A metrics store could not be asked, or its answer is none. The message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebAnswer:
    """What came back."""

    status: int
    reason: str
    body: bytes

    def value(self) -> Any:  # noqa: ANN401 - any JSON value
        """The body as JSON. Raises StoreError."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise StoreError(f"it answered {self.status} with what is not JSON") from None


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    tokens: Tokens | None = None,
    timeout_s: float = TIMEOUT_S,
    max_bytes: int = MAX_ANSWER_BYTES,
) -> WebAnswer:
    """POST to a URL. Raises StoreError for no answer in time, too long a one, a redirection or a refused token."""
    host = urlsplit(url).netloc
    sent = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "slipway", **headers}
    try:
        if tokens is not None:
            sent["authorization"] = f"Bearer {tokens()}"
    except SlipwayError as error:
        raise StoreError(f"no token for {host} is to be had: {error}") from error
    try:
        answer = _exchange(url, body, sent, timeout_s, max_bytes)
    except TimeoutError:
        raise StoreError(f"{host} did not answer within {timeout_s:g} s") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise StoreError(f"{host} did not answer: {said(str(error) or type(error).__name__)}") from error
    if answer.status in {401, 403}:
        remedy = "give the app's identity the right to read it" if tokens else "it wants a token: set how to get one"
        raise StoreError(f"{host} refused with {answer.status}: {remedy}")
    return answer


def said(text: str) -> str:
    """What a store said, on one line and not too long."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _SAID else f"{line[:_SAID]}..."


def _exchange(url: str, body: bytes, headers: Mapping[str, str], timeout_s: float, max_bytes: int) -> WebAnswer:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    try:
        connection.connect()
        with at_most(connection.sock, timeout_s):
            connection.request("POST", parts.path or "/", body=body, headers=dict(headers))
            with connection.getresponse() as response:
                if 300 <= response.status < 400:
                    target = said(response.headers.get("location", "nowhere"))
                    raise StoreError(f"{parts.netloc} redirects to {target}: set the address that answers by itself")
                data = response.read(max_bytes + 1)
            if len(data) > max_bytes:
                raise StoreError(f"{parts.netloc} answered more than {max_bytes} bytes: ask for one number")
            return WebAnswer(status=response.status, reason=response.reason, body=data)
    finally:
        connection.close()
