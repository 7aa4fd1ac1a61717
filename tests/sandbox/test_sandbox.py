"""Real drops through the real sandbox, and what becomes of those that would break it."""

import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest

from shared.core.errors import UnavailableError
from shared.core.verdict import Outcome
from shared.drift.performance import PerformanceModel
from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.telemetry.profile import Profile
from shared.validation.refusal import DropRefusedError, RefusalCode
from shared.validation.sandbox import (
    Intake,
    ModelFiles,
    SandboxLimits,
    Validation,
    read_manifest,
    run_intake,
    run_validation,
)
from tests.hostile import models
from tests.unit.validation.drops import (
    bundle,
    endless,
    forest,
    good_bundle,
    npz,
    one_node,
    refusal,
    said,
    scorer,
    scorer_rows,
)

CLASSIFIER = Manifest(task=Task.CLASSIFICATION)
RELAXED = ValidationPolicy(require_validation_data=False)


def taken(folder: Path, content: bytes, filename: str, limits: SandboxLimits | None = None) -> Intake:
    (folder / "drop").write_bytes(content)
    (folder / "work").mkdir()
    return run_intake(folder / "drop", filename=filename, workdir=folder / "work", limits=limits or SandboxLimits())


def refused(folder: Path, content: bytes, filename: str, limits: SandboxLimits | None = None) -> tuple[str, str]:
    with pytest.raises(DropRefusedError) as caught:
        taken(folder, content, filename, limits)
    return refusal(caught.value)


def validated(
    folder: Path, model: onnx.ModelProto, limits: SandboxLimits | None = None, rows: bytes | None = None
) -> Validation:
    (folder / "model").write_bytes(model.SerializeToString())
    if rows is not None:
        (folder / "rows").write_bytes(rows)
    (folder / "work").mkdir()
    return run_validation(
        model=ModelFiles(path=folder / "model"),
        validation=folder / "rows" if rows is not None else None,
        reference=None,
        manifest=CLASSIFIER,
        policy=RELAXED,
        workdir=folder / "work",
        limits=limits or SandboxLimits(),
    )


def sha256(path: Path) -> str:
    return subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True).stdout.split()[0]


def test_the_asking_side_loads_no_library_that_parses() -> None:
    heavy = "{'numpy', 'onnx', 'onnxruntime', 'yaml', 'scipy'}"
    code = f"import sys, shared.validation.sandbox, shared.registry.manifest; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout == "set()\n"


def test_a_bundle_goes_through_intake_and_validation(tmp_path: Path) -> None:
    model, rows, accuracy = forest()
    content = bundle({"model.onnx": model, "slipway.yaml": b"task: classification\nvalidation: v.npz", "v.npz": rows})
    intake = taken(tmp_path, content, "forest.zip")
    assert intake.manifest.validation == "v.npz"
    assert intake.reference is None
    assert intake.validation is not None
    assert [part.path.name for part in intake.parts] == ["part-1", "part-2"]
    assert [part.digest for part in intake.parts] == [sha256(part.path) for part in intake.parts]
    assert intake.model.size_bytes == len(model)

    (tmp_path / "second").mkdir()
    validation = run_validation(
        model=ModelFiles(path=intake.model.path),
        validation=intake.validation.path,
        reference=None,
        manifest=intake.manifest,
        policy=ValidationPolicy(),
        workdir=tmp_path / "second",
        limits=SandboxLimits(),
    )
    assert validation.report.accepted
    assert validation.report.metrics["accuracy"] == accuracy
    assert validation.golden is not None
    assert validation.golden.path == tmp_path / "second" / "golden.json"
    assert validation.golden.digest == sha256(validation.golden.path)
    assert validation.profile is not None
    assert validation.performance is not None
    assert [part.path.name for part in validation.left] == ["golden.json", "profile.json", "performance.json"]
    assert [part.digest for part in validation.left] == [sha256(part.path) for part in validation.left]
    profile = Profile.model_validate_json(validation.profile.path.read_bytes())
    assert profile.id == validation.profile.digest
    performance = PerformanceModel.model_validate_json(validation.performance.path.read_bytes())
    assert (performance.profile, performance.level) == (profile.id, accuracy)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        pytest.param(SandboxLimits(cpu_s=50), "s of processor time, and 60 are wanted", id="processor time"),
        pytest.param(SandboxLimits(wall_s=200), "s until the deadline, and 240 are wanted", id="time"),
    ],
)
def test_a_validation_that_has_little_time_left_makes_no_profile_and_accepts_the_version(
    tmp_path: Path, limits: SandboxLimits, said: str
) -> None:
    validation = validated(tmp_path, scorer(), limits, npz(scorer_rows()))
    assert validation.report.accepted, validation.report.verdicts
    assert validation.profile is None
    (verdict,) = (verdict for verdict in validation.report.verdicts if verdict.check == "profile")
    assert verdict.sentence.endswith(said)


