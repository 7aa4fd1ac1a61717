"""Everything at once: ten thousand mixed requests each way get what an unbatched run gives, each its own caller.

Plain and V2, JSON and binary, of several shapes, versions and endpoints, pinned and assigned; among them callers that
go away, bodies that no version takes, rows on which the candidate fails, a model of a fixed shape and one whose rows
influence each other. What is right is told by the models themselves, run by the test one request at a time.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from aks_serving.api import Api
from aks_serving.errors import ModelRunError
from aks_serving.model import Model
from aks_serving.tensors import DTYPES, Array, Feeds

from shared.routing.assignment import bucket
from shared.routing.plan import Guard, Role, RoutePlan
from shared.routing.prediction import PredictionId, Reason
from tests.serving import models
from tests.serving.conftest import Running, Start, eventually
from tests.serving.fakes import MemoryStorage
from tests.serving.handled import Asked, keep

pytestmark = pytest.mark.anyio

REQUESTS, WAVE, HALF = 5_000, 200, 5_000
STABLE, CANDIDATE = 1, 2


ENDPOINTS: dict[str, dict[int, bytes]] = {
    "churn": {STABLE: models.table(), CANDIDATE: models.picky(limit=4)},
    "price": {STABLE: models.scaler(2.0), CANDIDATE: models.scaler(3.0, width="m")},
    "fixed": {STABLE: models.identity("FP32", (1, 2))},
    "column": {STABLE: models.column_softmax(), CANDIDATE: models.scaler(5.0)},
    "wide": {STABLE: models.totals()},
}
MODELS = {
    (endpoint, version): Model(version=version, digest="", data=data)
    for endpoint, versions in ENDPOINTS.items()
    for version, data in versions.items()
}


def _plan(endpoint: str) -> RoutePlan:
    versions = ENDPOINTS[endpoint]
    stable = (STABLE, versions[STABLE])
    canary = CANDIDATE in versions
    routes = models.canary(stable, (CANDIDATE, versions[CANDIDATE]), HALF) if canary else (models.route(*stable),)
    return models.plan(1, *routes, endpoint=endpoint).model_copy(update={"guard": Guard(enabled=False)})


@dataclass(kw_only=True)
class Case:
    """A request, and what is right for it."""

    name: str
    endpoint: str
    feeds: Feeds
    user: int
    pinned: int | None
    form: str
    leaves: str
    bad: bool
    asked: Asked = field(init=False)

    @property
    def assigned(self) -> int:
        if self.pinned is not None:
            return self.pinned
        return CANDIDATE if CANDIDATE in ENDPOINTS[self.endpoint] and bucket("salt", str(self.user)) < HALF else STABLE

    def right(self) -> tuple[int, Reason, Sequence[Array] | None]:
        """Who answers, why, and what; None where the version fails."""
        version = self.assigned
        reason = Reason.ASSIGNED if self.pinned is None else Reason.PINNED
        outputs = _alone(self.endpoint, version, self.feeds)
        if outputs is None and version == CANDIDATE and self.pinned is None:
            return STABLE, Reason.FALLBACK, _alone(self.endpoint, STABLE, self.feeds)
        return version, reason, outputs


def _alone(endpoint: str, version: int, feeds: Feeds) -> Sequence[Array] | None:
    try:
        return MODELS[endpoint, version].run(feeds)
    except ModelRunError:
        return None


def _feeds(rng: random.Random, endpoint: str, number: int) -> Feeds:
    rows = 1 if endpoint == "fixed" else rng.choice([1, 1, 1, 2, 3])
    if endpoint == "churn":
        return {"x": np.array([[rng.choice([0, 1, 2, 3, 3, 7, 900])] for _ in range(rows)], np.int64)}
    width = rng.randint(1, 4) if endpoint == "wide" else 2
    feeds: Feeds = {"x": np.array([[rng.randint(-999, 999) for _ in range(width)] for _ in range(rows)], np.float32)}
    if endpoint == "wide":
        feeds["s"] = np.array([[f'{number}/{row}"'] for row in range(rows)], np.object_)
    return feeds


def _case(rng: random.Random, endpoints: Sequence[str], number: int) -> Case:
    endpoint = rng.choice(endpoints)
    feeds = _feeds(rng, endpoint, number)
    forms = ["plain", "by name", "json", "binary out"] + (["binary in", "binary"] if "s" not in feeds else [])
    fails = endpoint == "churn" and feeds["x"].max() > 3
    case = Case(
        name=f'"{number}"',
        endpoint=endpoint,
        feeds=feeds,
        user=rng.randrange(2_000),
        pinned=rng.choice(list(ENDPOINTS[endpoint])) if rng.random() < 0.1 else None,
        form=rng.choice(forms),
        leaves=rng.choices(["", "before", "" if fails else "later"], [90, 5, 5])[0],
        bad=rng.random() < 0.05,
    )
    case.asked = _plain(case) if case.form in {"plain", "by name"} else _v2(case)
    return case


def _plain(case: Case) -> Asked:
    by_name = {name: array.tolist() for name, array in case.feeds.items()}
    if case.bad:
        by_name["x"] = [[[[1]]]]
    features: Any = by_name["x"] if case.form == "plain" and len(by_name) == 1 else by_name
    version = {} if case.pinned is None else {"model_version": case.pinned}
    body = {"features": features, "model": case.endpoint, "user_id": case.user} | version
    return Asked("/predict", json.dumps(body).encode())


def _v2(case: Case) -> Asked:
    inputs: list[dict[str, Any]] = []
    data = b""
    for name, array in case.feeds.items():
        datatype = {"i": "INT64", "f": "FP32", "O": "BYTES"}[array.dtype.kind]
        tensor = {"name": name, "datatype": datatype, "shape": [*array.shape, 9] if case.bad else list(array.shape)}
        if case.form in {"binary in", "binary"}:
            data += array.tobytes()
            inputs.append(tensor | {"parameters": {"binary_data_size": array.nbytes}})
        else:
            inputs.append(tensor | {"data": array.ravel().tolist()})
    parameters = {"user_id": case.user, "binary_data_output": case.form in {"binary out", "binary"}}
    head = json.dumps({"id": case.name, "inputs": inputs, "parameters": parameters}).encode()
    version = "" if case.pinned is None else f"/versions/{case.pinned}"
    headers = {b"inference-header-content-length": b"%d" % len(head)} if data else {}
    return Asked(f"/v2/models/{case.endpoint}{version}/infer", head + data, headers)


def _outputs(case: Case, signature: Any) -> list[Array]:
    """What the answer holds, read back."""
    answer = case.asked.json()
    if case.form in {"plain", "by name"}:
        several = answer.get("outputs", {signature.outputs[0].name: answer["predictions"]})
        assert answer["model"] == case.endpoint
        return [np.array(several[spec.name], DTYPES[spec.datatype]) for spec in signature.outputs]
    arrays: list[Array] = []
    start = int(case.asked.told.get(b"inference-header-content-length", 0))
    for output in answer["outputs"]:
        dtype = DTYPES[output["datatype"]]
        if "data" in output:
            arrays.append(np.array(output["data"], dtype).reshape(output["shape"]))
            continue
        raw = case.asked.response.body[start : start + output["parameters"]["binary_data_size"]]
        start += len(raw)
        values = _texts(raw) if dtype.kind == "O" else np.frombuffer(raw, dtype)
        arrays.append(np.asarray(values, dtype).reshape(output["shape"]))
    assert case.form not in {"binary out", "binary"} or start == len(case.asked.response.body)
    return arrays


def _texts(raw: bytes) -> list[str]:
    texts = []
    while raw:
        length = int.from_bytes(raw[:4], "little")
        texts.append(raw[4 : 4 + length].decode())
        raw = raw[4 + length :]
    return texts


async def _ask_all(running: Running, cases: Sequence[Case], rng: random.Random) -> bool:
    """Have all asked and answered; whether any of it was seen to run beside the event loop."""
    api = Api(running.server)
    lanes = [lane for serving in running.server.servings.values() for lane in serving.lanes.values()]
    beside = False
    for start in range(0, len(cases), WAVE):
        wave = cases[start : start + WAVE]
        for case in wave:
            api.handle(case.asked)
            case.asked.gone = case.leaves == "before"
            if rng.random() < 0.05:
                await asyncio.sleep(0)
                beside |= any(lane.running_beside for lane in lanes)
        for case in wave:
            case.asked.gone |= case.leaves == "later"
        await eventually(lambda: running.server.engine.waiting == 0)
    return beside


@dataclass
class Seen:
    """What the callers saw, counted as windows count it."""

    versions: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    ids: set[str] = field(default_factory=set)

    def add(self, case: Case) -> None:
        if case.bad:
            assert case.asked.status == 400
            self.refused[case.endpoint, "invalid"] += 1
        elif not case.asked.replies:
            assert case.leaves
            self.refused[case.endpoint, "cancelled"] += 1
        else:
            assert case.leaves != "before"
            self._answered(case)

    def _answered(self, case: Case) -> None:
        version, reason, right = case.right()
        names = {Reason.ASSIGNED: "requests", Reason.FALLBACK: "fallbacks", Reason.PINNED: "pinned"}
        self.versions[case.endpoint, version, names[reason]] += 1
        if reason is Reason.FALLBACK:
            self.versions[case.endpoint, CANDIDATE, "requests"] += 1
            self.versions[case.endpoint, CANDIDATE, "errors"] += 1
        if right is None:
            assert case.asked.status == 500
            return
        assert case.asked.status == 200, case.asked.response.body
        found = _outputs(case, MODELS[case.endpoint, version].signature)
        assert len(found) == len(right)
        for one, other in zip(found, right, strict=True):
            assert one.shape == other.shape
            assert np.array_equal(one, other)
        if case.form not in {"plain", "by name"}:
            assert case.asked.json()["id"] == case.name
        self._told(case, version, reason)

    def _told(self, case: Case, version: int, reason: Reason) -> None:
        told = case.asked.told
        text = told[b"x-slipway-prediction-id"].decode()
        found = PredictionId.parse(text)
        role = Role.CANDIDATE if version == CANDIDATE else Role.STABLE
        assert (found.endpoint, found.version, found.reason, found.role) == (case.endpoint, version, reason, role)
        assert told[b"x-slipway-version"] == b"%d" % version
        assert (b"x-slipway-fallback" in told) == (reason is Reason.FALLBACK)
        self.ids.add(text)


@pytest.mark.parametrize("inline", [True, False], ids=["on the loop", "beside it"])
@pytest.mark.parametrize("endpoints", [["churn"], list(ENDPOINTS)], ids=["one endpoint", "five endpoints"])
async def test_each_of_many_mixed_requests_gets_what_it_would_get_alone(
    start: Start, storage: MemoryStorage, endpoints: list[str], *, inline: bool
) -> None:
    rng = random.Random(11)
    for endpoint in endpoints:
        storage.put(*ENDPOINTS[endpoint].values())
        storage.publish(_plan(endpoint))
    async with start(max_queue=REQUESTS) as running:
        await running.reload()
        servings = running.server.servings
        for serving in servings.values():
            for lane in serving.lanes.values():
                keep(lane, inline=inline)
        cases = [_case(rng, endpoints, number) for number in range(REQUESTS)]
        assert await _ask_all(running, cases, rng) is not inline
        batches = sum(running.server.totals()["churn"][STABLE].runs.sizes.values())
        assert running.server.engine.waiting == 0
        assert all(serving.tally.in_flight == 0 for serving in servings.values())
        assert all(lane.idle for serving in servings.values() for lane in serving.lanes.values())
    seen = Seen()
    for case in cases:
        seen.add(case)
    counted = Seen()
    for window in storage.windows():
        for version, counts in window.versions.items():
            for name in ("requests", "errors", "fallbacks", "pinned"):
                counted.versions[window.endpoint, version, name] += getattr(counts, name)
            assert sum(counts.latency_ms.values()) == counts.requests - counts.errors
        for why, count in window.refused.items():
            counted.refused[window.endpoint, why] += count
    assert +counted.versions == seen.versions
    assert counted.refused == seen.refused
    answered = sum(bool(case.asked.replies) and case.asked.status == 200 for case in cases)
    assert len(seen.ids) == answered > REQUESTS * 0.8
    assert all(seen.versions[endpoint, STABLE, "requests"] > 100 for endpoint in endpoints)
    assert all(seen.versions["churn", version, "pinned"] for version in (STABLE, CANDIDATE))
    assert seen.versions["churn", STABLE, "fallbacks"] > 50
    # What a batch fails that holds a bad row runs in smaller ones, and so does what stable answers in its place.
    ran = sum(seen.versions["churn", STABLE, name] for name in ("requests", "fallbacks", "pinned"))
    assert 0 < batches < ran / 1.5, ran
