"""What `slipway push` makes of files and folders, and what it puts into storage."""

import os
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cli.client import Client
from cli.folder import pack
from cli.outcome import Json
from cli.push import wait_for_decision
from cli.target import Target
from cli.upload import Dropped, blob_name, upload
from local.processes import free_port
from shared.core.errors import InvalidInputError, UnavailableError
from shared.core.ids import model_name
from tests.unit.cli.api import FakeApi
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


STRANGE = """
import sys
from pathlib import Path
from cli.main import run
sys.exit(run(["push", sys.argv[1], "--model", "m", "--storage", sys.argv[2]]))
"""


class _Strange(BaseHTTPRequestHandler):
    """A storage that is out of order, and says so in no form of storage's."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(501)
        self.send_header("content-type", "application/xml")
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"oops")

    def log_message(self, *_: object) -> None:
        pass


def test_storage_that_is_out_of_order_is_told_in_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"bytes")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Strange) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/a"
        storage = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YQ==;BlobEndpoint={endpoint};"
        ran = subprocess.run(
            [sys.executable, "-c", STRANGE, str(file), storage], capture_output=True, text=True, check=False
        )
        server.shutdown()
    assert ran.returncode == 1
    assert ran.stderr.startswith("slipway: storage did not take the upload: ")
    assert ran.stderr.count("\n") == 1


def test_who_waits_is_told_how_far_the_drop_is(api: FakeApi) -> None:
    dropped = Dropped(blob="m/drop", etag="e", size_bytes=1, digest="d", created=True)
    drop: dict[str, Json] = {"blob": "m/drop", "etag": "e", "reason": "", "version": None}
    states: list[dict[str, Json]] = [
        {"state": "waiting", "waiting_for": ["model.onnx", "rows.csv"]},
        {"state": "registered", "version": 4},
        {"state": "refused"},
    ]
    listings: list[list[Json]] = [[], *([drop | state] for state in states)]
    api.answers["GET /api/models/m/drops"] = [(200, {"items": found, "continuation": None}) for found in listings]
    api.answers["GET /api/models/m/versions/4"] = (200, {"state": "validating"})
    said: list[str] = []
    with Client(Target(environment={}, url=api.url)) as client:
        found = wait_for_decision(client, M, dropped, timeout_s=60, say=said.append)
    assert found == {"drop": drop | states[-1]}
    assert said == [
        "m/drop is dropped and not looked at yet",
        "m/drop is dropped and waits for model.onnx; rows.csv",
        "m/drop is dropped and registered: version 4 is being validated",
        "m/drop is dropped and refused",
    ]
