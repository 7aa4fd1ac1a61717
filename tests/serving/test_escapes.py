"""An escape that is half of a surrogate pair is no character, and its sender is told so."""

import json

import httpx
import msgspec
import pytest
from aks_serving.escapes import why

from tests.serving import models
from tests.serving.conftest import Running, Start
from tests.serving.fakes import MemoryStorage

TENSOR = '{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2]}'


async def _answers(running: Running, text: str) -> list[httpx.Response]:
    """To a text that stands, as JSON, where each of the readers meets one."""
    bodies = [
        ("/predict", '{"features":[[1,2]],"user_id":"%s"}'),
        ("/predict", '{"features":[[1,2]],"user_id":"%s","model":"churn"}'),
        ("/predict", '{"features":[["%s",2]]}'),
        ("/predict", '[{"a":"%s"}]'),
        ("/v2/models/churn/infer", '{"inputs":[' + TENSOR + '],"id":"%s"}'),
        ("/v2/models/churn/infer", '{"id":"%s","inputs":[' + TENSOR + "]}"),
    ]
    return [await running.client.post(path, content=(body % text).encode()) for path, body in bodies]


@pytest.mark.anyio
async def test_half_of_a_pair_is_told_of_where_it_stands(start: Start, storage: MemoryStorage) -> None:
    data = models.scaler(2.0)
    storage.put(data)
    storage.publish(models.plan(1, models.route(1, data)))
    async with start() as running:
        await running.reload()
        for half in (r"\ud800", r"\uDC00", r"\ud800x", r"\ud800\u0041", r"\ud83d\ude00\ud800", r"\\\n\ud800\ud800"):
            for answer in await _answers(running, half):
                assert answer.status_code == 400
                assert " is half of a surrogate pair, and no character: send both" in answer.json()["error"], half
        for whole in (r"\ud83d\ude00", r"\\ud800", r"\u0041\/\n"):
            answers = await _answers(running, whole)
            assert not any("surrogate" in answer.text for answer in answers)
            assert [answers[place].status_code for place in (0, 1, 4, 5)] == [200] * 4


def _said(text: bytes) -> tuple[str, str]:
    """What is told of a text, and what the decoder says."""
    with pytest.raises(msgspec.DecodeError) as caught:
        msgspec.json.decode(text)
    return why(caught.value, text), str(caught.value)


@pytest.mark.parametrize("text", [b'"\\\\ud800', b'["\\ud83d\\ude00"', b'"a', b'"\\u12"    ', b'["\\x", "\\ud800"]'])
def test_other_faults_are_told_of_as_the_decoder_has_them(text: bytes) -> None:
    told, said = _said(text)
    assert told == said


def test_the_half_that_is_told_of_is_the_first_and_its_place_is() -> None:
    text = json.dumps("\\ud800 \N{GRINNING FACE} \ud801 \udc01").encode()
    assert _said(text)[0].startswith(f"\\ud801 (byte {text.index(rb'\ud801')}) is half")