def test_a_bare_model_stays_where_it_is(tmp_path: Path) -> None:
    intake = taken(tmp_path, scorer().SerializeToString(), "m.onnx")
    assert intake.model.path == tmp_path / "drop"
    assert list((tmp_path / "work").glob("part-*")) == []


@pytest.mark.parametrize(
    ("content", "filename", "code", "sentence"),
    [
        (scorer().SerializeToString()[:-9], "m.onnx", RefusalCode.NOT_ONNX, "not an ONNX model"),
        (bundle({"../../escape": "x"}), "b.zip", RefusalCode.UNSAFE_PATH, "'../../escape'"),
        (good_bundle(rows=bytes(100)), "b.zip", RefusalCode.BAD_DATA, "rows.npz"),
        (bundle({"slipway.yaml": bytes(60_000_000)}), "b.zip", RefusalCode.TOO_LARGE, "more than 200 times"),
    ],
    ids=["truncated", "path escape", "no data", "bomb"],
)
def test_a_refusal_comes_out_of_the_sandbox_whole(
    tmp_path: Path, content: bytes, filename: str, code: RefusalCode, sentence: str
) -> None:
    found, message = refused(tmp_path, content, filename)
    assert found == code
    assert sentence in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["drop", "work"]


def test_a_model_that_asks_for_too_much_memory_fails_and_the_limit_is_named(tmp_path: Path) -> None:
    bomb = onnx.ModelProto.FromString(models.memory_bomb())
    validation = validated(tmp_path, bomb, SandboxLimits(memory_bytes=2 * 1024**3))
    assert said(validation.report, "sandbox").startswith("fail: validation used more than 2 GB of memory while ")
    assert validation.report.outcome is Outcome.FAIL
    assert validation.golden is None


@pytest.mark.parametrize("memory_mib", [264, 280, 296, 312, 328])
def test_memory_that_ends_in_a_library_is_the_drops_doing_and_no_outage(tmp_path: Path, memory_mib: int) -> None:
    """What is left when a model has taken the most: a library cannot be mapped any more, or gives up its process."""
    limits = SandboxLimits(memory_bytes=memory_mib * 1024**2)
    validation = validated(tmp_path, scorer(), limits, npz(scorer_rows(300)))
    if not validation.report.accepted:
        assert f"used more than {memory_mib / 1024:.3g} GB of memory while" in said(validation.report, "sandbox")
        assert validation.report.outcome is Outcome.FAIL


