"""The plain API's bodies: features in, predictions out. No transport, no model runs here.

`features` is the data of the only input, an object of data by input name, or rows that are such objects; nesting gives
the shape. A column of single values ([1, 2]) serves for an input of shape [-1, 1]. `predictions` is the model's first
output (a classifier's labels); a model with several outputs also gives all of them by name in `outputs`.
"""

import re
from typing import Annotated

import msgspec

from aks_serving.batches import Results
from aks_serving.escapes import why
from aks_serving.model import Signature, TensorSpec
from aks_serving.serving import Face
from aks_serving.tables import by_column, read_query
from aks_serving.tensors import Array, Feeds, read
from aks_serving.v2 import check_names
from shared.core.errors import InvalidInputError

_SHOWN = 80
_encode = msgspec.json.Encoder().encode


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request. `model` names the endpoint, and may be left out where the server serves exactly one.

    `timeout_ms` is how long the caller waits; a request that has not begun to run by then does not.
    """

    features: msgspec.Raw
    model: str | None = None
    model_version: int | str | None = None
    user_id: str | int | None = None
    timeout_ms: Annotated[float, msgspec.Meta(gt=0)] | None = None

    def feeds(self, signature: Signature) -> Feeds:
        """The features as a signature wants them. Raises InvalidInputError."""
        by_name = self._by_name(signature)
        check_names(signature, by_name, total=len(by_name))
        return {spec.name: _array(by_name[spec.name], spec) for spec in signature.inputs}

    def _by_name(self, signature: Signature) -> dict[str, msgspec.Raw]:
        if bytes(self.features[:1] if isinstance(self.features, bytes) else memoryview(self.features)[:1]) == b"{":
            return _decoded(_BY_NAME, self.features)
        if _OBJECTS.match(self.features):
            return by_column(self.features)
        if len(signature.inputs) != 1:
            names = ", ".join(spec.name for spec in signature.inputs)
            raise InvalidInputError(f"the model takes {len(signature.inputs)} inputs: give features by name: {names}")
        return {signature.inputs[0].name: self.features}


_OBJECTS = re.compile(rb"\s*\[\s*\{")
_REQUEST = msgspec.json.Decoder(PredictRequest)
_BY_NAME = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_request(body: bytes, query: bytes = b"") -> PredictRequest:
    """Read a request. What it says beside its features may stand in the query, and for a body that is rows of objects
    only there; where both say it, they say the same. Raises InvalidInputError.
    """
    said = read_query(query) if query else {}
    if _OBJECTS.match(body):
        return PredictRequest(msgspec.Raw(body), **said)
    asked = _decoded(_REQUEST, body)
    for name, value in said.items():
        own = getattr(asked, name)
        if own is None:
            setattr(asked, name, value)
        elif value is not None and str(own) != str(value):
            raise InvalidInputError(
                f"{name} is {str(own)[:_SHOWN]!r} in the body and {str(value)[:_SHOWN]!r} in the query: name one"
            )
    return asked


def response(face: Face, number: bytes, results: Results, start: int, stop: int, latency_ms: float) -> bytes:
    """The body of an answer: the rows `start` to `stop` of the results."""
    if results.whole:
        first, *rest = [_encode(values) for values in results.lists()]
    elif stop - start == 1:
        outputs = results.rows()
        if len(outputs) == 1:  # the most usual: one row of one output
            row = outputs[0][start]
            return b'{"predictions":[%b]%b%b","latency_ms":%.3f}' % (row, face.plain_middle, number, latency_ms)
        first, *rest = [b"[%b]" % rows[start] for rows in outputs]
    else:
        first, *rest = [b"[%b]" % b",".join(rows[start:stop]) for rows in results.rows()]
    if not rest:
        return b'{"predictions":%b%b%b","latency_ms":%.3f}' % (first, face.plain_middle, number, latency_ms)
    others = [key + values for key, values in zip(face.output_keys[1:], rest, strict=True)]
    return b'{"predictions":%b%b%b","latency_ms":%.3f,"outputs":{%b%b,%b}}' % (
        first,
        face.plain_middle,
        number,
        latency_ms,
        face.output_keys[0],
        first,
        b",".join(others),
    )


def _decoded[T](decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            f'the body is not a request like {{"features": [[1, 2]]}}: {why(error, memoryview(text))}'
        ) from error
    except RecursionError as error:
        raise InvalidInputError("the body is not a request: it is nested too deep") from error


def _array(raw: msgspec.Raw, spec: TensorSpec) -> Array:
    array = read(raw, spec.datatype, f"input {spec.name!r}")
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
        array = array.reshape(-1, 1)
    spec.check(array)
    return array
