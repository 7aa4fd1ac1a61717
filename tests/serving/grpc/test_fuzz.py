"""Whatever bytes are sent as a request, the answer is right or it is the caller's error: never the server's."""

import asyncio
import logging
import random
from collections import Counter
from typing import Any

import grpc
import pytest

from tests.serving import models
from tests.serving.fakes import MemoryStorage
from tests.serving.grpc.cases import array, publish, request, tensor, typed
from tests.serving.grpc.conftest import Reach

pytestmark = pytest.mark.anyio

_CALLERS_ERRORS = {"INVALID_ARGUMENT", "NOT_FOUND", "DEADLINE_EXCEEDED"}


def _seeds() -> list[bytes]:
    """Requests of all kinds, most of them good."""
    full = request(1, 2, model_version="1", id="some id")
    full.parameters["timeout"].int64_param = 1_000_000
    full.parameters["priority"].uint64_param = 1
    full.parameters["user_id"].string_param = "ada"
    full.outputs.add(name="y").parameters["classification"].int64_param = 1
    texts = request(model="texts")
    texts.ClearField("inputs")
    texts.ClearField("raw_input_contents")
    given = tensor(array("BYTES", 2, 3), "BYTES")
    texts.inputs.append(given._get_tensor())
    texts.raw_input_contents.append(given._get_content())
    return [
        message.SerializeToString()
        for message in (
            full,
            request(1, 2, 3),
            texts,
            typed("FP32", [1, 2], 1, 2),
            typed("BYTES", ["a", "b"], 2, model="texts"),
            typed("BOOL", [True, False], 2, model="truths"),
        )
    ]


def _mutated(data: bytes, seeds: list[bytes], chance: random.Random) -> bytes:
    """The bytes with some flipped, cut out, put in, or continued by another request's."""
    mutant = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(mutant)) if mutant else 0
        match chance.randrange(5):
            case 0 if mutant:
                mutant[at] ^= 1 << chance.randrange(8)
            case 1 if mutant:
                mutant[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 2:
                del mutant[at : at + chance.randint(1, 6)]
            case 3:
                mutant[at:at] = chance.randbytes(chance.randint(1, 6))
            case _:
                mutant[at:] = chance.choice(seeds)[at:]
    return bytes(mutant)


async def _fuzz(reach: Reach, storage: MemoryStorage, rounds: int, seed: int) -> Counter[str]:
    publish(storage, models.scaler(2.0), texts=models.identity("BYTES", None), truths=models.identity("BOOL", None))
    chance, seeds = random.Random(seed), _seeds()
    async with reach() as reached:
        call = reached.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")

        async def code(data: bytes) -> str:
            try:
                await call(data)
            except grpc.aio.AioRpcError as error:
                name: str = error.code().name
                return name
            return "OK"

        assert Counter([await code(data) for data in seeds]) == {"OK": 5, "INVALID_ARGUMENT": 1}
        found: Counter[str] = Counter()
        for _ in range(rounds // 100):
            mutants = [_mutated(chance.choice(seeds), seeds, chance) for _ in range(100)]
            codes = await asyncio.gather(*map(code, mutants))
            bad = [
                (name, data) for name, data in zip(codes, mutants, strict=True) if name not in {"OK", *_CALLERS_ERRORS}
            ]
            assert not bad, bad[0]
            found.update(codes)
    return found


async def test_two_thousand_mutated_requests_get_an_answer_or_a_callers_error(
    reach: Reach, storage: MemoryStorage, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = await _fuzz(reach, storage, rounds=2_000, seed=4)
    assert found["OK"] > 50
    assert found["INVALID_ARGUMENT"] > 500
    assert found["NOT_FOUND"] > 20
    assert not caplog.records


@pytest.mark.long
@pytest.mark.parametrize("seed", range(5))
async def test_many_more_mutated_requests(reach: Reach, storage: MemoryStorage, seed: int) -> None:
    found: Any = await _fuzz(reach, storage, rounds=20_000, seed=seed)
    assert found["INVALID_ARGUMENT"] > 5_000
