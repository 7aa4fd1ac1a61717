"""What `slipway push --as-folder` makes of a folder: its files, and at last the manifest that names them."""

from pathlib import Path

import pytest

from cli.folder import folder_drop
from shared.core.errors import InvalidInputError
from shared.core.ids import model_name
from shared.registration.documents import DropState
from shared.registry.manifest import parse_manifest
from shared.store.ports import BlobContainer
from tests.unit.cli.conftest import Slipway
from tests.unit.cli.test_push import FILES, folder_with
from tests.world.test_registration import sha256
from tests.world.world import World

M = model_name("m")
DIGESTS = {name: sha256(data) for name, data in FILES.items() if name != "slipway.yaml"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_with(tmp_path / "My Folder", FILES | {".git/config": b"-"})


@pytest.mark.parametrize("end", ["\n", "", "\n\n# a last word\n"])
def test_a_manifest_without_files_is_given_them_and_keeps_its_text(folder: Path, end: str) -> None:
    (folder / "slipway.yaml").write_text(f"# mine\ntask: classification{end}")
    drop = folder_drop(folder)
    assert drop.manifest.startswith(f"# mine\ntask: classification{end}".encode())
    assert parse_manifest(drop.manifest).files == DIGESTS
    assert list(drop.files) == ["data/rows.npz", "model.onnx"]


@pytest.mark.parametrize("key", ["files", '"files"', "'files' "])
def test_a_manifest_that_names_files_is_pushed_as_it_is(folder: Path, key: str) -> None:
    text = f"task: classification\n{key}: {{}}\n".encode()
    (folder / "slipway.yaml").write_bytes(text)
    assert folder_drop(folder).manifest == text


def test_what_the_push_makes_is_registered_as_it_comes(tmp_path: Path) -> None:
    # Names that a YAML parser would take for something else than text.
    files = {"1e5": b"1", "null": b"2", "0x10": b"3", "model.onnx": b"graph"}
    world = World()

    def put(name: str, data: bytes) -> None:
        world.blobs.put(BlobContainer.INCOMING, f"{M}/drop/{name}", data, {})

    path = folder_with(tmp_path / "f", files | {"slipway.yaml": b"task: classification"})
    manifest = folder_drop(path).manifest
    for name, data in files.items():
        put(name, data)
        drop = world.registration.register(f"{M}/drop/{name}")
        assert drop is not None
        assert drop.state is DropState.WAITING
    put("slipway.yaml", manifest)
    drop = world.registration.register(f"{M}/drop/slipway.yaml")
    assert drop is not None
    assert (drop.state, drop.reason, drop.waiting_for) == (DropState.REGISTERED, "", [])


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"model.onnx": b"m"}, "has no slipway.yaml"),
        ({"slipway.yaml": b"task: classification\n", "model.sig": b"s"}, "sign again"),
        ({"slipway.yaml": b"{task: classification}\n"}, "key: value"),
        ({"slipway.yaml": b"task: classification\n...\n"}, "key: value"),
        ({"slipway.yaml": b"\xff"}, "not text in UTF-8"),
    ],
)
def test_a_folder_that_cannot_be_pushed_so_is_told_why(tmp_path: Path, files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        folder_drop(folder_with(tmp_path / "f", files))


def test_a_link_to_a_directory_is_refused_by_name_rather_than_left_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="linked is a link to a directory"):
        folder_drop(folder)


def test_a_signature_is_not_named_by_the_manifest(folder: Path) -> None:
    text = b"task: classification\nfiles: {}\n"
    folder_with(folder, {"slipway.yaml": text, "model.sig": b"s"})
    drop = folder_drop(folder)
    assert "model.sig" in drop.files
    assert drop.manifest == text


def test_the_same_folder_is_the_same_drop_and_any_change_another(folder: Path, tmp_path: Path) -> None:
    again = folder_with(tmp_path / "again", dict(reversed(FILES.items())))
    assert folder_drop(folder).digest == folder_drop(again).digest
    (again / "data" / "rows.npz").write_bytes(b"others")
    assert folder_drop(folder).digest != folder_drop(again).digest


def test_a_file_cannot_be_pushed_as_a_folder(slipway: Slipway, folder: Path) -> None:
    ran = slipway("push", str(folder / "model.onnx"), "--as-folder", "--model", "m", "--storage", "x")
    assert ran.code == 2
    assert "is no folder" in ran.err
