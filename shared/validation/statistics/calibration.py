"""How far a classifier's probabilities can be taken at their word: the reliability curve behind `calibration_error`.

Loads numpy: for the sandboxed process.
"""

import numpy as np

from shared.validation.details import CalibrationBin
from shared.validation.statistics.evidence import Predictions
from shared.validation.statistics.metrics import CALIBRATION_BINS, calibration_bin, confidence


def calibration_curve(predictions: Predictions) -> tuple[CalibrationBin, ...]:
    """The bins that hold rows, from the lowest probability up; none where the model gives no probabilities."""
    if predictions.probabilities is None:
        return ()
    confidences, correct = confidence(predictions)
    bins = calibration_bin(confidences)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    predicted = np.bincount(bins, weights=confidences, minlength=CALIBRATION_BINS)
    right = np.bincount(bins, weights=correct, minlength=CALIBRATION_BINS)
    return tuple(
        CalibrationBin(n=int(n), predicted=float(total / n), observed=float(hits / n))
        for n, total, hits in zip(counts, predicted, right, strict=True)
        if n
    )
