"""Makes drops of several files: folders, bundles and MLflow models, with tensors outside the model."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import yaml
from onnx import TensorProto as Type
from onnx import helper

from shared.registry.policy import SigningPolicy
from shared.validation.intake import take_in
from shared.validation.wire import Accepted, IntakeTask
from tests.unit.validation.drops import LIMIT_BYTES, bundle, ignore, npz, onnx_model, scorer_rows

WEIGHTS = np.eye(3, dtype=np.float32)
MLMODEL = b"""
artifact_path: model
flavors:
  onnx:
    code: null
    data: model.onnx
    onnx_session_options: null
    onnx_version: 1.18.0
    providers:
    - CUDAExecutionProvider
    - CPUExecutionProvider
  python_function:
    data: model.onnx
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.onnx
    python_version: 3.12.3
is_signature_from_type_hint: false
metadata:
  slipway_author: someone@example.org
  stage: 7
mlflow_version: 3.4.0
model_id: m-0123456789abcdef0123456789abcdef
model_size_bytes: 512
model_uuid: m-0123456789abcdef0123456789abcdef
prompts: null
run_id: fedcba9876543210fedcba9876543210
signature:
  inputs: '[{"type": "double", "name": "height", "required": true}, {"type": "double",
    "name": "width", "required": true}, {"type": "double", "name": "depth", "required":
    true}]'
  outputs: '[{"type": "long", "name": "label", "required": true}]'
  params: null
type_hint_from_example: false
utc_time_created: '2026-05-04 03:02:01.000999'
"""
"""An MLmodel as MLflow 3 writes it for a logged ONNX model."""


def outside_model(location: str = "weights.bin") -> onnx.ModelProto:
    """A classifier by scores, as `scorer`, whose weights lie in a file of their own."""
    weights = onnx.TensorProto(name="w", dims=WEIGHTS.shape, data_type=Type.FLOAT, data_location=Type.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", str(WEIGHTS.nbytes))):
        weights.external_data.add(key=key, value=value)
    return onnx_model(
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["scores"], axis=1)],
        [("x", Type.FLOAT, ["rows", 3])],
        [("scores", Type.FLOAT, ["rows", 3])],
        constants=[weights],
    )


def outside_files(location: str = "weights.bin") -> dict[str, bytes]:
    """A model with its weights outside, and data to measure it on, without a manifest."""
    return {
        "model.onnx": outside_model(location).SerializeToString(),
        location: WEIGHTS.tobytes(),
        "data/rows.npz": npz(scorer_rows(5)),
    }


def manifest(**values: object) -> bytes:
    """A manifest in YAML."""
    return yaml.safe_dump({"task": "classification", **values}).encode()


def listed(files: Mapping[str, bytes], **values: object) -> dict[str, bytes]:
    """A folder of these files with a manifest that names each with its digest."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, "slipway.yaml": manifest(files=digests, **values)}


def taken_folder(
    place: Path, files: Mapping[str, bytes], *, signing: SigningPolicy | None = None, file_bytes: int = LIMIT_BYTES
) -> Accepted:
    """What intake says of a folder with these files."""
    place.mkdir(exist_ok=True)
    paths = {}
    for number, (name, content) in enumerate(files.items()):
        paths[name] = place / f"downloaded-{number}"
        paths[name].write_bytes(content)
    task = IntakeTask(filename="folder", folder=paths, signing=signing or SigningPolicy())
    (place / "work").mkdir(exist_ok=True)
    return take_in(task, workdir=place / "work", file_bytes=file_bytes, begin=ignore)


def taken_bundle(
    place: Path, files: Mapping[str, bytes], *, signing: SigningPolicy | None = None, file_bytes: int = LIMIT_BYTES
) -> Accepted:
    """What intake says of a bundle with these files."""
    place.mkdir(exist_ok=True)
    (place / "drop").write_bytes(bundle(files))
    task = IntakeTask(path=place / "drop", filename="drop.zip", signing=signing or SigningPolicy())
    workdir = place / "work"
    workdir.mkdir(exist_ok=True)
    for left in workdir.iterdir():
        left.unlink()
    return take_in(task, workdir=workdir, file_bytes=file_bytes, begin=ignore)
