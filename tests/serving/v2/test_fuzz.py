"""Ten thousand wrong requests: each is refused with a 4xx and a reason, or is right after all and answered rightly."""

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from aks_serving.api import Api
from aks_serving.encodings import decoded
from aks_serving.exchange import Exchange, Response
from aks_serving.server import ModelServer
from aks_serving.settings import Settings
from aks_serving.tensors import DTYPES, Array

from tests.serving.fakes import MemoryStorage
from tests.serving.v2 import zoo
from tests.serving.v2.fuzz import Case, cases

_MAX_BODY_BYTES = 1 << 20
_AT_ONCE = 64


class _Asked(Exchange):
    """An exchange that keeps its answers."""

    __slots__ = ("answers", "case")

    def __init__(self, case: Case) -> None:
        self.case = case
        self.answers: list[Response] = []
        self.method, self.path, self.query = "POST", f"/v2/models/{case.endpoint}/infer", b""
        self.headers, self.body = dict(case.headers), case.body
        self.received_s, self.gone = perf_counter(), False

    def reply(self, response: Response) -> None:
        self.answers.append(response)


async def _answered(fuzzed: list[Case], cache: Path) -> list[_Asked]:
    storage = MemoryStorage()
    zoo.publish(storage)
    settings = Settings(
        storage_connection="unused", blob_url=None, cache_dir=cache, pod="pod", poll_s=3600.0, window_s=3600.0
    )
    server = ModelServer(settings, storage)
    await server.start()
    await server.reload()
    logging.getLogger("aks_serving").info("all is loaded")
    try:
        api = Api(server, max_body_bytes=_MAX_BODY_BYTES)
        asked: list[_Asked] = []
        async with asyncio.timeout(250):
            for start in range(0, len(fuzzed), _AT_ONCE):
                together = [_Asked(case) for case in fuzzed[start : start + _AT_ONCE]]
                for one in together:
                    api.handle(one)
                while not all(one.answers for one in together):  # noqa: ASYNC110 - an answer is no event
                    await asyncio.sleep(0)
                asked += together
    finally:
        await server.stop()
    return asked


def _check(fuzzed: list[Case], cache: Path, caplog: pytest.LogCaptureFixture) -> Counter[int]:
    """Ask all of it, and check every answer; how many had which status."""
    with caplog.at_level(logging.INFO, logger="aks_serving"):
        asked = asyncio.run(_answered(fuzzed, cache))
    told = [record.message for record in caplog.records]
    assert [m for m in told[told.index("all is loaded") :] if "went wrong" in m] == []
    assert [r.message for r in caplog.records[told.index("all is loaded") :] if r.levelno >= logging.WARNING] == []
    for one in asked:
        (answer,) = one.answers
        if answer.head.status == 200:
            assert _is_right(one, answer), one.case
        else:
            assert 400 <= answer.head.status < 500, (answer.head.status, answer.body, one.case)
            assert set(json.loads(answer.body)) == {"error"}
            assert 10 < len(json.loads(answer.body)["error"]) < 3000, one.case
    return Counter(one.answers[0].head.status for one in asked)


def test_ten_thousand_wrong_requests_are_refused_or_answered_rightly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    statuses = _check(cases(2026, 10_000), tmp_path / "cache", caplog)
    # Both happen, and often: wrong requests that are all refused at the first brace would show little.
    assert statuses[200] > 1000
    assert statuses[400] > 5000
    assert statuses[413] > 5


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10))
def test_many_more_wrong_requests(tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int) -> None:
    assert _check(cases(seed, 30_000), tmp_path / "cache", caplog)[200] > 3000


def _is_right(one: _Asked, answer: Response) -> bool:
    """Whether an answer is what the request, read in another way, asks for."""
    headers = one.case.headers
    body = decoded(one.case.body, headers.get(b"content-encoding", b""), _MAX_BODY_BYTES)
    length = headers.get(b"inference-header-content-length")
    told = dict((*answer.head.headers, *answer.extra))
    given = decoded(answer.body, told.get(b"content-encoding", b""), 1 << 24)
    end = int(told.get(b"inference-header-content-length", len(given)))
    header = json.loads(given[:end])
    found = _tensors(header["outputs"], given[end:])
    if length is not None and int(length) == 0:
        return True  # a body that is data alone: another test
    # What the server does not read may be anything, and is.
    asked = json.loads(body[: len(body) if length is None else int(length)].decode(errors="replace"))
    sent = _tensors(asked["inputs"], body[len(body) if length is None else int(length) :])
    if any((output.get("parameters") or {}).get("classification") for output in asked.get("outputs") or []):
        return True
    wanted = _wanted(one.case.endpoint, sent)
    names = [output["name"] for output in asked.get("outputs") or []] or list(wanted)
    return (
        header.get("id") == asked.get("id")
        and sorted(found) == sorted(names)
        and all(_equal(found[name], wanted[name]) for name in names)
    )


def _wanted(endpoint: str, sent: dict[str, Array]) -> dict[str, Array]:
    match endpoint:
        case "churn":
            return {"y": sent["x"] * np.float32(2)}
        case "several":
            total = sent["age"].astype(np.float32) + sent["income"]
            return {"sum": total, "label": sent["plan"], "adult": sent["age"] > 17}
    return {"y": sent["x"]}


def _tensors(described: list[dict[str, Any]], binary: bytes) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for tensor in described:
        dtype = DTYPES[tensor["datatype"]]
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            values = [float(value) if isinstance(value, str) and dtype.kind in "fV" else value
                      for value in _flat(tensor["data"])]  # fmt: skip
            array = np.array(values, np.float64).astype(dtype) if dtype.kind in "fV" else np.array(values, dtype)
        else:
            raw, binary = binary[:size], binary[size:]
            array = _texts(raw) if dtype.kind == "O" else np.frombuffer(raw, dtype)
        found[tensor["name"]] = array.reshape(tensor["shape"])
    assert binary == b""
    return found


def _flat(data: Any) -> list[Any]:
    return [value for part in data for value in _flat(part)] if isinstance(data, list) else [data]


def _texts(raw: bytes) -> Array:
    texts = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        texts.append(raw[4:end].decode())
        raw = raw[end:]
    return np.array(texts, np.object_)


def _equal(found: Array, wanted: Array) -> bool:
    if wanted.dtype.kind == "V":
        found, wanted = found.astype(np.float32), wanted.astype(np.float32)
    return found.dtype == wanted.dtype and np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f")
