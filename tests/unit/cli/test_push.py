"""What `slipway push` makes of files and folders, and what it puts into storage."""

import os
import zipfile
from pathlib import Path

import pytest

from cli.folder import pack
from cli.upload import blob_name, upload
from local.processes import free_port
from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.ids import model_name
from tests.unit.cli.conftest import Slipway

M = model_name("m")


def folder_with(path: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


FILES = {"slipway.yaml": b"task: classification\n", "model.onnx": b"model", "data/rows.npz": b"rows"}


def test_the_same_files_pack_to_the_same_bytes(tmp_path: Path) -> None:
    one = folder_with(tmp_path / "one", FILES)
    two = folder_with(tmp_path / "two", dict(reversed(FILES.items())))
    os.utime(two / "model.onnx", (1, 1))
    (two / "model.onnx").chmod(0o600)
    pack(one, tmp_path / "one.zip")
    pack(two, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_pack_holds_every_file_but_hidden_ones(tmp_path: Path) -> None:
    folder = folder_with(tmp_path / "f", FILES | {".git/config": b"-", ".DS_Store": b"-", "data/.hidden": b"-"})
    pack(folder, tmp_path / "f.zip")
    with zipfile.ZipFile(tmp_path / "f.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.testzip() is None


def test_a_folder_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="holds no files"):
        pack(tmp_path, tmp_path.parent / "none.zip")


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("model.onnx", "m/0123456789abcdef-model.onnx"),
        ("My Model (2).ONNX", "m/0123456789abcdef-My-Model-2.onnx"),
        ("--.onnx", "m/0123456789abcdef-model.onnx"),
        ("möd/el.zip", "m/0123456789abcdef-el.zip"),
        ("x" * 300 + ".zip", "m/0123456789abcdef-" + "x" * 80 + ".zip"),
    ],
)
def test_a_drops_name_is_one_plain_name_under_the_model(filename: str, expected: str) -> None:
    name = blob_name(M, filename, "0123456789abcdef" * 4)
    assert name == expected


def test_a_connection_string_that_is_none_is_wrong_usage(slipway: Slipway, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    ran = slipway("push", str(file), "--model", "m", "--storage", "nonsense")
    assert ran.code == 2
    assert "nonsense" not in ran.err


@pytest.mark.parametrize("name", ["model.pkl", "model", "model.onnx.txt"])
def test_a_file_of_another_form_is_not_uploaded(slipway: Slipway, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"bytes")
    ran = slipway("push", str(tmp_path / name), "--model", "m", "--storage", "UseDevelopmentStorage=true")
    assert ran.code == 2


def test_storage_that_is_down_is_not_reachable(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    endpoint = f"http://127.0.0.1:{free_port()}/a"
    with pytest.raises(UnavailableError, match="is the system up"):
        upload(f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint={endpoint};", file, M)