def test_a_model_larger_than_the_memory_is_no_damaged_one(tmp_path: Path) -> None:
    """A tensor of a gigabyte, a hole in the file."""
    values = 2**30
    head = models.whole(1, values // 4) + models.whole(2, onnx.TensorProto.FLOAT) + models.held(8, "w")
    tensor = head + models.varint(9 << 3 | 2) + models.varint(values)
    graph = models.held(1, scorer().graph.node[0].SerializeToString())
    graph += models.varint(5 << 3 | 2) + models.varint(len(tensor) + values) + tensor
    with (tmp_path / "drop").open("wb") as file:
        file.write(models.whole(1, 9) + models.varint(7 << 3 | 2) + models.varint(len(graph) + values) + graph)
        file.truncate(file.tell() + values)
    (tmp_path / "work").mkdir()
    limits = SandboxLimits(memory_bytes=values)
    with pytest.raises(DropRefusedError) as caught:
        run_intake(tmp_path / "drop", filename="m.onnx", workdir=tmp_path / "work", limits=limits)
    code, sentence = refusal(caught.value)
    assert code == RefusalCode.SANDBOX
    assert sentence.startswith("looking at the drop used more than 1 GB of memory while checking the model file: ")


def test_a_model_that_never_ends_uses_up_its_cpu_time(tmp_path: Path) -> None:
    validation = validated(tmp_path, endless(), SandboxLimits(cpu_s=2, wall_s=60), npz(scorer_rows()))
    assert said(validation.report, "sandbox").startswith("fail: validation used more than 2 s of CPU time while ")


def test_memory_that_intake_would_need_is_limited_too(tmp_path: Path) -> None:
    x = np.zeros((40_000, 1_000), dtype=np.float32)
    x[::3, ::50] = np.arange(20)
    x[:400] = np.random.default_rng(1).normal(size=(400, 1_000))
    rows = npz({"x": x, "label": np.zeros(40_000, dtype=np.int64)})
    code, sentence = refused(tmp_path, good_bundle(rows=rows), "b.zip", SandboxLimits(memory_bytes=320 * 1024**2))
    assert (code, "GB of memory while" in sentence) == (RefusalCode.SANDBOX, True), sentence


def test_a_sandbox_that_cannot_start_is_our_trouble(tmp_path: Path) -> None:
    # The memory ends while Python starts or while a library is mapped, which say so in different ways.
    with pytest.raises(UnavailableError, match=r"ended with code 7[78]"):
        validated(tmp_path, scorer(), SandboxLimits(memory_bytes=30 * 1024**2))


def test_work_that_is_left_over_is_our_trouble_and_no_finding(tmp_path: Path) -> None:
    """A full disk or a missing directory must not be held against a drop."""
    (tmp_path / "drop").write_bytes(good_bundle())
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "part-1").mkdir()
    with pytest.raises(UnavailableError, match="FileExistsError"):
        run_intake(tmp_path / "drop", filename="b.zip", workdir=tmp_path / "work", limits=SandboxLimits())


def test_a_number_too_long_to_be_shown_is_a_bad_manifest_and_no_outage(tmp_path: Path) -> None:
    manifest = b"task: classification\nauthor: 0x" + b"f" * 5_000
    code, sentence = refused(tmp_path, good_bundle(manifest=manifest), "b.zip")
    assert code == RefusalCode.BAD_MANIFEST
    assert sentence.startswith("slipway.yaml is not YAML: line 2, column 9: '0xfff")
    (tmp_path / "manifest").write_bytes(manifest)
    (tmp_path / "other").mkdir()
    with pytest.raises(DropRefusedError, match="cannot be read as int"):
        read_manifest(tmp_path / "manifest", workdir=tmp_path / "other", limits=SandboxLimits())


def test_several_sandboxes_at_once_do_not_meet(tmp_path: Path) -> None:
    found: dict[int, bool] = {}

    def run(number: int) -> None:
        folder = tmp_path / str(number)
        folder.mkdir()
        found[number] = validated(folder, scorer() if number else one_node("Neg")).report.accepted

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: True, 1: True, 2: True}


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    validated(tmp_path / "a", scorer())
    gc.collect()  # what tests before left open is not closed meanwhile
    before = len(list(Path("/proc/self/fd").iterdir()))
    validated(tmp_path / "b", scorer())
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_files_with_tensors_are_linked_into_reach_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(models.external("weights/w.bin"))
    (tmp_path / "values").write_bytes(bytes(12))
    (tmp_path / "work").mkdir()
    validation = run_validation(
        model=ModelFiles(path=tmp_path / "model", external={"weights/w.bin": tmp_path / "values"}),
        validation=None,
        reference=None,
        manifest=CLASSIFIER,
        policy=RELAXED,
        workdir=tmp_path / "work",
        limits=SandboxLimits(),
    )
    assert validation.report.accepted, validation.report
    found = list((tmp_path / "work").rglob("w.bin"))
    assert found
    assert all(path.samefile(tmp_path / "values") for path in found)
