"""The last step: the reference profile that a version's traffic is counted by, and an estimate of its performance.

Both are for later, and decide nothing: where they cannot be made, a version serves without, and the report says why.
Made from the reference data and what the version answers to them; without such, from the validation data. The estimate
is fitted on the validation data, which have labels. Large data is sampled: memory and time are bounded.
"""

import math
import resource
import time
from collections.abc import Mapping

import numpy as np

from shared.core.canonical import canonical_json
from shared.core.verdict import Verdict
from shared.drift.coding import codes_of
from shared.drift.performance import PerformanceModel, fitted
from shared.drift.profiling import LEAST_ROWS, profile_of
from shared.registry.manifest import Task
from shared.telemetry.featurecolumns import Columns
from shared.telemetry.profile import Profile
from shared.validation.chain import SEED, Chain, Sample
from shared.validation.checks.verdicts import passed
from shared.validation.datafile import Array
from shared.validation.details import ProfileFigures
from shared.validation.model import BATCH_ROWS, LoadedModel, ModelError, Rows
from shared.validation.refusal import excerpt
from shared.validation.steps.data import chosen, most_held
from shared.validation.wire import MAX_PERFORMANCE_BYTES, MAX_PROFILE_BYTES, PERFORMANCE_FILE, PROFILE_FILE, Stage

CHECK = "profile"
MAX_ROWS = 50_000
_MAX_BYTES = 100_000_000
"""Of the inputs of the rows that are looked at."""
_MAX_CODES = 5_000_000
_LONGEST_RUN_S = 15.0
_TIMED_ROWS = 4 * BATCH_ROWS
_FEWEST_ROWS = 1_000
_MAX_ERROR = 300
_LEAST_CPU_S = 60
"""About twice as long as it can take."""
_LEAST_WALL_S = 4 * _LEAST_CPU_S
"""For a machine that gives a process a quarter of a processor."""


class _NoProfileError(Exception):
    """There can be no profile; its text says why."""


def make_profile(chain: Chain) -> bool:
    """Leave both in the working directory. Always passes."""
    left_s = _cpu_left_s()
    if left_s < _LEAST_CPU_S:
        # A limit that is gone over ends the process, and rejects the version.
        return chain.add(_without(f"the checks left {left_s:.0f} s of processor time, and {_LEAST_CPU_S} are wanted"))
    left_s = chain.deadline - time.monotonic()
    if left_s < _LEAST_WALL_S:
        return chain.add(_without(f"the checks left {left_s:.0f} s until the deadline, and {_LEAST_WALL_S} are wanted"))
    chain.begin(Stage.PROFILING)
    try:
        chain.add(_made(chain))
    except (_NoProfileError, ModelError) as error:
        chain.add(_without(str(error)))
    except MemoryError:
        chain.add(_without("there is not enough memory to make it"))
    except (OSError, ImportError):
        raise
    except Exception as error:  # noqa: BLE001 - what only serves to watch a version must not reject it
        chain.add(_without(f"{type(error).__name__}: {error}"))
    return True


def _made(chain: Chain) -> Verdict:
    source, inputs, outputs, total = _reference(chain)
    rows = len(next(iter(inputs.values())))
    profile = profile_of(inputs, outputs, names=_names(chain))
    if profile is None:
        raise _NoProfileError(f"{rows} rows of the {source} data are too few")
    content = canonical_json(profile.model_dump(mode="json"))
    if len(content) > MAX_PROFILE_BYTES:
        raise _NoProfileError(f"it would take {len(content)} bytes, and at most {MAX_PROFILE_BYTES} are kept")
    chain.leave(PROFILE_FILE, content)
    chain.has_profile = True
    estimate, reason = _estimate(chain, profile)
    chain.sections["profile"] = ProfileFigures(
        source=source,
        rows=rows,
        total_rows=total,
        features=len(profile.features),
        estimate_rows=estimate.rows if estimate else 0,
        estimate_level=estimate.level if estimate else None,
        estimate_deviation=estimate.deviation if estimate else None,
    )
    sampled = f"{rows} rows" if rows == total else f"{rows} rows, a sample of {total} (seed {SEED}),"
    said = f"a reference profile of {len(profile.features)} features from {sampled} of the {source} data"
    estimated = f"an estimate of performance, fitted on {estimate.rows} rows" if estimate else f"no {reason}"
    return passed(CHECK, f"{said}; {estimated}", n=rows, evidence="/details/profile")


def _cpu_left_s() -> float:
    """Processor time that this process may still use."""
    limit_s, _ = resource.getrlimit(resource.RLIMIT_CPU)
    return math.inf if limit_s == resource.RLIM_INFINITY else limit_s - time.process_time()


