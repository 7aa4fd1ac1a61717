"""Steps on the machine: how the model takes unexpected inputs, how fast it answers, and golden rows for servers."""

import math

import onnxruntime

from shared.core.verdict import Outcome, joined
from shared.validation.chain import Chain
from shared.validation.checks.latency import latency
from shared.validation.checks.robustness import robustness
from shared.validation.checks.verdicts import failed, passed, unclear
from shared.validation.datafile import Array
from shared.validation.golden import NoGoldenRowsError, NotRepeatableError, golden_rows, spread_over
from shared.validation.model import LoadedModel, ModelError, Rows
from shared.validation.probes.behaviour import observe
from shared.validation.probes.inputs import NoInputsError, made_up_rows, spread_at
from shared.validation.probes.timing import interleaved
from shared.validation.steps.data import FULL_BATCH_ROWS, batch_rows
from shared.validation.steps.model import session
from shared.validation.tolerance import tolerances_of
from shared.validation.wire import GOLDEN_FILE, Stage

_SECOND_SESSION_BYTES = 200_000_000
"""Models above this are not loaded twice at once."""
_TIMED_ROWS = 16
_FEWEST_ROWS = 4
_MOST_VALUES = 1_000_000


def check_robustness(chain: Chain) -> bool:
    """Unexpected inputs, repeats, and rows alone against rows in a batch."""
    model = chain.loaded
    most = _rows_to_try(model)
    if model.without_rows:
        chain.add(passed("robustness", f"not tried: {model.without_rows}"))
        return True
    batch, rows = batch_rows(chain, most=most), model.rows_at_once or most
    if batch is None or not _answers(model, batch, rows):
        chain.add(passed("robustness", "not tried: no inputs can be made up that the model answers"))
        return True
    small = chain.work.model.size_bytes <= _SECOND_SESSION_BYTES
    tolerances = tolerances_of(model.signature, chain.work.manifest)
    observations = observe(
        model,
        batch,
        rows,
        tolerances,
        measured=_measured(chain, rows),
        again=(lambda: session(chain.work.model, chain)) if small else None,
        begin=chain.begin,
    )
    findings, verdicts = robustness(observations, tolerances)
    chain.sections["robustness"] = findings
    chain.add(*verdicts)
    return True


def check_latency(chain: Chain) -> bool:
    """Single calls of the version and of the champion, interleaved."""
    if chain.loaded.without_rows:
        return True
    chain.begin(Stage.TIMING)
    model, rows = chain.loaded, chain.loaded.rows_at_once or 1
    calls = _single_calls(chain, rows)
    if not calls:
        return True
    beside = chain.champion if chain.champion is not None and _takes(chain.champion, calls[0], rows) else None
    try:
        timings = interleaved(model, beside, calls, rows_a_call=rows)
    except ModelError:
        return True  # what it does not answer, other checks have said
    figures, verdict = latency(timings.candidate_ns, timings.champion_ns, rows_a_call=rows, policy=chain.work.policy)
    chain.sections["latency"] = figures
    chain.add(verdict)
    return True


def make_golden(chain: Chain) -> bool:
    """Golden rows of a version that nothing speaks against."""
    if joined(chain.verdicts) is not Outcome.PASS:
        return False
    chain.begin(Stage.GOLDEN)
    data = chain.data
    try:
        content, cases = golden_rows(
            chain.loaded,
            data.inputs if data else None,
            order=spread_over(_predicted(chain), data.rows if data else 0),
            tolerances=tolerances_of(chain.loaded.signature, chain.work.manifest),
            runtime=f"onnxruntime {onnxruntime.__version__}",
        )
    except NotRepeatableError as error:
        # Metrics of a model that answers by chance cannot be repeated, nor can a server prove that it has it.
        return chain.add(unclear("golden", f"no golden rows: {error}"))
    except NoGoldenRowsError as error:
        return chain.add(passed("golden", f"no golden rows: {error}"))
    except ModelError as error:
        if data is None:
            # A model that fails on inputs that were made up may still be right; on its own data it may not fail.
            return chain.add(passed("golden", f"no golden rows: on made-up inputs {error}"))
        return chain.add(failed("golden", str(error)))
    chain.leave(GOLDEN_FILE, content)
    chain.has_golden = True
    return chain.add(passed("golden", f"{cases} golden rows, the same when run twice", n=cases))


def _rows_to_try(model: LoadedModel) -> int:
    """A server's full batch, or fewer of a model that takes or gives much a row."""
    specs = (*model.signature.inputs, *model.signature.outputs)
    values_a_row = max(math.prod(abs(size) for size in spec.shape[1:]) for spec in specs)
    return max(_FEWEST_ROWS, min(FULL_BATCH_ROWS, _MOST_VALUES // max(values_a_row, 1)))


def _measured(chain: Chain, rows: int) -> Rows | None:
    """What the run over the data answered to the rows of `batch_rows`."""
    if chain.data is None or chain.outputs is None:
        return None
    at = spread_at(chain.data.rows, rows)
    return {name: array[at] for name, array in chain.outputs.items()}


def _predicted(chain: Chain) -> Array | None:
    """One class or number a row, to spread golden rows over."""
    if chain.predictions is None:
        return None
    predicted = chain.predictions.predicted
    return predicted if predicted.ndim == 1 else predicted[:, 0]


def _answers(model: LoadedModel, batch: Rows, rows: int) -> bool:
    try:
        model.run_rows(batch, rows, rows)
    except ModelError:
        return False
    return True


def _single_calls(chain: Chain, rows: int) -> list[dict[str, Array]]:
    """Inputs of calls of as few rows as the model takes, of the data or made up."""
    if chain.data is None:
        try:
            made_up = [made_up_rows(chain.loaded.signature, rows)]
        except NoInputsError:
            return []
        return made_up if _answers(chain.loaded, made_up[0], rows) else []
    count = min(_TIMED_ROWS, chain.data.rows // rows)
    return [
        {name: array[number * rows : (number + 1) * rows] for name, array in chain.data.inputs.items()}
        for number in range(count)
    ]


def _takes(champion: LoadedModel, call: Rows, rows: int) -> bool:
    """Whether the champion answers the same calls."""
    wanted = {spec.name for spec in champion.signature.inputs}
    return wanted <= call.keys() and _answers(champion, {name: call[name] for name in wanted}, rows)
