"""Small real models on real data, and the bundles that carry them."""

import io
import zipfile
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@cache
def iris() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Fisher's iris data, 150 rows of 4 features, in a fixed shuffled order."""
    from sklearn.datasets import load_iris

    data = load_iris()
    order = np.random.default_rng(0).permutation(len(data.target))
    return data.data[order].astype(np.float32), data.target[order].astype(np.int64)


def classifier(*, c: float = 1.0) -> bytes:
    """A logistic regression on half of iris as ONNX: another `c`, another model; `c` near 0 is a bad one."""
    from skl2onnx import to_onnx
    from sklearn.linear_model import LogisticRegression

    features, labels = iris()
    model = LogisticRegression(C=c, max_iter=2_000).fit(features[:75], labels[:75])
    return bytes(to_onnx(model, features[:1], options={"zipmap": False}).SerializeToString())


def bundle(model: bytes, *, manifest: str = "task: classification\nvalidation: validation.npz\n") -> bytes:
    """A zip bundle of a model with the other half of iris as its validation data."""
    features, labels = iris()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("slipway.yaml", manifest)
        archive.writestr("model.onnx", model)
        archive.writestr("validation.npz", npz(X=features[75:], label=labels[75:]))
    return buffer.getvalue()


def npz(**arrays: NDArray[Any]) -> bytes:
    """Arrays as an NPZ file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()
