"""Bundles and folders of several files: which are whole, and what is said of those that are not."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from shared.validation.external import link_external
from shared.validation.intake import manifest_of_folder, take_in
from shared.validation.model import load
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.wire import Accepted, FileRole, IntakeTask, ModelFiles
from tests.unit.validation.drops import bundle, npz, scorer, scorer_rows
from tests.unit.validation.forms import (
    WEIGHTS,
    listed,
    manifest,
    outside_files,
    outside_model,
    taken_bundle,
    taken_folder,
)

VALIDATED = {"validation": "data/rows.npz"}
ROLES = [
    (FileRole.MODEL, "model.onnx"),
    (FileRole.VALIDATION, "data/rows.npz"),
    (FileRole.EXTERNAL, "weights.bin"),
]


def refused(take: Callable[[], Accepted]) -> tuple[RefusalCode, str]:
    with pytest.raises(DropRefusedError) as caught:
        take()
    return caught.value.code, str(caught.value)


def test_a_folder_is_taken_where_it_lies(tmp_path: Path) -> None:
    accepted = taken_folder(tmp_path, listed(outside_files(), **VALIDATED))
    assert [(file.role, file.name) for file in accepted.files] == ROLES
    assert all(file.file == file.name for file in accepted.files)
    assert list((tmp_path / "work").glob("part-*")) == []


@pytest.mark.parametrize("location", ["weights.bin", "deep/down/here/weights.bin"])
def test_a_bundle_is_unpacked_under_no_name_of_its_own_and_the_runtime_loads_it(tmp_path: Path, location: str) -> None:
    files = {**outside_files(location), "slipway.yaml": manifest(**VALIDATED)}
    accepted = taken_bundle(tmp_path, files)
    assert {path.name for path in (tmp_path / "work").glob("part-*")} == {"part-1", "part-2", "part-3"}
    parts = {file.name: tmp_path / "work" / file.file for file in accepted.files}
    assert {name: path.read_bytes() for name, path in parts.items()} == {
        name: content for name, content in files.items() if name != "slipway.yaml"
    }
    model = load(link_external(ModelFiles(path=parts["model.onnx"], external={location: parts[location]}), tmp_path))
    assert model.run({"x": WEIGHTS})["scores"].argmax(axis=1).tolist() == [0, 1, 2]


def test_a_bundle_may_have_members_for_its_directories(tmp_path: Path) -> None:
    files = {"data/": b"", **outside_files(), "slipway.yaml": manifest(**VALIDATED)}
    assert [(file.role, file.name) for file in taken_bundle(tmp_path, files).files] == ROLES


def test_several_files_of_tensors_and_one_that_is_named_and_not_used(tmp_path: Path) -> None:
    files = {**outside_files(), "notes/README.md": b"Read me."}
    assert [file.name for file in taken_folder(tmp_path, listed(files, **VALIDATED)).files] == [
        name for _, name in ROLES
    ]
    named = {"files": {"notes/README.md": f"sha256:{hashlib.sha256(b'Read me.').hexdigest()}"}}
    bundled = taken_bundle(tmp_path, {**files, "slipway.yaml": manifest(**VALIDATED, **named)})
    assert [file.name for file in bundled.files] == [name for _, name in ROLES]


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (
            {"weights.bin": None},
            RefusalCode.MISSING_FILE,
            "the folder lacks 'weights.bin', which its slipway.yaml names",
        ),
        ({"data/rows.npz": None}, RefusalCode.MISSING_FILE, "'data/rows.npz'"),
        ({"model.onnx": None}, RefusalCode.MISSING_FILE, "'model.onnx'"),
        ({"slipway.yaml": None}, RefusalCode.MISSING_FILE, "the folder has no slipway.yaml at its root"),
        ({"notes.txt": b"?"}, RefusalCode.UNEXPECTED_FILE, "the folder holds 'notes.txt', which `files`"),
        ({"weights.bin": bytes(36)}, RefusalCode.WRONG_DIGEST, "'weights.bin' has the SHA-256"),
        ({"../weights.bin": b""}, RefusalCode.UNSAFE_PATH, "a file named '../weights.bin'"),
        ({"a b.txt": b""}, RefusalCode.UNSAFE_PATH, "use letters, digits"),
        ({"a/b/c/d/e.txt": b""}, RefusalCode.UNSAFE_PATH, "nest at most three directories"),
        ({"data": b""}, RefusalCode.UNSAFE_PATH, "has 'data' as a file and as a directory: rename one"),
        ({f"f{i}": b"" for i in range(1_000)}, RefusalCode.TOO_LARGE, "has 1004 files: at most 1002"),
    ],
    ids=lambda value: next(iter(value))[:20] if isinstance(value, dict) else None,
)
def test_a_folder_that_is_not_whole_is_refused(
    tmp_path: Path, changes: Mapping[str, bytes | None], code: RefusalCode, said: str
) -> None:
    files: Mapping[str, bytes | None] = {**listed(outside_files(), **VALIDATED), **changes}
    present = {name: content for name, content in files.items() if content is not None}
    found, sentence = refused(lambda: taken_folder(tmp_path, present))
    assert found is code
    assert said in sentence


def test_a_file_larger_than_allowed_is_refused(tmp_path: Path) -> None:
    files = listed(outside_files(), **VALIDATED)
    largest = max(len(content) for content in files.values())
    taken_folder(tmp_path, files, file_bytes=largest)
    code, said = refused(lambda: taken_folder(tmp_path, files, file_bytes=largest - 1))
    assert code is RefusalCode.TOO_LARGE
    assert f"at most {largest - 1}" in said


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        ({"weights.bin": None}, RefusalCode.EXTERNAL_DATA, "'weights.bin' is no file of the drop"),
        ({"weights.bin": bytes(35)}, RefusalCode.EXTERNAL_DATA, "which has 35: the file is cut"),
        (
            {"more.bin": b"?"},
            RefusalCode.UNEXPECTED_FILE,
            "the bundle holds 'more.bin', which its slipway.yaml does not",
        ),
        (
            {"my-model/slipway.yaml": b"", "slipway.yaml": None},
            RefusalCode.MISSING_FILE,
            "'my-model/slipway.yaml' lies",
        ),
        ({"weights.bin/x": b""}, RefusalCode.UNSAFE_PATH, "'weights.bin' as a file and as a directory"),
        ({"a/../../x": b""}, RefusalCode.UNSAFE_PATH, "a member named 'a/../../x'"),
        (
            {"slipway.yaml": manifest(files={"weights.bin": "0" * 64}, **VALIDATED)},
            RefusalCode.WRONG_DIGEST,
            f"and the slipway.yaml names {'0' * 64}: it was cut or changed",
        ),
        ({"slipway.yaml": manifest(files={"gone.bin": "0" * 64})}, RefusalCode.MISSING_FILE, "'gone.bin'"),
    ],
    ids=lambda value: next(iter(value))[:20] if isinstance(value, dict) else None,
)
def test_a_bundle_that_is_not_whole_is_refused(
    tmp_path: Path, changes: Mapping[str, bytes | None], code: RefusalCode, said: str
) -> None:
    files: Mapping[str, bytes | None] = {**outside_files(), "slipway.yaml": manifest(**VALIDATED), **changes}
    present = {name: content for name, content in files.items() if content is not None}
    found, sentence = refused(lambda: taken_bundle(tmp_path, present))
    assert found is code
    assert said in sentence


@pytest.mark.parametrize("location", ["model.onnx", "data/rows.npz", "slipway.yaml"])
def test_a_tensor_may_not_lie_in_a_file_with_another_purpose(tmp_path: Path, location: str) -> None:
    files = {"model.onnx": outside_model(location).SerializeToString(), "data/rows.npz": npz(scorer_rows(5))}
    code, said = refused(lambda: taken_bundle(tmp_path, {**files, "slipway.yaml": manifest(**VALIDATED)}))
    assert code is RefusalCode.EXTERNAL_DATA
    assert f"{location!r} is no file of the drop that may hold tensors" in said


def test_a_bare_model_with_tensors_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(outside_model().SerializeToString())
    task = IntakeTask(path=tmp_path / "m.onnx", filename="m.onnx")
    code, _ = refused(lambda: take_in(task, workdir=tmp_path, file_bytes=100_000, begin=lambda _: None))
    assert code is RefusalCode.EXTERNAL_DATA


def test_every_tenth_of_a_file_of_a_folder_is_refused(tmp_path: Path) -> None:
    files = listed(outside_files(), **VALIDATED)
    for name in files:
        for tenth in range(10):
            cut = files | {name: files[name][: len(files[name]) * tenth // 10]}
            code, _ = refused(lambda cut=cut: taken_folder(tmp_path, cut))  # type: ignore[misc]
            expected = {RefusalCode.WRONG_DIGEST}
            if name == "slipway.yaml":
                expected = {RefusalCode.BAD_MANIFEST, RefusalCode.UNEXPECTED_FILE, RefusalCode.MISSING_FILE}
            assert code in expected, (name, tenth)


def test_every_tenth_of_a_bundle_or_a_bare_model_is_refused(tmp_path: Path) -> None:
    whole = {
        "b.zip": bundle({**outside_files(), "slipway.yaml": manifest(**VALIDATED)}),
        "m.onnx": scorer().SerializeToString(),
    }
    for filename, content in whole.items():
        for tenth in range(10):
            (tmp_path / "drop").write_bytes(content[: len(content) * tenth // 10])
            task = IntakeTask(path=tmp_path / "drop", filename=filename)
            code, _ = refused(
                lambda task=task: take_in(task, workdir=tmp_path, file_bytes=10**6, begin=lambda _: None)  # type: ignore[misc]
            )
            assert code is (RefusalCode.NOT_ZIP if filename == "b.zip" else RefusalCode.NOT_ONNX)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_data_may_lie_as_a_table_and_a_damaged_one_is_refused(tmp_path: Path, ending: str) -> None:
    name = f"rows.{ending}"
    text = b"a,b,c,label\n" + b"1,2,3,0\n" * 5
    good = text if ending == "csv" else parquet()
    files = {"model.onnx": scorer().SerializeToString(), "slipway.yaml": manifest(validation=name)}
    assert taken_bundle(tmp_path, {**files, name: good}).files[1].name == name
    for bad in (b"", npz({"x": np.zeros((2, 3))}), good[:-3] if ending == "parquet" else b"a,b\n1\n"):
        code, said = refused(lambda bad=bad: taken_bundle(tmp_path, {**files, name: bad}))  # type: ignore[misc]
        assert code is RefusalCode.BAD_DATA
        assert f"{name} does not read as" in said


def parquet() -> bytes:
    import io

    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1.0], "b": [2.0], "c": [3.0], "label": [0]}), buffer)
    return buffer.getvalue()


def test_a_folders_manifest_is_read_by_itself(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(manifest(files={"model.onnx": "a" * 64}))
    assert manifest_of_folder(tmp_path / "m").files == {"model.onnx": "a" * 64}
    for text, said in ((b"files: {model.onnx: nothing}", "files.model.onnx"), (b"files: {}", "'task' is missing")):
        (tmp_path / "m").write_bytes(text)
        code, sentence = refused(lambda: manifest_of_folder(tmp_path / "m"))  # type: ignore[arg-type,return-value]
        assert code is RefusalCode.BAD_MANIFEST
        assert said in sentence
    (tmp_path / "m").write_bytes(b"files: {MLmodel: " + b"a" * 64 + b"}")
    assert manifest_of_folder(tmp_path / "m").files == {"MLmodel": "a" * 64}
