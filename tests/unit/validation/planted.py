"""Versions with one planted defect each, and what they are validated beside: is each rejected for its own reason?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto as Type
from onnx import helper, numpy_helper

from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.validation.report import ValidationReport
from shared.validation.sandbox import SandboxLimits, run_validation
from shared.validation.validate import validate
from shared.validation.wire import ModelFiles, Stage, ValidateTask
from tests.unit.validation.drops import LIMIT_BYTES, ignore, npz, onnx_model

FEATURES = ("age", "income", "distance", "weight")
ROWS = 1_500
_WEIGHTS = np.array([[2, -1, 0], [0, 2, -1], [-1, 0, 2], [1, 1, -2]], dtype=np.float32)

type Floats = NDArray[np.float32]
type Nodes = Sequence[onnx.NodeProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What is validated, and the one check that must speak against it."""

    model: onnx.ModelProto
    rows: Mapping[str, NDArray[Any]]
    finds: str | None
    champion: onnx.ModelProto | None = None
    reference: Mapping[str, NDArray[Any]] | None = None
    policy: ValidationPolicy = field(default_factory=ValidationPolicy)
    manifest: Mapping[str, Any] = field(default_factory=dict)


def features(rows: int = ROWS, *, seed: int = 5) -> Floats:
    """Rows of four independent features."""
    return np.random.default_rng(seed).normal(size=(rows, len(FEATURES))).astype(np.float32)


def labels(x: Floats) -> NDArray[np.int64]:
    """What a sound model answers."""
    found: NDArray[np.int64] = (x @ _WEIGHTS).argmax(axis=1)
    return found


def linear(
    *,
    weights: Floats = _WEIGHTS,
    further: Nodes = (),
    scores: str = "base",
    outputs: Sequence[tuple[str, int, list[int | str]]] = (),
    constants: Mapping[str, NDArray[Any]] | None = None,
    name: str = "x",
) -> onnx.ModelProto:
    """A linear classifier. `further` nodes may take `x` and its scores `base`, and make the ones that are given out."""
    nodes = [
        helper.make_node("MatMul", [name, "weights"], ["base"]),
        *further,
        helper.make_node("Softmax", [scores], ["scores"], axis=1),
    ]
    held = {"weights": weights, **(constants or {})}
    return onnx_model(
        nodes,
        [(name, Type.FLOAT, ["rows", len(FEATURES)])],
        [("scores", Type.FLOAT, ["rows", 3]), *outputs],
        constants=[numpy_helper.from_array(np.asarray(array), key) for key, array in held.items()],
    )


def sound() -> Planted:
    """Nothing is wrong with it."""
    x = features()
    return Planted(
        model=linear(),
        champion=linear(),
        rows={"x": x, "label": labels(x)},
        reference={"x": features(seed=6)},
        finds=None,
    )


def below_a_threshold() -> Planted:
    """It is right in four of five cases."""
    x = features()
    label = labels(x)
    label[::5] = (label[::5] + 1) % 3
    return Planted(model=linear(), rows={"x": x, "label": label}, finds="accuracy")


def worse_than_the_champion() -> Planted:
    """It keeps every threshold; the champion is right more often."""
    x = features()
    weaker = _WEIGHTS + np.random.default_rng(1).normal(size=_WEIGHTS.shape).astype(np.float32) * np.float32(0.35)
    return Planted(
        model=linear(weights=weaker), champion=linear(), rows={"x": x, "label": labels(x)}, finds="non_inferiority"
    )


def bad_in_one_slice() -> Planted:
    """It is wrong for the heaviest tenth alone."""
    x = features()
    label = labels(x)
    heavy = x[:, 3] > np.quantile(x[:, 3], 0.9)
    label[heavy] = (label[heavy] + 1) % 3
    return Planted(
        model=linear(),
        rows={"x": x, "label": label},
        finds="slices",
        manifest={"feature_names": FEATURES, "slices": ("weight",)},
    )


def unfair() -> Planted:
    """It finds the positive class in one group alone."""
    x = features()
    group = np.where(x[:, 0] > 0, "a", "b")
    return Planted(
        model=linear(),
        rows={"x": x, "label": labels(x), "group": group},
        finds="fairness",
        policy=ValidationPolicy(fairness_gap=0.1),
        manifest={"feature_names": FEATURES, "protected": ("group",), "positive_class": 0, "validation": "rows.npz"},
    )


def drifted() -> Planted:
    """Its validation data is not what the reference data was."""
    x = features()
    shifted = x + np.array([0, 0.6, 0, 0], dtype=np.float32)
    return Planted(
        model=linear(),
        rows={"x": shifted, "label": labels(shifted)},
        reference={"x": features(seed=6)},
        finds="reference_drift",
    )


def answers_nan() -> Planted:
    """One of its outputs holds NaN."""
    x = features()
    model = linear(
        further=[helper.make_node("Log", ["x"], ["logarithm"])],
        outputs=[("logarithm", Type.FLOAT, ["rows", len(FEATURES)])],
    )
    return Planted(model=model, rows={"x": x, "label": labels(x)}, finds="run")


