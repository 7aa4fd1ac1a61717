"""Steps on the model's file and the session made from it: is it a model, does it load, whom does it break?"""

import math
from typing import Any

import onnx

from shared.registry.signature import signature_diff
from shared.validation.chain import Chain
from shared.validation.checks import file as file_checks
from shared.validation.checks import load as load_checks
from shared.validation.checks.verdicts import failed, listed, unclear
from shared.validation.details import LoadFigures
from shared.validation.external import link_external
from shared.validation.graph import nodes, read_model, tensors
from shared.validation.model import LoadedModel, ModelError, load
from shared.validation.probes.memory import growth_by_runs, measured_load
from shared.validation.refusal import DropRefusedError
from shared.validation.tolerance import too_wide, unusable_tolerances
from shared.validation.wire import ModelFiles, Stage


def check_file(chain: Chain) -> bool:
    """The file: its size, then whether it is an ONNX model of operators that the runtime has."""
    chain.begin(Stage.CHECKING)
    files = chain.work.model
    if not chain.add(file_checks.size(files.size_bytes, chain.work.policy)):
        return False
    try:
        model = read_model(files.path, workdir=chain.workdir, external=files.external)
    except DropRefusedError as refusal:
        return chain.add(failed("onnx", str(refusal)))
    chain.graph = _graph_facts(model)
    return chain.add(file_checks.operators(model))


def load_model(chain: Chain) -> bool:
    """The session: whether there is one, what it costs, and what the manifest says of its outputs."""
    chain.begin(Stage.LOADING)
    try:
        chain.model, cost = measured_load(lambda: session(chain.work.model, chain))
    except (ModelError, DropRefusedError) as error:
        return chain.add(failed("load", str(error)))
    unusable = load_checks.signature_unusable(chain.model.signature)
    if unusable is not None:
        chain.model = None
        return chain.add(unusable)
    figures = LoadFigures(
        load_s=round(cost.load_s, 6),
        resident_bytes=cost.resident_bytes,
        peak_bytes=cost.peak_bytes,
        predicted_server_bytes=_predicted(chain.work.model, cost.resident_bytes),
        **chain.graph,
    )
    chain.sections["load"] = figures
    foreign = unusable_tolerances(chain.model.signature, chain.work.manifest)
    if foreign:
        names = listed(foreign, quoted=True)
        return chain.add(failed("load", f"the manifest's tolerances name {names}, which is no output of numbers"))
    chain.add(load_checks.loads(chain.model.signature, figures))
    claimed, policy = chain.work.manifest.tolerances, chain.work.policy
    if claimed:
        beyond = too_wide(
            chain.model.signature, chain.work.manifest, max_rtol=policy.max_rtol, max_atol=policy.max_atol
        )
        chain.add(load_checks.tolerance(claimed, beyond, policy))
    return True


def weigh(chain: Chain, batch: dict[str, Any] | None) -> None:
    """What the version will cost a server, once a full batch has run. Raises ModelError where it does not run.

    Without a batch what it cost to load is held against the limit.
    """
    figures: LoadFigures = chain.sections["load"]
    if batch is None:
        chain.add(load_checks.memory(figures, chain.work.policy, has_run=False))
        return
    grown = figures.resident_bytes + growth_by_runs(chain.loaded, batch)
    figures = figures.model_copy(
        update={
            "resident_bytes": grown,
            "predicted_server_bytes": _predicted(chain.work.model, grown),
            "peak_bytes": max(figures.peak_bytes, grown),
        }
    )
    chain.sections["load"] = figures
    chain.add(load_checks.memory(figures, chain.work.policy))


def compare_signature(chain: Chain) -> bool:
    """The champion's session, and what the version's signature means to its callers."""
    work = chain.work
    if work.champion is None:
        if work.champion_unusable:
            chain.champion_unusable = work.champion_unusable
            chain.add(unclear("signature", f"{chain.champion_name} {work.champion_unusable}", advisory=True))
        return True
    chain.begin(Stage.CHAMPION)
    try:
        chain.champion = session(work.champion, chain)
    except (ModelError, DropRefusedError) as error:
        chain.champion_unusable = f"does not load: {error}"
    except MemoryError:
        chain.champion_unusable = "does not fit into memory beside this version"
    if chain.champion is None:
        return chain.add(unclear("signature", f"{chain.champion_name} {chain.champion_unusable}", advisory=True))
    diff = load_checks.bounded(signature_diff(chain.champion.signature, chain.loaded.signature))
    chain.sections["signature"] = diff
    return chain.add(load_checks.signature(diff, work.champion_version))


def session(files: ModelFiles, chain: Chain) -> LoadedModel:
    """A session of a model with its external data. Raises ModelError, DropRefusedError or MemoryError."""
    return load(link_external(files, chain.workdir))


def _predicted(files: ModelFiles, grown_bytes: int) -> int:
    return load_checks.predicted_server_bytes(grown_bytes=grown_bytes, size_bytes=files.size_bytes)


def _tensor_bytes(tensor: onnx.TensorProto) -> int:
    """What its values take, wherever they lie. Text counts by its length."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    return math.prod(map(int, tensor.dims)) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _graph_facts(model: onnx.ModelProto) -> dict[str, Any]:
    held = list(tensors(model))
    return {
        "ir_version": model.ir_version,
        "opsets": dict(list(file_checks.opsets(model).items())[:20]),
        "nodes": sum(1 for _ in nodes(model)),
        "initializers": len(held),
        "initializer_bytes": sum(_tensor_bytes(tensor) for tensor in held),
    }
