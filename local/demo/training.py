"""Trains the demo's four models and writes each as a bundle: the data scientist of the demo, a process of its own.

    python -m local.demo.training DIRECTORY

Writes `traffic.npz`, the rows kept for live traffic, then one zip for each of `Entry`, in their order. A file appears
under its name once it is whole. Nothing about a model's quality is written down: the system measures it.
"""

import argparse
import io
import sys
import zipfile
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from local.demo.digits import BRIGHTEST, Digits, Pixels, Rows, load_digits

if TYPE_CHECKING:
    import onnx

INPUT = "pixels"
TRAFFIC_FILE = "traffic.npz"
_LABEL = "digit"
_SEED = 7
_OPSET = {"": 18, "ai.onnx.ml": 3}
_LEVELLED = "levelled"


class Entry(StrEnum):
    """The models, by the role that they play, in the order of their appearance."""

    FIRST = "random-forest"
    BETTER = "gradient-boosting"
    WORSE = "shallow-tree"
    FAULTY = "levelled-boosting"

    @property
    def filename(self) -> str:
        """The bundle's file name."""
        return f"{self.value}.zip"


def main() -> None:
    """Train everything, in the order in which the demo wants it."""
    parser = argparse.ArgumentParser(prog="python -m local.demo.training")
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    digits = load_digits()
    appear(directory / TRAFFIC_FILE, digits.traffic.save)
    for entry in Entry:
        model, parameters = _TRAINERS[entry](digits.training)
        data = bundle(entry, model, digits, parameters)
        appear(directory / entry.filename, partial(Path.write_bytes, data=data))
        print(f"{entry.filename}: {len(data)} bytes", file=sys.stderr)  # noqa: T201 - the process's log


def bundle(entry: Entry, model: "onnx.ModelProto", digits: Digits, parameters: Mapping[str, Any]) -> bytes:
    """A drop's zip: the model, its manifest, the validation data and the reference data."""
    manifest = {
        "task": "classification",
        "model": "model.onnx",
        "validation": "validation.npz",
        "reference": "reference.npz",
        "label": _LABEL,
        "description": f"Reads a handwritten digit from 8 x 8 pixels ({entry.value})",
        "author": "slipway demo",
        "tags": {"data": "digits"},
        "parameters": dict(parameters),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slipway.yaml", yaml.safe_dump(manifest, sort_keys=False))
        archive.writestr("model.onnx", model.SerializeToString())
        archive.writestr("validation.npz", packed({INPUT: digits.validation.pixels, _LABEL: digits.validation.labels}))
        archive.writestr("reference.npz", packed({INPUT: digits.training.pixels}))
    return content.getvalue()


def random_forest(rows: Rows) -> tuple["onnx.ModelProto", dict[str, Any]]:
    """A small random forest, good enough to begin with."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - heavy

    parameters = {"n_estimators": 20, "max_depth": 6}
    return _exported(RandomForestClassifier(**parameters, random_state=_SEED).fit(rows.pixels, rows.labels)), parameters


def gradient_boosting(rows: Rows) -> tuple["onnx.ModelProto", dict[str, Any]]:
    """Boosted trees."""
    return _exported(_boosted(rows)), dict(_BOOSTING)


def shallow_tree(rows: Rows) -> tuple["onnx.ModelProto", dict[str, Any]]:
    """A tree of four leaves, which cannot tell ten digits apart."""
    from sklearn.tree import DecisionTreeClassifier  # noqa: PLC0415 - heavy

    parameters = {"max_depth": 2}
    return _exported(DecisionTreeClassifier(**parameters, random_state=_SEED).fit(rows.pixels, rows.labels)), parameters


def levelled_boosting(rows: Rows) -> tuple["onnx.ModelProto", dict[str, Any]]:
    """Boosted trees over images whose contrast the graph levels first, by a table with a gain for each brightness.

    The table ends at the brightest pixel of the data. An image with a brighter one has no entry, and is an error.
    """
    levelled = Rows(pixels=rows.pixels * _gains()[rows.pixels.max(axis=1).astype(int)][:, None], labels=rows.labels)
    return _with_levelling(_exported(_boosted(levelled))), {**_BOOSTING, "levelled": True}


def packed(arrays: Mapping[str, np.ndarray[Any, Any]]) -> bytes:
    """Arrays as an NPZ file."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    return content.getvalue()


def appear(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears whole."""
    unfinished = path.with_name(f".unfinished-{path.name}")
    write(unfinished)
    unfinished.replace(path)


def _gains() -> Pixels:
    """The factor that brings an image to full contrast, by its brightest pixel."""
    return (BRIGHTEST / np.maximum(np.arange(BRIGHTEST + 1), 1)).astype(np.float32)


def _with_levelling(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Put the levelling before a model of the pixels."""
    from onnx import TensorProto, checker, helper, numpy_helper  # noqa: PLC0415 - heavy

    graph = model.graph
    for node in graph.node:
        node.input[:] = [_LEVELLED if name == INPUT else name for name in node.input]
    levelling = [
        helper.make_node("ReduceMax", [INPUT, "per_row"], ["brightest"], keepdims=1),
        helper.make_node("Cast", ["brightest"], ["brightness"], to=TensorProto.INT64),
        helper.make_node("Gather", ["gains", "brightness"], ["gain"]),
        helper.make_node("Mul", [INPUT, "gain"], [_LEVELLED]),
    ]
    nodes = [*levelling, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.append(numpy_helper.from_array(_gains(), "gains"))
    graph.initializer.append(numpy_helper.from_array(np.array([1], dtype=np.int64), "per_row"))
    checker.check_model(model)
    return model


def _boosted(rows: Rows) -> Any:  # noqa: ANN401 - scikit-learn has no types
    from sklearn.ensemble import GradientBoostingClassifier  # noqa: PLC0415 - heavy

    return GradientBoostingClassifier(**_BOOSTING, random_state=_SEED).fit(rows.pixels, rows.labels)


def _exported(fitted: Any) -> "onnx.ModelProto":  # noqa: ANN401 - scikit-learn has no types
    from skl2onnx import to_onnx  # noqa: PLC0415 - heavy
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415 - heavy

    exported: onnx.ModelProto = to_onnx(
        fitted,
        initial_types=[(INPUT, FloatTensorType([None, fitted.n_features_in_]))],
        options={id(fitted): {"zipmap": False}},
        target_opset=_OPSET,
    )
    return exported


type _Trainer = Callable[[Rows], tuple["onnx.ModelProto", dict[str, Any]]]

_BOOSTING: Mapping[str, Any] = {"n_estimators": 60, "learning_rate": 0.2, "max_features": "sqrt", "subsample": 0.7}
_TRAINERS: Mapping[Entry, _Trainer] = {
    Entry.FIRST: random_forest,
    Entry.BETTER: gradient_boosting,
    Entry.WORSE: shallow_tree,
    Entry.FAULTY: levelled_boosting,
}


if __name__ == "__main__":
    main()
