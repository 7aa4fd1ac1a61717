"""The demo's data: 1,797 scanned handwritten digits, 8 x 8 pixels of 0 to 16, which scikit-learn carries.

Each row serves one purpose: training, validation or live traffic. Otherwise a model could be praised for what it
remembers. Loads scikit-learn: for the process that trains.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

type Pixels = NDArray[np.float32]
"""Images, shape [n, 64]."""
type Labels = NDArray[np.int64]

PIXELS = 64
BRIGHTEST = 16
"""The brightest pixel of the data, and so of everything that a model of it was trained and validated on."""
NEW_SCANNER_BRIGHTEST = 20
"""What the new scanner makes of the brightest pixel."""

_SEED = 2
_TRAINING_ROWS, _VALIDATION_ROWS = 900, 450


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Images and the digits that they show."""

    pixels: Pixels
    labels: Labels

    def save(self, path: Path) -> None:
        """Write an NPZ file that `load` reads."""
        np.savez_compressed(path, pixels=self.pixels, labels=self.labels)

    @classmethod
    def load(cls, path: Path) -> "Rows":
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(pixels=arrays["pixels"], labels=arrays["labels"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """The rows by purpose; no row has two."""

    training: Rows
    validation: Rows
    traffic: Rows


def load_digits() -> Digits:
    """The data, split: the same rows for the same purpose each time, every digit in its share of each."""
    from sklearn import datasets, model_selection  # noqa: PLC0415 - heavy

    loaded: Any = datasets.load_digits()
    labels = loaded.target.astype(np.int64)
    rows = np.arange(len(labels))

    def split(part: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        first, rest = model_selection.train_test_split(part, train_size=size, stratify=labels[part], random_state=_SEED)
        return [first, rest]

    training, rest = split(rows, _TRAINING_ROWS)
    validation, traffic = split(rest, _VALIDATION_ROWS)
    pixels = loaded.data.astype(np.float32)

    def chosen(part: NDArray[np.int64]) -> Rows:
        return Rows(pixels=pixels[part], labels=labels[part])

    return Digits(training=chosen(training), validation=chosen(validation), traffic=chosen(traffic))


def newly_scanned(pixels: Pixels) -> Pixels:
    """The same images from a new scanner, whose brightest pixels come out brighter than the data's ever were."""
    return np.where(pixels >= BRIGHTEST, np.float32(NEW_SCANNER_BRIGHTEST), pixels)
