"""The demo's stream of requests: many users, at random moments, whether or not earlier requests were answered.

Each request is accounted for, as an answer or as a failure. Users send one to three images each; whatever comes back
without a prediction for each of them is a failure, and so is a refusal, a lost connection or an answer that takes too
long. The stream runs on a thread of its own; what it has counted may be read at any time.
"""

import asyncio
import json
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import httpx

from local.demo.answers import Answer, Failure
from local.demo.digits import Pixels, Rows, newly_scanned
from local.demo.errors import DemoError

USERS = 200
PER_SECOND = 120.0
NEW_SCANNER_SHARE = 0.3
"""How many of the users get a new scanner, once it comes."""

_MOST_ROWS = 3
_TIMEOUT_S = 10.0
_RECENT_S = 1.0
_STOP_S = 2 * _TIMEOUT_S
_CONNECTIONS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    user: str
    body: bytes
    digits: list[int]


class Traffic:
    """A stream of requests to one model. `start` it, and `stop` it, which waits for what is in flight."""

    def __init__(self, *, url: str, model: str, rows: Rows, users: int = USERS, per_second: float = PER_SECOND) -> None:
        """`url` is the model server's root; `rows` is what users send."""
        self.answers: list[Answer] = []
        self.failures: list[Failure] = []
        self.sent = 0
        self._url = url
        self._model = model
        self._images = [_as_json(rows.pixels), _as_json(newly_scanned(rows.pixels))]
        self._digits: list[int] = rows.labels.tolist()
        self._users = [f"user-{number:03d}" for number in range(users)]
        self._per_second = per_second
        self._random = random.Random(11)  # noqa: S311 - not for secrets
        self._newly_equipped: frozenset[str] = frozenset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._crash: BaseException | None = None

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more, and wait until every request is answered or has failed. Nothing happens where it is stopped.

        Raises DemoError where the stream itself broke.
        """
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_S)
        if self._thread.is_alive() or self._crash is not None:
            raise DemoError(f"the stream of requests broke down: {self._crash!r}") from self._crash

    def bring_new_scanner(self) -> int:
        """Give some users, drawn at random, the new scanner from now on; how many."""
        drawn = self._random.sample(self._users, round(NEW_SCANNER_SHARE * len(self._users)))
        self._newly_equipped = frozenset(drawn)
        return len(drawn)

    def shares(self) -> dict[int, float]:
        """Each version's share of the answers of the last second."""
        since = time.monotonic() - _RECENT_S
        recent: Counter[int] = Counter()
        for index in range(len(self.answers) - 1, -1, -1):
            answer = self.answers[index]
            if answer.answered_s < since:
                break
            recent[answer.version] += 1
        return {version: count / recent.total() for version, count in sorted(recent.items())}

    def _run(self) -> None:
        try:
            asyncio.run(self._send_all())
        except BaseException as error:  # noqa: BLE001 - raised again by `stop`, on the thread that reads the counts
            self._crash = error

    async def _send_all(self) -> None:
        limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=_TIMEOUT_S, limits=limits, trust_env=False) as client,
            asyncio.TaskGroup() as tasks,
        ):
            due_s = time.monotonic()
            while not self._stop.is_set():
                tasks.create_task(self._send(client, self._next()))
                # Gaps between independent users are exponential; the next moment does not wait for an answer.
                due_s += self._random.expovariate(self._per_second)
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    def _next(self) -> _Request:
        user = self._random.choice(self._users)
        images = self._images[user in self._newly_equipped]
        chosen = [self._random.randrange(len(images)) for _ in range(self._random.randint(1, _MOST_ROWS))]
        features = ",".join(images[index] for index in chosen)
        body = f'{{"model":"{self._model}","user_id":"{user}","features":[{features}]}}'
        return _Request(user=user, body=body.encode(), digits=[self._digits[index] for index in chosen])

    async def _send(self, client: httpx.AsyncClient, request: _Request) -> None:
        sent_s = time.monotonic()
        self.sent += 1
        try:
            response = await client.post("/predict", content=request.body)
            answered_s = time.monotonic()
            self.answers.append(_answer(request, response, sent_s=sent_s, answered_s=answered_s))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            reason = f"{type(error).__name__}: {error}"
            self.failures.append(Failure(user=request.user, sent_s=sent_s, reason=reason))


def _answer(request: _Request, response: httpx.Response, *, sent_s: float, answered_s: float) -> Answer:
    """Read a response. Raises ValueError, KeyError or TypeError where it is not a whole answer."""
    if response.status_code != httpx.codes.OK:
        raise ValueError(f"status {response.status_code}: {response.text[:200]}")
    body: dict[str, Any] = response.json()
    predictions, wanted = body["predictions"], request.digits
    if len(predictions) != len(wanted):
        raise ValueError(f"{len(predictions)} predictions for {len(wanted)} images")
    return Answer(
        user=request.user,
        sent_s=sent_s,
        answered_s=answered_s,
        generation=int(body["generation"]),
        version=int(body["model_version"]),
        role=str(body["role"]),
        fallback=bool(body["fallback"]),
        rows=len(wanted),
        right=sum(predicted == digit for predicted, digit in zip(predictions, wanted, strict=True)),
    )


def _as_json(pixels: Pixels) -> list[str]:
    return [json.dumps(row, separators=(",", ":")) for row in pixels.tolist()]
