"""Who makes a gRPC call, until when they wait, and what they are told beside the answer."""

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

from aks_serving.awaited import Prediction
from aks_serving.grpc.status import UnauthenticatedError

type Authorize = Callable[[bytes | None], bool]
"""Whether the value of the metadata `authorization`, None where there is none, lets a caller in."""


class Caller:
    """A call's metadata, by lower-case name and of a name that came twice the last, and its times (perf_counter)."""

    __slots__ = ("_context", "deadline_s", "headers", "started_s")

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - a grpc.aio.ServicerContext
        """The caller of a call that has just begun."""
        self._context = context
        self.started_s = perf_counter()
        remaining_s = context.time_remaining()
        self.deadline_s = math.inf if remaining_s is None else self.started_s + remaining_s
        self.headers: dict[bytes, bytes] = {
            name.encode(): value.encode() if isinstance(value, str) else value
            for name, value in context.invocation_metadata() or ()
        }

    def check(self, authorize: Authorize | None) -> None:
        """Raises UnauthenticatedError where the caller may not call."""
        if authorize is not None and not authorize(self.headers.get(b"authorization")):
            raise UnauthenticatedError

    def tell(self, prediction: Prediction) -> None:
        """Have trailing metadata say who answered."""
        metadata = [
            ("x-slipway-version", str(prediction.version)),
            ("x-slipway-role", prediction.role.value),
            ("x-slipway-generation", str(prediction.generation)),
            ("x-slipway-prediction-id", prediction.prediction_id),
        ]
        if prediction.fallback:
            metadata.append(("x-slipway-fallback", "true"))
        self._context.set_trailing_metadata(metadata)
