"""How far two answers of one output may differ, and by how much they do.

Real numbers may differ a little from one machine, batch or release of the runtime to the next; whole numbers, booleans
and text may not, unless the manifest gives their output a tolerance. Loads numpy: for the sandboxed process.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from shared.registry.manifest import Manifest, Tolerance
from shared.registry.signature import Signature
from shared.validation.datafile import Array

_DEFAULTS: Mapping[str, Tolerance] = {
    # Eleven bits of mantissa: sums in another order differ by more than the other types' tolerance.
    "FP16": Tolerance(rtol=1e-2, atol=1e-3),
    "FP32": Tolerance(),
    "FP64": Tolerance(),
}

type Tolerances = Mapping[str, Tolerance]
"""The tolerance of each output that is compared by distance. All others must be equal."""


def tolerances_of(signature: Signature, manifest: Manifest) -> Tolerances:
    """The outputs of real numbers, and those of whole numbers that the manifest names.

    The manifest's names that are no outputs, or outputs of text, are not in it: see `unusable_tolerances`.
    """
    found = {}
    for spec in signature.outputs:
        declared = None if spec.datatype in {"BYTES", "BOOL"} else manifest.tolerances.get(spec.name)
        tolerance = declared or _DEFAULTS.get(spec.datatype)
        if tolerance is not None:
            found[spec.name] = tolerance
    return found


def unusable_tolerances(signature: Signature, manifest: Manifest) -> list[str]:
    """The names in the manifest's `tolerances` that are no output of numbers."""
    numbers = {spec.name for spec in signature.outputs if spec.datatype not in {"BYTES", "BOOL"}}
    return [name for name in manifest.tolerances if name not in numbers]


def too_wide(signature: Signature, manifest: Manifest, *, max_rtol: float, max_atol: float) -> dict[str, Tolerance]:
    """The manifest's tolerances beyond the limits; what an output's datatype has by default is never too much."""
    found = {}
    for spec in signature.outputs:
        claimed = manifest.tolerances.get(spec.name)
        default = _DEFAULTS.get(spec.datatype, Tolerance(rtol=0, atol=0))
        if claimed is not None and (
            claimed.rtol > max(max_rtol, default.rtol) or claimed.atol > max(max_atol, default.atol)
        ):
            found[spec.name] = claimed
    return found


def differing(found: Array, wanted: Array, tolerance: Tolerance | None) -> Array:
    """For each value whether it differs by more than the tolerance; NaN equals NaN. The shapes must be equal."""
    if tolerance is None:
        return np.asarray(found != wanted, dtype=np.bool_)
    near = np.isclose(
        found.astype(np.float64), wanted.astype(np.float64), rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True
    )
    result: Array = ~near
    return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Distance:
    """How far two numbers lie apart, and how far they may."""

    found: float
    allowed: float


def worst_distance(found: Array, wanted: Array, tolerance: Tolerance | None) -> Distance | None:
    """Where numbers go furthest beyond their tolerance, or come nearest to it. The shapes must be equal.

    None for text, or where no pair has a finite distance.
    """
    if found.dtype.kind not in "iuf" or not found.size:
        return None
    rtol, atol = (tolerance.rtol, tolerance.atol) if tolerance else (0.0, 0.0)
    right = wanted.astype(np.float64).ravel()
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(found.astype(np.float64).ravel() - right)
        allowed = atol + rtol * np.abs(right)
    excess = np.where(np.isfinite(distance) & np.isfinite(allowed), distance - allowed, -np.inf)
    at = int(excess.argmax())
    return Distance(found=float(distance[at]), allowed=float(allowed[at])) if np.isfinite(excess[at]) else None