def _without(reason: str) -> Verdict:
    return passed(CHECK, f"no reference profile, so that no drift will be seen: {excerpt(reason, _MAX_ERROR)}")


def _reference(chain: Chain) -> tuple[str, Rows, Rows, int]:
    """Which data, its inputs, what the version answers to them, and how many rows there were."""
    if chain.reference is not None and (chain.data is None or chain.reference.rows >= LEAST_ROWS):
        inputs, outputs = _run(chain.loaded, chain.reference)
        return "reference", inputs, outputs, chain.reference.total_rows
    if chain.data is None or chain.outputs is None:
        raise _NoProfileError("there is neither reference nor validation data")
    at = chosen(chain.data.rows, _most(chain.data.inputs, chain.data.rows))
    return "validation", _at(chain.data.inputs, at), _at(chain.outputs, at), chain.data.total_rows


def _run(model: LoadedModel, data: Sample) -> tuple[Rows, Rows]:
    """Rows of the data and the outputs over them, fewer where the model is slow or gives much."""
    step = model.rows_at_once or 1
    at_once = model.rows_at_once or BATCH_ROWS
    most = _most(data.inputs, data.rows)
    inputs = _prepared(model, data, min(data.rows, _TIMED_ROWS), step)
    started = time.perf_counter()
    given = model.run_rows(inputs, _rows(inputs), at_once)
    row_s = (time.perf_counter() - started) / _rows(inputs)
    most = min(most, most_held(sum(array.size for array in given.values()) / _rows(inputs)))
    if row_s * most > _LONGEST_RUN_S:
        # One of two sizes, so that the same drop mostly has the same profile.
        most = min(most, 10_000 if row_s * 10_000 <= _LONGEST_RUN_S else _FEWEST_ROWS)
    if most > _rows(inputs) or row_s * _rows(inputs) > _LONGEST_RUN_S:
        inputs = _prepared(model, data, most, step)
        given = model.run_rows(inputs, _rows(inputs), at_once)
    return inputs, given


def _prepared(model: LoadedModel, data: Sample, most: int, step: int) -> Rows:
    """That many rows as the runtime takes them, in whole batches where the graph fixes these."""
    rows = min(most, data.rows)
    rows -= rows % step
    if not rows:
        raise _NoProfileError(f"{data.rows} rows fill none of the batches of {step} that the model takes")
    return model.prepared(_at(data.inputs, chosen(data.rows, rows)))


def _most(inputs: Rows, rows: int) -> int:
    row_bytes = sum(_row_bytes(array) for array in inputs.values())
    return max(1, min(rows, MAX_ROWS, int(_MAX_BYTES // max(1, row_bytes))))


def _row_bytes(array: Array) -> int:
    # Values are looked at as numbers of 8 bytes.
    return max(8, array.dtype.itemsize) * max(1, array.size // max(1, len(array)))


def _rows(arrays: Rows) -> int:
    return len(next(iter(arrays.values())))


def _at(arrays: Rows, at: Array) -> dict[str, Array]:
    return {name: array[at] for name, array in arrays.items()}


def _names(chain: Chain) -> Mapping[str, tuple[str, ...]]:
    """What the columns of each input are called."""
    manifest, inputs = chain.work.manifest, chain.loaded.signature.inputs
    named = dict(manifest.inputs)
    if len(inputs) == 1 and manifest.feature_names:
        named.setdefault(inputs[0].name, manifest.feature_names)
    return named


def _estimate(chain: Chain, profile: Profile) -> tuple[PerformanceModel | None, str]:
    """The estimate, or what it wants, in words that follow "no"."""
    data, outputs, predictions = chain.data, chain.outputs, chain.predictions
    if data is None or outputs is None or predictions is None:
        return None, "labels to estimate performance by"
    is_regression = predictions.task is Task.REGRESSION
    observed = predictions.absolute_errors if is_regression else predictions.correct.astype(np.float64)
    most = min(_most(data.inputs, data.rows), _MAX_CODES // max(1, len(profile.features)))
    at = chosen(data.rows, most)
    columns = Columns([({**_at(data.inputs, at), **_at(outputs, at)}, len(at))])
    model = fitted(profile, codes_of(profile, columns), observed[at])
    if model is None:
        return None, f"estimate of performance: {len(at)} labelled rows are too few"
    content = canonical_json(model.model_dump(mode="json"))
    if len(content) > MAX_PERFORMANCE_BYTES:
        return None, f"estimate of performance: it would take {len(content)} bytes"
    chain.leave(PERFORMANCE_FILE, content)
    chain.has_performance = True
    return model, ""
