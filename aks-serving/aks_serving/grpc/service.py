"""The Open Inference Protocol's gRPC service, `inference.GRPCInferenceService`: its methods over the model server.

What a plan decides in Slipway (which versions are loaded) a client cannot change here: those methods of the protocol
are answered with UNIMPLEMENTED and say so.
"""

import time
from collections.abc import Sequence
from typing import Any

import grpc

from aks_serving.api import Server
from aks_serving.awaited import Prediction, predict
from aks_serving.grpc import describe
from aks_serving.grpc.caller import Authorize, Caller
from aks_serving.grpc.calls import unary, unsupported
from aks_serving.grpc.leaving import Leaving
from aks_serving.grpc.messages import (
    INFERENCE,
    ModelConfigRequest,
    ModelMetadataRequest,
    ModelReadyRequest,
    ModelReadyResponse,
    ModelStatisticsRequest,
    RepositoryIndexRequest,
    ServerLiveResponse,
    ServerReadyResponse,
)
from aks_serving.grpc.request import InferRequest, parsed, read_request
from aks_serving.grpc.response import response
from aks_serving.grpc.spans import Spans
from aks_serving.grpc.streams import Streams
from aks_serving.override import Pinning, pinned_version
from aks_serving.serving import Serving
from aks_serving.subjects import subject_of
from aks_serving.tracing import note_answer
from shared.core.errors import InvalidInputError, NotFoundError
from shared.core.ids import version_number
from shared.core.tracing import Span

SERVICE = f"{INFERENCE}.GRPCInferenceService"
_INFER = f"/{SERVICE}/ModelInfer"

_BY_PLAN = "which versions are loaded is decided by the endpoint's route plan"
_NO_MEMORY = "tensors travel in messages, not in shared memory"
_UNSUPPORTED = {
    "RepositoryModelLoad": _BY_PLAN,
    "RepositoryModelUnload": _BY_PLAN,
    **dict.fromkeys(
        (
            f"{kind}SharedMemory{action}"
            for kind in ("System", "Cuda")
            for action in ("Status", "Register", "Unregister")
        ),
        _NO_MEMORY,
    ),
    "TraceSetting": "the server's environment decides what is traced",
    "LogSettings": "the server's environment decides what is logged",
}


class InferenceService:
    """The methods. Used from the event loop alone."""

    def __init__(
        self,
        server: Server,
        *,
        leaving: Leaving,
        timeout_s: float,
        pinning: Pinning,
        override_keys: Sequence[bytes],
        message_s: float,
        idle_s: float,
        spans: Spans,
    ) -> None:
        """As aks_serving.api.Api is told. `message_s` and `idle_s` are for how long calls and streams may be silent."""
        self._server = server
        self._timeout_s = timeout_s
        self._pinning = pinning
        self._override_keys = override_keys
        self._leaving = leaving
        self._message_s = message_s
        self._spans = spans
        self.streams = Streams(self._infer, leaving=leaving, message_s=message_s, idle_s=idle_s, spans=spans)

    def handler(self, authorize: Authorize | None) -> grpc.GenericRpcHandler:
        """All methods, as a gRPC server takes them. Liveness and readiness are told to anybody."""
        to_anybody = {"ServerLive": self._server_live, "ServerReady": self._server_ready}
        to_callers = {
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._model_infer,
            "ModelConfig": self._model_config,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
        }
        methods: dict[str, grpc.RpcMethodHandler] = {"ModelStreamInfer": self.streams.method(authorize)}
        for access, answers in ((None, to_anybody), (authorize, to_callers)):
            for name, answer in answers.items():
                methods[name] = unary(answer, access, leaving=self._leaving, message_s=self._message_s)
        methods |= {method: unsupported(method, reason) for method, reason in _UNSUPPORTED.items()}
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _server_live(self, _: bytes, __: Caller) -> Any:  # noqa: ANN401 - a message, as all below
        return ServerLiveResponse(live=True)

    async def _server_ready(self, _: bytes, __: Caller) -> Any:  # noqa: ANN401
        return ServerReadyResponse(ready=not self._server.not_ready())

    async def _model_ready(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401
        asked = parsed(ModelReadyRequest, data)
        version = version_number(asked.version) if asked.version else None
        serving = self._server.servings.get(asked.name)
        if serving is None:
            return ModelReadyResponse(ready=False)
        return ModelReadyResponse(ready=serving.answers if version is None else version in serving.lanes)

    async def _server_metadata(self, _: bytes, __: Caller) -> Any:  # noqa: ANN401
        return describe.server_metadata()

    async def _model_metadata(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401
        return describe.model_metadata(*self._named(parsed(ModelMetadataRequest, data)))

    async def _model_config(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401
        return describe.model_config(*self._named(parsed(ModelConfigRequest, data)))

    async def _model_statistics(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401
        asked = parsed(ModelStatisticsRequest, data)
        servings, version = dict(self._server.servings), None
        if asked.name:
            serving, version = self._named(asked)
            servings = {serving.plan.endpoint: serving}
        elif asked.version:
            raise InvalidInputError("a version is named and no model: name the model too")
        return describe.statistics(servings, self._server.totals(), version)

    async def _repository_index(self, data: bytes, _: Caller) -> Any:  # noqa: ANN401
        asked = parsed(RepositoryIndexRequest, data)
        if asked.repository_name:
            raise NotFoundError(f"repository {asked.repository_name[:80]!r}", hint="there is one, without a name")
        return describe.index(self._server.servings, ready_only=asked.ready)

    async def _model_infer(self, data: bytes, caller: Caller) -> Any:  # noqa: ANN401
        with self._spans(caller, _INFER) as span:
            message, prediction = await self._infer(read_request(data), caller, caller.started_s, span)
        caller.tell(prediction)
        return message

    async def _infer(
        self, request: InferRequest, caller: Caller, started_s: float, span: Span | None
    ) -> tuple[Any, Prediction]:
        serving = self._server.servings.named(request.message.model_name)
        endpoint = serving.plan.endpoint
        pin = pinned_version(
            caller.headers,
            request.version(),
            endpoint=endpoint,
            keys=self._override_keys,
            pinning=self._pinning,
            now_s=time.time(),
        )
        if pin is not None and pin.by:
            serving.overridden(pin.version, pin.by)
        timeout_s = request.timeout_s()
        prediction = await predict(
            serving,
            request.feeds,
            version=None if pin is None else pin.version,
            subject=subject_of(caller.headers, request.user(), serving.plan.subject),
            started_s=started_s,
            held_bytes=request.held_bytes,
            deadline_s=min(caller.deadline_s, started_s + (self._timeout_s if timeout_s is None else timeout_s)),
            priority=request.priority(),
            span=span,
        )
        if span is not None:
            note_answer(span, prediction.prediction_id)
        return response(request, prediction, endpoint), prediction

    def _named(self, asked: Any) -> tuple[Serving, int | None]:  # noqa: ANN401
        return self._server.servings.named(asked.name), version_number(asked.version) if asked.version else None
