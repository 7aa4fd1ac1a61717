"""What the server says of itself and its models: metadata, configuration, statistics, the index of what is loaded.

What they say is aks_serving.v2_extensions'; here it becomes messages.
"""

from collections.abc import Mapping
from typing import Any

from aks_serving import v2_extensions
from aks_serving.grpc.messages import (
    ModelConfigResponse,
    ModelMetadataResponse,
    ModelStatisticsResponse,
    RepositoryIndexResponse,
    ServerMetadataResponse,
)
from aks_serving.serving import Serving
from aks_serving.v2 import EXTENSIONS, PLATFORM, SERVER_NAME, SERVER_VERSION
from aks_serving.v2_extensions import Totals, signature_of


def server_metadata() -> Any:  # noqa: ANN401 - a message
    """Name, version, and the extensions of the protocol that are answered."""
    return ServerMetadataResponse(name=SERVER_NAME, version=SERVER_VERSION, extensions=EXTENSIONS)


def model_metadata(serving: Serving, version: int | None) -> Any:  # noqa: ANN401 - a message
    """What a model takes and gives, and its loaded versions. Raises as `signature_of`."""
    signature = signature_of(serving, version)
    message = ModelMetadataResponse(
        name=serving.plan.endpoint, versions=[str(number) for number in sorted(serving.lanes)], platform=PLATFORM
    )
    for tensors, specs in ((message.inputs, signature.inputs), (message.outputs, signature.outputs)):
        for spec in specs:
            tensors.add(name=spec.name, datatype=spec.datatype, shape=spec.shape)
    return message


def model_config(serving: Serving, version: int | None) -> Any:  # noqa: ANN401 - a message
    """The model's configuration. Raises as `signature_of`."""
    return ModelConfigResponse(config=v2_extensions.config(serving, version))


def statistics(servings: Mapping[str, Serving], totals: Totals, version: int | None) -> Any:  # noqa: ANN401 - a message
    """Counts since the server's start. Raises as `signature_of`."""
    message = ModelStatisticsResponse()
    for name in sorted(servings):
        for one in v2_extensions.statistics(servings[name], totals, version):
            message.model_stats.add(**{field: value for field, value in one.items() if field != "batch_stats"})
    return message


def index(servings: Mapping[str, Serving], *, ready_only: bool) -> Any:  # noqa: ANN401 - a message
    """Every version of every endpoint's plan, loaded or not, and why not."""
    return RepositoryIndexResponse(models=v2_extensions.index(servings, ready_only=ready_only))