def rows_influence_each_other() -> Planted:
    """It takes the mean of a batch into account."""
    x = features()
    further = [
        helper.make_node("ReduceMean", ["base"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Mul", ["mean", "some"], ["shift"]),
        helper.make_node("Add", ["base", "shift"], ["moved"]),
    ]
    model = linear(further=further, scores="moved", constants={"some": np.array(0.3, dtype=np.float32)})
    return Planted(model=model, rows={"x": x, "label": labels(x)}, finds="batch_against_single")


def knows_one_size(*sizes: int) -> onnx.ModelProto:
    """It answers well where a batch has one of these numbers of rows, and else always the same."""
    further = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Sub", ["shape", "sizes"], ["away"]),
        helper.make_node("ReduceProd", ["away"], ["none_is"], keepdims=0),
        helper.make_node("Equal", ["none_is", "nothing"], ["is_known"]),
        helper.make_node("Where", ["is_known", "base", "always"], ["moved"]),
    ]
    held = {"sizes": np.array(sizes), "nothing": np.array(0), "always": np.array([[1, 0, 0]], dtype=np.float32)}
    return linear(further=further, scores="moved", constants=held)


def shines_where_it_is_measured() -> Planted:
    """It answers well in the batches that metrics are computed of, and in no others."""
    x = features()
    return Planted(model=knows_one_size(64, ROWS % 64), rows={"x": x, "label": labels(x)}, finds="batch_against_single")


def shines_in_batches() -> Planted:
    """It answers well alone and as measured, and not in a batch of two."""
    x = features()
    model = knows_one_size(1, 8, 64, ROWS % 64, 128)
    return Planted(model=model, rows={"x": x, "label": labels(x)}, finds="batch_against_single")


def answers_by_chance() -> Planted:
    """It adds noise to its scores."""
    x = features()
    further = [
        helper.make_node("RandomNormalLike", ["base"], ["noise"]),
        helper.make_node("Mul", ["noise", "some"], ["little"]),
        helper.make_node("Add", ["base", "little"], ["moved"]),
    ]
    model = linear(further=further, scores="moved", constants={"some": np.array(0.01, dtype=np.float32)})
    return Planted(model=model, rows={"x": x, "label": labels(x)}, finds="repeats")


def slower_than_the_champion() -> Planted:
    """It multiplies large matrices, and the champion does not."""
    x = features()
    wide = np.zeros((len(FEATURES), 400), dtype=np.float32)
    square = np.zeros((400, 400), dtype=np.float32)
    further = [helper.make_node("MatMul", ["x", "wide"], ["h0"])]
    further += [helper.make_node("MatMul", [f"h{i}", "square"], [f"h{i + 1}"]) for i in range(5)]
    further += [
        helper.make_node("ReduceMean", ["h5"], ["nothing"], axes=[1], keepdims=1),
        helper.make_node("Add", ["base", "nothing"], ["moved"]),
    ]
    model = linear(further=further, scores="moved", constants={"wide": wide, "square": square})
    return Planted(
        model=model,
        champion=linear(),
        rows={"x": x, "label": labels(x)},
        finds="latency",
        policy=ValidationPolicy(latency_floor_ms=0),
    )


def too_large_for_a_server() -> Planted:
    """It needs more memory than the policy gives."""
    x = features()
    return Planted(
        model=linear(), rows={"x": x, "label": labels(x)}, finds="memory", policy=ValidationPolicy(max_memory_bytes=64)
    )


DEFECTS: Sequence[Callable[[], Planted]] = (
    below_a_threshold,
    worse_than_the_champion,
    bad_in_one_slice,
    unfair,
    drifted,
    answers_nan,
    rows_influence_each_other,
    shines_where_it_is_measured,
    shines_in_batches,
    answers_by_chance,
    slower_than_the_champion,
    too_large_for_a_server,
)


def judged(
    planted: Planted,
    folder: Path,
    *,
    champion_unusable: str = "",
    champion_manifest: Manifest | None = None,
    begin: Callable[[Stage], None] = ignore,
) -> ValidationReport:
    """The report of a validation in this process."""
    champion = {"champion_unusable": champion_unusable, "champion_manifest": champion_manifest}
    work = _task(planted, folder).model_copy(update=champion)
    workdir = folder / "work"
    workdir.mkdir()
    return validate(work, workdir=workdir, file_bytes=LIMIT_BYTES, begin=begin)


def sandboxed(planted: Planted, folder: Path, *, limits: SandboxLimits | None = None) -> ValidationReport:
    """The report of a validation in the real sandbox."""
    work = _task(planted, folder)
    workdir = folder / "work"
    workdir.mkdir()
    return run_validation(
        model=work.model,
        validation=work.validation,
        reference=work.reference,
        manifest=work.manifest,
        policy=work.policy,
        workdir=workdir,
        limits=limits or SandboxLimits(),
        champion=work.champion,
        champion_version=work.champion_version,
    ).report


def _task(planted: Planted, folder: Path) -> ValidateTask:
    def file(name: str, content: bytes) -> Path:
        path = folder / name
        path.write_bytes(content)
        return path

    champion = None
    if planted.champion is not None:
        champion = ModelFiles(path=file("champion", planted.champion.SerializeToString()))
    return ValidateTask(
        model=ModelFiles(path=file("model", planted.model.SerializeToString())),
        validation=file("rows", npz(planted.rows)),
        reference=None if planted.reference is None else file("reference", npz(planted.reference)),
        manifest=Manifest.model_validate({"task": Task.CLASSIFICATION} | dict(planted.manifest)),
        policy=planted.policy,
        champion=champion,
        champion_version=None if champion is None else 7,
    )
