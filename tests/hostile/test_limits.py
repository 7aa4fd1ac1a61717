"""Limits that need a while to be reached, each by a real child."""

from pathlib import Path

from shared.validation.process import SandboxLimits
from tests.hostile import models
from tests.hostile.looked_at import looked_at


def test_a_model_that_never_ends_is_stopped_when_its_time_is_up(tmp_path: Path) -> None:
    (tmp_path / "drop").write_bytes(models.endless())
    check, sentence = looked_at(tmp_path, "m.onnx", SandboxLimits(wall_s=10, cpu_s=100))
    assert check == "sandbox"
    assert sentence.startswith("validation took longer than 10 s while ")
