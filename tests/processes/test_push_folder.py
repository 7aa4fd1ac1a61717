"""What `slipway push --as-folder` puts into storage, in which order, and how it waits for the decision."""

import dataclasses
from pathlib import Path

import pytest
from azure.storage.blob import ContainerClient

from cli.folder import folder_drop
from cli.upload import upload_folder
from local.system import create_storage
from shared.core.ids import model_name
from tests.unit.cli.api import FakeApi
from tests.unit.cli.conftest import Slipway
from tests.unit.cli.test_push import FILES, folder_with

M = model_name("m")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "My Folder", FILES | {".git/config": b"-"})


def listed(storage: str, prefix: str = "") -> dict[str, str]:
    with ContainerClient.from_connection_string(storage, "incoming") as container:
        return {found.name: str(found.etag).strip('"') for found in container.list_blobs(prefix)}


@pytest.mark.azurite
def test_the_manifest_is_uploaded_last_and_a_push_that_broke_off_goes_on(
    storage: str, folder: Path, tmp_path: Path
) -> None:
    create_storage(storage)
    drop = folder_drop(folder)
    broken = dataclasses.replace(drop, files={**drop.files, "model.onnx": tmp_path / "gone"})
    with pytest.raises(FileNotFoundError):
        upload_folder(storage, broken, M)
    name = f"m/{drop.digest[:16]}-My-Folder/"
    first = listed(storage)
    assert list(first) == [name + "data/rows.npz"]
    done = upload_folder(storage, drop, M)
    assert (done.blob, done.created) == (name, True)
    then = listed(storage)
    assert then.keys() == {name + file for file in FILES}
    assert then[name + "data/rows.npz"] == first[name + "data/rows.npz"]
    assert then[name + "slipway.yaml"] == done.etag
    again = upload_folder(storage, drop, M)
    assert dataclasses.replace(again, created=True) == done
    assert not again.created


@pytest.mark.azurite
def test_a_push_of_a_folder_waits_for_the_decision_on_it(
    slipway: Slipway, api: FakeApi, storage: str, folder: Path
) -> None:
    create_storage(storage)
    dropped = upload_folder(storage, folder_drop(folder), M)
    waiting = {"blob": dropped.blob, "etag": "", "state": "waiting", "waiting_for": ["slipway.yaml"], "version": None}
    drop = waiting | {"etag": dropped.etag, "state": "registered", "waiting_for": [], "version": 4}
    pages = [{"items": [each], "continuation": None} for each in (waiting, drop)]
    api.answers["GET /api/models/m/drops"] = [(200, page) for page in pages]
    api.answers["GET /api/models/m/versions/4"] = (200, {"version": 4, "state": "validated", "validation": None})
    ran = slipway("push", str(folder), "--as-folder", "--model", "m", "--storage", storage, "--wait", "--json")
    assert ran.code == 0
    assert (ran.json["blob"], ran.json["drop"]) == (dropped.blob, drop)


@pytest.mark.azurite
def test_a_push_that_is_not_decided_in_time_says_what_the_folder_waits_for(
    slipway: Slipway, api: FakeApi, storage: str, folder: Path
) -> None:
    create_storage(storage)
    dropped = upload_folder(storage, folder_drop(folder), M)
    waiting = {"blob": dropped.blob, "etag": dropped.etag, "state": "waiting", "waiting_for": ["model.sig"]}
    api.answers["GET /api/models/m/drops"] = (200, {"items": [waiting], "continuation": None})
    arguments = ("--model", "m", "--storage", storage, "--wait", "--timeout", "0")
    ran = slipway("push", str(folder), "--as-folder", *arguments)
    assert ran.code == 1
    assert "waits for model.sig" in ran.err
