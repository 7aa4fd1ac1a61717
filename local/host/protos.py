"""Plain classes in place of the worker protocol's protobuf messages.

Microsoft's worker library takes its message classes as an argument. These have the names and fields that it reads and
writes, and nothing else: no gRPC, no protobuf, and no copy of a payload on its way into a function. Field names are
the protocol's (`FunctionRpc.proto`), hence the spelling of `WhichOneof`.
"""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any


class TypedData:
    """One value of one kind: `TypedData(string="x")`, or `TypedData()` for no value."""

    __slots__ = ("kind", "value")

    def __init__(self, **one: Any) -> None:  # noqa: ANN401 - the kinds have different types
        self.kind: str | None = next(iter(one), None)
        self.value: Any = None if self.kind is None else one[self.kind]

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - the kinds have different types
        if name == self.kind:
            return self.value
        raise AttributeError(name)

    def WhichOneof(self, _group: str) -> str | None:  # noqa: N802 - the protocol's name
        """The kind of value held."""
        return self.kind


@dataclass(slots=True, kw_only=True)
class ParameterBinding:
    """A value for, or from, one binding."""

    name: str
    data: TypedData | None

    def WhichOneof(self, _group: str) -> str:  # noqa: N802 - the protocol's name
        """Values never travel by shared memory here."""
        return "data"


@dataclass(slots=True, kw_only=True)
class ModelBindingData:
    """What an SDK-type parameter is made from; `content` is JSON."""

    content: str
    source: str
    content_type: str = "application/json"
    version: str = "1.0"


@dataclass(slots=True, kw_only=True)
class RpcHttp:
    """An HTTP request or response."""

    method: str = ""
    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    body: TypedData | None = None
    status_code: str = "200"
    cookies: "list[RpcHttpCookie] | None" = None
    enable_content_negotiation: bool = False


@dataclass(slots=True, kw_only=True)
class Timestamp:
    """Seconds since 1970, UTC."""

    seconds: int


@dataclass(slots=True, kw_only=True)
class Nullable[T]:
    """A value that may be absent as a whole."""

    value: T


class NullableString(Nullable[str]):
    """Text."""

    __slots__ = ()


class NullableBool(Nullable[bool]):
    """A truth value."""

    __slots__ = ()


class NullableDouble(Nullable[float]):
    """A number."""

    __slots__ = ()


class NullableTimestamp(Nullable[Timestamp]):
    """A moment."""

    __slots__ = ()


SameSite = IntEnum("SameSite", [("None", 0), ("Lax", 1), ("Strict", 2), ("ExplicitNone", 3)])


@dataclass(slots=True, kw_only=True)
class RpcHttpCookie:
    """A cookie that a response sets."""

    name: str
    value: str
    domain: NullableString | None
    path: NullableString | None
    expires: NullableTimestamp | None
    secure: NullableBool | None
    http_only: NullableBool | None
    same_site: int
    max_age: NullableDouble | None

    SameSite = SameSite


@dataclass(slots=True, kw_only=True)
class RpcException:
    """What a function, or the indexing of the app, raised."""

    message: str
    stack_trace: str = ""
    source: str = ""


@dataclass(slots=True, kw_only=True)
class StatusResult:
    """Success or failure, with its exception."""

    status: int
    exception: RpcException | None = None

    Failure = 0
    Success = 1


@dataclass(slots=True, kw_only=True)
class BindingInfo:
    """A binding's type and direction, as the library's index tells them."""

    type: str
    data_type: int | None
    direction: int

    inout = 2
    out = 1
    undefined = 0


@dataclass(slots=True, kw_only=True)
class RpcFunctionMetadata:
    """One indexed function. `raw_bindings` are JSON texts, as a function.json would hold them."""

    name: str
    function_id: str
    directory: str
    script_file: str
    entry_point: str
    language: str
    managed_dependency_enabled: bool
    is_proxy: bool
    bindings: dict[str, BindingInfo]
    raw_bindings: list[str]
    retry_options: object | None
    properties: dict[str, str]


@dataclass(slots=True, kw_only=True)
class RpcRetryOptions:
    """A retry policy that a function declares."""

    max_retry_count: int
    retry_strategy: str
    delay_interval: object | None = None
    minimum_interval: object | None = None
    maximum_interval: object | None = None


@dataclass(slots=True, kw_only=True)
class FunctionMetadataResponse:
    """The index of the app; None where it holds no function."""

    use_default_metadata_indexing: bool
    function_metadata_results: list[RpcFunctionMetadata] | None
    result: StatusResult


@dataclass(slots=True, kw_only=True)
class WorkerMetadata:
    """What the library says of itself."""

    runtime_name: str
    runtime_version: str
    worker_version: str
    worker_bitness: str
    custom_properties: dict[str, str]


@dataclass(slots=True, kw_only=True)
class WorkerInitRequest:
    """The first request: index the app of this directory."""

    function_app_directory: str
    capabilities: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class WorkerInitResponse:
    """Whether the app was indexed."""

    capabilities: dict[str, str]
    worker_metadata: WorkerMetadata
    result: StatusResult


@dataclass(slots=True, kw_only=True)
class TraceContext:
    """W3C trace context."""

    trace_parent: str
    trace_state: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class RetryContext:
    """The state of a retry policy; this host has none."""

    retry_count: int = 0
    max_retry_count: int = 0
    exception: RpcException | None = None


@dataclass(slots=True, kw_only=True)
class InvocationRequest:
    """Call a function."""

    invocation_id: str
    function_id: str
    input_data: list[ParameterBinding]
    trigger_metadata: dict[str, TypedData]
    trace_context: TraceContext
    retry_context: RetryContext = field(default_factory=RetryContext)


@dataclass(slots=True, kw_only=True)
class InvocationResponse:
    """What a call gave."""

    invocation_id: str
    result: StatusResult
    return_value: TypedData | None = None
    output_data: list[ParameterBinding] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class StreamingMessage:
    """The envelope: one of the requests."""

    worker_init_request: WorkerInitRequest | None = None
    invocation_request: InvocationRequest | None = None


@dataclass(slots=True, kw_only=True)
class Request:
    """What the library's handlers take. `properties` hands over the host's address and these classes."""

    request: StreamingMessage
    properties: dict[str, object] = field(default_factory=dict)
