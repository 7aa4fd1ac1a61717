"""Makes drops to test with: models, data files, bundles."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import TensorProto as Type
from onnx import helper

from shared.registry.manifest import Manifest, Task
from shared.registry.policy import ValidationPolicy
from shared.validation.refusal import DropRefusedError
from shared.validation.report import ValidationReport
from shared.validation.validate import validate
from shared.validation.wire import ModelFiles, Stage, ValidateTask

LIMIT_BYTES = 64 * 1024 * 1024
MANIFEST = b"task: classification\nvalidation: rows.npz\n"

type Spec = tuple[str, int, Sequence[int | str]]


def ignore(_: Stage) -> None:
    """Takes the stages that nobody looks at."""


def onnx_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Spec],
    outputs: Sequence[Spec],
    *,
    constants: Sequence[onnx.TensorProto] = (),
    domains: Mapping[str, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """A model of these nodes."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info(*spec) for spec in inputs],
        [helper.make_tensor_value_info(*spec) for spec in outputs],
        initializer=list(constants),
    )
    opsets = {"": 17, **(domains or {})}
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=9,
    )
    helper.set_model_props(model, dict(metadata or {}))
    return model


def one_node(op: str, *, out: int = Type.FLOAT, width: int = 3, **attributes: Any) -> onnx.ModelProto:
    """A model that puts its one input `x`, FP32 [rows, width], through one operator to the output `y`."""
    return onnx_model(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        [("x", Type.FLOAT, ["rows", width])],
        [("y", out, ["rows", width])],
    )


def scorer(rows: int | str = "rows") -> onnx.ModelProto:
    """A classifier by scores: the class is the index of the largest of three inputs."""
    return onnx_model(
        [helper.make_node("Softmax", ["x"], ["scores"], axis=1)],
        [("x", Type.FLOAT, [rows, 3])],
        [("scores", Type.FLOAT, [rows, 3])],
    )


def memory_bomb() -> onnx.ModelProto:
    """A small file that asks for 100 GB when it runs."""
    shape = helper.make_tensor("shape", Type.INT64, [2], [25_000_000, 1_000])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    return onnx_model(nodes, [("x", Type.FLOAT, ["rows", 3])], [("y", Type.FLOAT, ["rows", 3])], constants=[shape])


def endless() -> onnx.ModelProto:
    """A loop of 2**62 turns over the input."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["more_out"]), helper.make_node("Neg", ["value"], ["value_out"])],
        "body",
        [
            helper.make_tensor_value_info("turn", Type.INT64, []),
            helper.make_tensor_value_info("more", Type.BOOL, []),
            helper.make_tensor_value_info("value", Type.FLOAT, ["rows", 3]),
        ],
        [
            helper.make_tensor_value_info("more_out", Type.BOOL, []),
            helper.make_tensor_value_info("value_out", Type.FLOAT, ["rows", 3]),
        ],
    )
    constants = [
        helper.make_tensor("turns", Type.INT64, [], [2**62]),
        helper.make_tensor("go", Type.BOOL, [], [True]),
    ]
    return onnx_model(
        [helper.make_node("Loop", ["turns", "go", "x"], ["y"], body=body)],
        [("x", Type.FLOAT, ["rows", 3])],
        [("y", Type.FLOAT, ["rows", 3])],
        constants=constants,
    )


def scorer_rows(rows: int = 50, right: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    """Inputs of `scorer` with labels, of which it gets the share `right`."""
    x = np.random.default_rng(7).normal(size=(rows, 3)).astype(np.float32)
    label = x.argmax(axis=1)
    wrong = rows - round(rows * right)
    label[:wrong] = (label[:wrong] + 1) % 3
    return {"x": x, "label": label}


def npz(arrays: Mapping[str, ArrayLike], *, allow_pickle: bool = False) -> bytes:
    """An NPZ file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=allow_pickle, **{name: np.asarray(a) for name, a in arrays.items()})
    return buffer.getvalue()


def bundle(files: Mapping[str, bytes | str] | Sequence[tuple[zipfile.ZipInfo | str, bytes | str]]) -> bytes:
    """A zip bundle of members in this order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            archive.writestr(name, content)
    return buffer.getvalue()


def good_bundle(**changes: bytes | None) -> bytes:
    """A well-formed bundle; `changes` replaces its `manifest`, `model` or `rows`, or leaves one out."""
    parts: dict[str, bytes | None] = {
        "manifest": MANIFEST,
        "model": scorer().SerializeToString(),
        "rows": npz(scorer_rows()),
    } | changes
    names = {"manifest": "slipway.yaml", "model": "model.onnx", "rows": "rows.npz"}
    return bundle({names[part]: content for part, content in parts.items() if content is not None})


@cache
def forest() -> tuple[bytes, bytes, float]:
    """A random forest on the digits as ONNX, the rows it has not seen as NPZ, its accuracy on them by scikit-learn."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    model = RandomForestClassifier(10, random_state=0).fit(x[:1_000], y[:1_000])
    exported = to_onnx(model, x[:1], options={"zipmap": False})
    return (
        exported.SerializeToString(),
        npz({"X": x[1_000:], "label": y[1_000:]}),
        float(model.score(x[1_000:], y[1_000:])),
    )


def checked(
    folder: Path,
    model: onnx.ModelProto | bytes,
    rows: Mapping[str, ArrayLike] | bytes | None = None,
    *,
    reference: Mapping[str, ArrayLike] | None = None,
    policy: ValidationPolicy | None = None,
    **manifest: Any,
) -> ValidationReport:
    """The report of a validation in this process, in a new folder."""
    (folder / "model").write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    if rows is not None:
        (folder / "rows").write_bytes(rows if isinstance(rows, bytes) else npz(rows))
    if reference is not None:
        (folder / "reference").write_bytes(npz(reference))
    work = ValidateTask(
        model=ModelFiles(path=folder / "model"),
        validation=None if rows is None else folder / "rows",
        reference=None if reference is None else folder / "reference",
        manifest=Manifest.model_validate({"task": Task.CLASSIFICATION} | manifest),
        policy=policy or ValidationPolicy(),
    )
    workdir = folder / "work"
    workdir.mkdir()
    return validate(work, workdir=workdir, file_bytes=LIMIT_BYTES, begin=ignore)


def said(report: ValidationReport, check: str) -> str:
    """The outcome and sentence of a report's one verdict of a check."""
    (verdict,) = (verdict for verdict in report.verdicts if verdict.check == check)
    return f"{verdict.outcome}: {verdict.sentence}"


def refusal(error: DropRefusedError) -> tuple[str, str]:
    """A refusal's code and sentence."""
    return str(error.code), str(error)
