"""What the server says of itself and its models: metadata, configuration, statistics, the index of what is loaded."""

from collections.abc import Mapping
from typing import Any

from aks_serving.grpc.messages import (
    DATA_TYPES,
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
)
from aks_serving.model import Signature
from aks_serving.serving import Serving
from aks_serving.v2 import PLATFORM, SERVER_NAME, SERVER_VERSION
from shared.core.errors import NotFoundError

EXTENSIONS = ("model_configuration", "statistics", "model_repository")
_BACKEND = "onnxruntime"
_NS_PER_MS = 1_000_000


def server_metadata() -> Any:  # noqa: ANN401 - a message
    """Name, version, and the extensions of the protocol that are answered."""
    return ServerMetadataResponse(name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS)


def model_metadata(serving: Serving, version: int | None) -> Any:  # noqa: ANN401 - a message
    """What a model takes and gives, and its loaded versions. Raises NotFoundError for a version that is not loaded."""
    signature = _signature(serving, version)
    message = ModelMetadataResponse(
        name=serving.plan.endpoint, versions=[str(number) for number in sorted(serving.lanes)], platform=PLATFORM
    )
    for tensors, specs in ((message.inputs, signature.inputs), (message.outputs, signature.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return message


def model_config(serving: Serving, version: int | None) -> Any:  # noqa: ANN401 - a message
    """The model's configuration. `max_batch_size` is 0: shapes are whole, the dimension of rows among them.

    Raises NotFoundError for a version that is not loaded.
    """
    signature = _signature(serving, version)
    message = ModelConfigResponse()
    config = message.config
    config.name, config.platform, config.backend = serving.plan.endpoint, PLATFORM, _BACKEND
    for tensors, specs in ((config.input, signature.inputs), (config.output, signature.outputs)):
        for spec in specs:
            name = "STRING" if spec.datatype == "BYTES" else spec.datatype
            tensors.add(name=spec.name, data_type=DATA_TYPES[f"TYPE_{name}"], dims=spec.shape)
    return message


def statistics(servings: Mapping[str, Serving], totals: Mapping[str, Mapping[int, Any]], version: int | None) -> Any:  # noqa: ANN401 - a message
    """Counts since the server's start, of requests: assigned ones that were answered, with their time, and failures.

    `inference_count` also counts requests that named the version, and those that it answered for another.
    """
    message = ModelStatisticsResponse()
    for endpoint, serving in sorted(servings.items()):
        tallies = totals.get(endpoint, {})
        for number in sorted(serving.lanes):
            if version not in {None, number}:
                continue
            stats = message.model_stats.add(name=endpoint, version=str(number))
            tally = tallies.get(number)
            if tally is None:
                continue
            answered = tally.requests - tally.errors
            stats.inference_count = answered + tally.fallbacks + tally.pinned
            stats.inference_stats.success.count = answered
            stats.inference_stats.success.ns = round(tally.latency_ms_sum * _NS_PER_MS)
            stats.inference_stats.fail.count = tally.errors
    return message


def index(servings: Mapping[str, Serving], *, ready_only: bool) -> Any:  # noqa: ANN401 - a message
    """Every version of every endpoint's plan, loaded or not, and why not."""
    message = RepositoryIndexResponse()
    for endpoint, serving in sorted(servings.items()):
        for number in sorted({*serving.lanes, *serving.failed}):
            ready = number in serving.lanes
            if ready or not ready_only:
                state = "READY" if ready else "LOADING" if number in serving.waiting else "UNAVAILABLE"
                reason = "" if ready else serving.failed[number]
                message.models.add(name=endpoint, version=str(number), state=state, reason=reason)
    return message


def _signature(serving: Serving, version: int | None) -> Signature:
    route = serving.plan.stable or serving.plan.candidate
    number = version if version is not None else route.version if route is not None else 0
    lane = serving.lanes.get(number)
    if lane is None:
        raise NotFoundError(
            f"version {number} of endpoint {serving.plan.endpoint!r}", hint=f"loaded: {sorted(serving.lanes)}"
        )
    return lane.model.signature
