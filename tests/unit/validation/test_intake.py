"""Which drops are well formed. In this process; test_sandbox.py does it in the sandbox's."""

import subprocess
import sys
from pathlib import Path

import pytest
from onnx import helper

from shared.registry.manifest import Manifest, Task
from shared.validation.intake import take_in
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.wire import IntakeTask
from tests.unit.validation.drops import (
    LIMIT_BYTES,
    MANIFEST,
    bundle,
    forest,
    good_bundle,
    ignore,
    npz,
    refusal,
    scorer,
    scorer_rows,
)


def taken(folder: Path, content: bytes, filename: str, *, file_bytes: int = LIMIT_BYTES) -> Manifest:
    (folder / "drop").write_bytes(content)
    (folder / "work").mkdir(exist_ok=True)
    task = IntakeTask(path=folder / "drop", filename=filename)
    return take_in(task, workdir=folder / "work", file_bytes=file_bytes, begin=ignore).manifest


def refused(folder: Path, content: bytes, filename: str, *, file_bytes: int = LIMIT_BYTES) -> tuple[str, str]:
    with pytest.raises(DropRefusedError) as caught:
        taken(folder, content, filename, file_bytes=file_bytes)
    return refusal(caught.value)


def test_a_bundle_is_unpacked_under_names_of_our_own(tmp_path: Path) -> None:
    model, rows, _ = forest()
    manifest = b"task: classification\nmodel: forest.onnx\nvalidation: holdout.npz\nreference: usual.npz"
    files = {"forest.onnx": model, "slipway.yaml": manifest, "holdout.npz": rows, "usual.npz": npz({"X": [[1.0]]})}
    assert taken(tmp_path, bundle(files), "b.zip").model == "forest.onnx"
    assert {path.name: path.read_bytes() for path in (tmp_path / "work").glob("part-*")} == {
        "part-1": model,
        "part-2": rows,
        "part-3": files["usual.npz"],
    }


@pytest.mark.parametrize("filename", ["m.onnx", "M.ONNX", "a b.v2.onnx"])
def test_a_bare_model_is_taken_for_a_classifier(tmp_path: Path, filename: str) -> None:
    assert taken(tmp_path, scorer().SerializeToString(), filename) == Manifest(task=Task.CLASSIFICATION)


def test_a_bare_model_may_name_its_task(tmp_path: Path) -> None:
    model = scorer()
    helper.set_model_props(model, {"slipway.task": "regression"})
    assert taken(tmp_path, model.SerializeToString(), "m.onnx").task is Task.REGRESSION
    helper.set_model_props(model, {"slipway.task": "guessing"})
    code, said = refused(tmp_path, model.SerializeToString(), "m.onnx")
    assert code == RefusalCode.BAD_MANIFEST
    assert "the model's metadata: task is 'guessing': Input should be 'classification' or 'regression'" in said


@pytest.mark.parametrize("filename", ["m.pkl", "m", "onnx", "m.onnx.gz", ""])
def test_another_ending_is_refused(tmp_path: Path, filename: str) -> None:
    assert refused(tmp_path, scorer().SerializeToString(), filename)[0] == RefusalCode.UNKNOWN_FORM


def test_the_content_must_be_what_the_ending_says(tmp_path: Path) -> None:
    assert refused(tmp_path, good_bundle(), "m.onnx")[0] == RefusalCode.NOT_ONNX
    assert refused(tmp_path, scorer().SerializeToString(), "m.zip")[0] == RefusalCode.NOT_ZIP


@pytest.mark.parametrize(
    ("content", "code", "said"),
    [
        (good_bundle(manifest=None), RefusalCode.MISSING_FILE, "no slipway.yaml"),
        (good_bundle(model=None), RefusalCode.MISSING_FILE, "'model.onnx'"),
        (good_bundle(rows=None), RefusalCode.MISSING_FILE, "'rows.npz'"),
        (good_bundle(manifest=b"task: classification"), RefusalCode.UNEXPECTED_FILE, "'rows.npz'"),
        (good_bundle(manifest=MANIFEST + b"trees: 3"), RefusalCode.BAD_MANIFEST, "unknown key 'trees'"),
        (good_bundle(manifest=b"x" * 70_000), RefusalCode.TOO_LARGE, "'slipway.yaml' is larger"),
        (good_bundle(model=b"no model"), RefusalCode.NOT_ONNX, "not an ONNX model"),
        (good_bundle(model=good_bundle()), RefusalCode.NOT_ONNX, "not an ONNX model"),
        (good_bundle(rows=b"1,2,3"), RefusalCode.BAD_DATA, "rows.npz is not a readable zip archive"),
        (good_bundle(rows=npz({"x": [1], "label": [1, 2]})), RefusalCode.BAD_DATA, "differ in rows"),
        (bundle({"slipway.yaml": MANIFEST, "../model.onnx": b""}), RefusalCode.UNSAFE_PATH, "'../model.onnx'"),
    ],
)
def test_a_bundle_that_is_not_whole_or_not_plain_is_refused(
    tmp_path: Path, content: bytes, code: RefusalCode, said: str
) -> None:
    found, sentence = refused(tmp_path, content, "b.zip")
    assert found == code
    assert said in sentence


def test_a_drop_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    content = scorer().SerializeToString()
    code, said = refused(tmp_path, content, "m.onnx", file_bytes=len(content) - 1)
    assert code == RefusalCode.TOO_LARGE
    assert f"at most {len(content) - 1}" in said
    taken(tmp_path, content, "m.onnx", file_bytes=len(content))


def test_a_data_file_that_expands_beyond_what_is_allowed_is_refused(tmp_path: Path) -> None:
    rows = npz({"x": [[0.0] * 3] * 200_000, "label": [0] * 200_000})
    assert len(rows) < 100_000
    assert refused(tmp_path, good_bundle(rows=rows), "b.zip", file_bytes=1_000_000)[0] == RefusalCode.TOO_LARGE


def test_a_bundle_cut_at_any_byte_is_refused(tmp_path: Path) -> None:
    content = good_bundle(rows=npz(scorer_rows(3)))
    for length in range(len(content)):
        assert refused(tmp_path, content[:length], "b.zip")[0] == RefusalCode.NOT_ZIP


def test_a_damaged_archive_is_refused_before_any_library_loads(tmp_path: Path) -> None:
    (tmp_path / "drop").write_bytes(b"PK\x03\x04 and no more")
    code = (
        "import sys, pathlib\n"
        "from shared.validation.intake import take_in\n"
        "from shared.validation.wire import IntakeTask\n"
        "task = IntakeTask(path=pathlib.Path(sys.argv[1]), filename='b.zip')\n"
        "try:\n"
        "    take_in(task, workdir=pathlib.Path(), file_bytes=99, begin=lambda stage: None)\n"
        "except Exception as error:\n"
        "    print(error.code, *{'numpy', 'onnx', 'onnxruntime', 'yaml'} & set(sys.modules))\n"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "drop"], check=True, capture_output=True, text=True)
    assert run.stdout == "not_zip\n"
