"""The guide's first model, made, validated in the sandbox and asked as the guide says."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from cli.main import run
from tests.unit.project.repository import text_of
from tests.unit.project.test_documents import COMMAND, code_in, python_examples


def test_the_guides_first_model_is_validated_and_answers_what_the_guide_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    guide = text_of("docs/deployment.md")
    (example,) = python_examples(guide)
    exec(compile(example, "iris.py", "exec"), {"__name__": "__main__"})  # noqa: S102 - that is the test
    shown = [words.split() for line in code_in(guide) for words in COMMAND.findall(line)]
    (validate,) = [words for words in shown if words[0] == "validate"]
    assert run(validate) == 0, capsys.readouterr().err
    (pushed,) = [words for words in shown if words[0] == "push"]
    assert pushed[1] == validate[1]
    assert ["rollout", "watch", pushed[3]] in shown
    asked = set(re.findall(r'/predict -d \'\{"features": (\[.*?\])\}\'', guide))
    (row,) = asked
    with zipfile.ZipFile(pushed[1]) as archive:
        session = onnxruntime.InferenceSession(archive.read("model.onnx"), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    answer = session.run(None, {given.name: np.asarray(json.loads(row), dtype=np.float32)})
    assert answer[0].tolist() == [0]
