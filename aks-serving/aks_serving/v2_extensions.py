"""Endpoints that Triton's clients ask for beside the protocol's own: described, counted, listed, or refused.

    answer(method, parts, body, servings, totals)   # the JSON value that answers the path /v2/<parts>

Answered are the index of the repository, a model's configuration and its statistics. What would change the server (load
and unload, trace and log settings) or needs memory that is shared with the caller is refused with the reason: the route
plan alone says what is loaded. Nothing here changes anything.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from aks_serving.counts import VersionTally
from aks_serving.escapes import why
from aks_serving.failures import check_method
from aks_serving.model import Signature, TensorSpec
from aks_serving.serving import Serving, Servings
from aks_serving.v2 import PLATFORM
from shared.core.errors import InvalidInputError
from shared.core.ids import version_number

type Totals = Mapping[str, Mapping[int, VersionTally]]

_NO_LOADING = "what is loaded is said by the endpoint's route plan: roll a version out, or back, through the admin API"
_NO_SHARING = (
    "this server shares no memory with its callers: send tensors in the body, as binary data where they are large"
)
_NO_SETTINGS = "this server has no settings to be had or changed while it runs: its environment sets them at its start"


class _IndexRequest(msgspec.Struct):
    ready: bool = False


_INDEX_REQUEST = msgspec.json.Decoder(_IndexRequest)


def answer(method: str, parts: Sequence[str], body: bytes, servings: Servings, totals: Callable[[], Totals]) -> Any:  # noqa: ANN401 - a JSON value
    """What answers the path /v2/<parts>, or None where it is none of these endpoints.

    Raises InvalidInputError for what is refused, NotFoundError, NotServingError, or MethodNotAllowedError.
    """
    match list(parts):
        case ["repository", "index"]:
            check_method(method, "POST")
            return index(servings, ready_only=_index_request(body).ready)
        case ["repository", "models", _, "load" | "unload"]:
            raise InvalidInputError(_NO_LOADING)
        case ["systemsharedmemory" | "cudasharedmemory", *_]:
            raise InvalidInputError(_NO_SHARING)
        case ["logging"] | ["trace", "setting"] | ["models", _, "trace", "setting"]:
            raise InvalidInputError(_NO_SETTINGS)
        case ["models", "stats"]:
            check_method(method, "GET")
            counted = totals()
            return {"model_stats": [one for name in sorted(servings) for one in statistics(servings[name], counted)]}
        case ["models", model, "config" | "stats" as what]:
            check_method(method, "GET")
            return _of_model(servings.named(model), None, what, totals)
        case ["models", model, "versions", version, "config" | "stats" as what]:
            check_method(method, "GET")
            return _of_model(servings.named(model), version_number(version), what, totals)
    return None


def index(servings: Mapping[str, Serving], *, ready_only: bool) -> list[dict[str, str]]:
    """Every version of every plan, whether it is loaded, and why not. One that storage keeps waiting is loading."""
    listed = []
    for name in sorted(servings):
        serving = servings[name]
        for version in sorted({*serving.lanes, *serving.failed}):
            if version in serving.lanes:
                listed.append({"name": name, "version": str(version), "state": "READY", "reason": ""})
            elif not ready_only:
                state, reason = "LOADING" if version in serving.waiting else "UNAVAILABLE", serving.failed[version]
                listed.append({"name": name, "version": str(version), "state": state, "reason": reason})
    return listed


def config(serving: Serving, version: int | None) -> dict[str, Any]:
    """A model's configuration, as `signature_of` has it. Shapes hold the first dimension too, so the batch size is 0:
    not set apart. Raises as `signature_of`.
    """
    signature = signature_of(serving, version)
    return {
        "name": serving.plan.endpoint,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [_configured(spec) for spec in signature.inputs],
        "output": [_configured(spec) for spec in signature.outputs],
    }


def statistics(serving: Serving, totals: Totals, version: int | None = None) -> list[dict[str, Any]]:
    """What the loaded versions, or one of them, did since the server's start. Raises as `signature_of`.

    Counted are requests: assigned ones that were answered, and failures; `inference_count` has those too that named the
    version, and those that it answered for another.
    `ns` is the time from a request's arrival to its answer; the parts that Triton counts apart are not measured apart.
    """
    if version is not None:
        signature_of(serving, version)
    counted = totals.get(serving.plan.endpoint, {})
    versions = sorted(serving.lanes) if version is None else [version]
    return [_statistics(serving.plan.endpoint, number, counted.get(number, VersionTally())) for number in versions]


def signature_of(serving: Serving, version: int | None) -> Signature:
    """The signature of a version, or of the one that answers in the main. Raises what `Serving.absent` gives."""
    route = serving.stable or serving.candidate
    number = version if version is not None or route is None else route.version
    lane = None if number is None else serving.lanes.get(number)
    if lane is None:
        raise serving.absent(number)
    return lane.model.signature


def _statistics(model: str, version: int, tally: VersionTally) -> dict[str, Any]:
    answered = tally.requests - tally.errors
    return {
        "name": model,
        "version": str(version),
        "inference_count": answered + tally.fallbacks + tally.pinned - tally.pinned_errors,
        "inference_stats": {
            "success": {"count": answered, "ns": round(tally.latency_ms_sum * 1e6)},
            "fail": {"count": tally.errors, "ns": 0},
        },
        "batch_stats": [],
    }


def _of_model(serving: Serving, version: int | None, what: str, totals: Callable[[], Totals]) -> dict[str, Any]:
    if what == "stats":
        return {"model_stats": statistics(serving, totals(), version)}
    return config(serving, version)


def _index_request(body: bytes) -> _IndexRequest:
    if not body.strip():
        return _IndexRequest()
    try:
        return _INDEX_REQUEST.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInputError(f"the body is not a request for the index: {why(error, body)}") from error


def _configured(spec: TensorSpec) -> dict[str, Any]:
    datatype = "STRING" if spec.datatype == "BYTES" else spec.datatype
    return {"name": spec.name, "data_type": f"TYPE_{datatype}", "dims": list(spec.shape)}
