"""What `slipway push` puts into storage, and how it waits for the decision."""

from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient

from cli.upload import upload
from local.system import create_storage
from shared.core.ids import model_name
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway

M = model_name("m")


@pytest.mark.azurite
def test_the_same_bytes_are_one_blob_and_others_another(storage: str, tmp_path: Path) -> None:
    create_storage(storage)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"one")
    first, again = upload(storage, file, M), upload(storage, file, M)
    file.write_bytes(b"two")
    other = upload(storage, file, M)
    assert (first.blob, first.etag) == (again.blob, again.etag)
    assert (first.created, again.created, other.created) == (True, False, True)
    assert other.blob != first.blob
    with BlobServiceClient.from_connection_string(storage) as service:
        stored = service.get_blob_client("incoming", other.blob).download_blob().readall()
    assert stored == b"two"


@pytest.mark.azurite
def test_an_upload_tells_how_far_it_is(storage: str, tmp_path: Path) -> None:
    create_storage(storage)
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(20_000_000))
    said: list[str] = []
    blob = upload(storage, file, M, say=said.append).blob
    assert said[0] == f"uploading {blob}: 0.0 of 20.0 MB"
    assert said[-1] == f"uploading {blob}: 20.0 of 20.0 MB"
    assert len(said) > 2


@pytest.mark.azurite
@pytest.mark.parametrize(("state", "exit_code"), [("validated", 0), ("rejected", 1)])
def test_a_push_waits_for_the_decision_on_its_own_drop(
    slipway: Slipway, api: FakeApi, storage: str, tmp_path: Path, state: str, exit_code: int
) -> None:
    create_storage(storage)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    dropped = upload(storage, file, M)
    older = {"blob": dropped.blob, "etag": "0xOLD", "state": "refused", "reason": "older", "version": None}
    drop = {"blob": dropped.blob, "etag": dropped.etag, "state": "registered", "reason": "", "version": 4}
    listing = {"items": [older, drop], "continuation": None}
    version = {"model": "m", "version": 4, "state": state, "validation": None}
    api.answers["GET /api/models/m/drops"] = [
        (200, {"items": [older], "continuation": None}),
        (200, listing),
        (200, listing),
    ]
    api.answers["GET /api/models/m/versions/4"] = [(200, version | {"state": "registered"}), (200, version)]
    ran = slipway("push", str(file), "--model", "m", "--storage", storage, "--wait", "--json")
    assert ran.code == exit_code
    assert ran.json["drop"] == drop
    assert ran.json["version"]["state"] == state


@pytest.mark.azurite
def test_a_refused_drop_fails_the_push_and_says_why(
    slipway: Slipway, api: FakeApi, storage: str, tmp_path: Path
) -> None:
    create_storage(storage)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    dropped = upload(storage, file, M)
    drop = {"blob": dropped.blob, "etag": dropped.etag, "state": "refused", "reason": "not ONNX", "version": None}
    api.answers["GET /api/models/m/drops"] = (200, {"items": [drop], "continuation": None})
    ran = slipway("push", str(file), "--model", "m", "--storage", storage, "--wait")
    assert ran.code == 1
    assert "refused: not ONNX" in ran.out


@pytest.mark.azurite
def test_a_push_that_is_not_decided_in_time_says_where_to_look(
    slipway: Slipway, api: FakeApi, storage: str, tmp_path: Path
) -> None:
    create_storage(storage)
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    api.answers["GET /api/models/m/drops"] = (200, {"items": [], "continuation": None})
    ran = slipway("push", str(file), "--model", "m", "--storage", storage, "--wait", "--timeout", "0")
    assert ran.code == 1
    assert "slipway status m" in ran.err


@pytest.mark.azurite
def test_storage_without_its_container_is_told_plainly(slipway: Slipway, storage: str, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    ran = slipway("push", str(file), "--model", "m", "--storage", storage)
    assert ran.code == 1
    assert "storage did not take the upload" in ran.err
    assert ran.err.count("\n") == 1
