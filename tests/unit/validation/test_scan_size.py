"""An ONNX file larger than a protobuf message can be is refused before it is walked."""

from pathlib import Path

import pytest

from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.scan import MAX_MODEL_BYTES, scan_model


def test_a_file_that_no_library_could_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    with pytest.raises(DropRefusedError, match="external data") as refused:
        scan_model(path)
    assert refused.value.code is RefusalCode.TOO_LARGE
