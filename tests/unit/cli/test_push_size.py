"""`slipway push` asks for the limits first: what is too large is not uploaded; nobody stops who cannot ask."""

import zipfile
from pathlib import Path

import pytest

from cli.push_size import MAX_FILE_BYTES
from local.processes import free_port
from shared.registry.policy import Policy
from shared.routing import plan
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway
from tests.unit.cli.test_push import FILES, folder_with

NOWHERE = "nonsense"
"""No storage: whoever gets as far as an upload ends with 2."""
MODEL = len(FILES["model.onnx"])


@pytest.fixture
def drops(tmp_path: Path) -> dict[str, list[str]]:
    """A drop in each form, with a model of 5 bytes."""
    folder = folder_with(tmp_path / "folder", FILES)
    (tmp_path / "model.onnx").write_bytes(FILES["model.onnx"])
    with zipfile.ZipFile(tmp_path / "bundle.zip", "w") as bundle:
        for name, data in FILES.items():
            bundle.writestr(name, data)
    return {
        "file": [str(tmp_path / "model.onnx")],
        "bundle": [str(tmp_path / "bundle.zip")],
        "folder": [str(folder)],
        "folder, file by file": [str(folder), "--as-folder"],
    }


@pytest.mark.parametrize("form", ["file", "bundle", "folder", "folder, file by file"])
def test_a_model_above_its_policys_limit_is_not_uploaded(
    slipway: Slipway, api: FakeApi, drops: dict[str, list[str]], form: str
) -> None:
    policy = Policy().model_dump(mode="json")
    for limit, code in ((MODEL - 1, 1), (MODEL, 2)):
        policy["validation"]["max_size_bytes"] = limit
        api.answers["GET /api/models/m"] = (200, {"policy": policy})
        ran = slipway("push", *drops[form], "--model", "m", "--storage", NOWHERE)
        assert ran.code == code, ran.err
        if code == 1:
            assert "model.onnx has 5 bytes, and the policy of m allows 4 (validation.max_size_bytes)" in ran.err
            assert "`slipway policy set m`" in ran.err
    assert [asked.method for asked in api.asked] == ["GET", "GET"]


@pytest.mark.parametrize("form", ["file", "bundle", "folder", "folder, file by file"])
def test_what_the_policy_cannot_be_asked_for_is_left_to_the_intake(
    slipway: Slipway, bare: Slipway, api: FakeApi, drops: dict[str, list[str]], form: str
) -> None:
    for status in (401, 404, 500, 503):
        api.answers["GET /api/models/m"] = (status, {"error": {"code": "x", "message": "x"}})
        assert slipway("push", *drops[form], "--model", "m", "--storage", NOWHERE).code == 2
    nobody = f"http://127.0.0.1:{free_port()}"
    assert bare("push", *drops[form], "--model", "m", "--storage", NOWHERE, "--url", nobody).code == 2


def test_no_file_is_uploaded_that_is_larger_than_any_may_be(slipway: Slipway, tmp_path: Path) -> None:
    assert MAX_FILE_BYTES == plan.MAX_FILE_BYTES
    folder = folder_with(tmp_path / "folder", FILES)
    with (folder / "data" / "weights.bin").open("wb") as sparse:
        sparse.truncate(MAX_FILE_BYTES + 1)
    for form in ([], ["--as-folder"]):
        ran = slipway("push", str(folder), "--model", "m", "--storage", NOWHERE, *form)
        assert (ran.code, f"weights.bin has {MAX_FILE_BYTES + 1} bytes: a file may have at most" in ran.err) == (
            1,
            True,
        )


@pytest.mark.parametrize("data", [b"no zip", b"PK\x05\x06" + b"\xff" * 18])
def test_a_bundle_that_is_none_is_left_to_the_intake(slipway: Slipway, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bundle.zip").write_bytes(data)
    assert slipway("push", str(tmp_path / "bundle.zip"), "--model", "m", "--storage", NOWHERE).code == 2
