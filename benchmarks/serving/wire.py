"""Requests in the form that each server takes, and the numbers in its answers.

A form is a way to write rows down: the plain body, Open Inference Protocol V2 as JSON or with binary tensors, KServe's
V1, a message of gRPC. Every request stands whole before the clock runs, HTTP/1.1 head and all, so that a load
generator only writes bytes.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from aks_serving.grpc.messages import ModelInferRequest, ModelInferResponse
from numpy.typing import NDArray

from benchmarks.serving.workloads import Rows, Workload

_FILE_BYTES = 4_000_000
"""About as much as a file of requests may hold: more would be measured as the load generator's cache misses."""
_FEWEST, _MOST = 32, 2048


class Form(StrEnum):
    """How rows are written."""

    PLAIN = "plain"
    V2_JSON = "v2-json"
    V2_BINARY = "v2-binary"
    V1_JSON = "v1-json"
    GRPC = "grpc"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One request, without its connection. For gRPC `path` is the model's name, and `body` the message."""

    path: str
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes

    def http1(self, port: int) -> bytes:
        """The whole request as it goes over a kept-alive connection."""
        lines = [
            f"POST {self.path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            *(f"{name}: {value}" for name, value in self.headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def messages(workload: Workload, form: Form, *, rows: int, path: str, subjects: bool) -> list[Message]:
    """Distinct requests of `rows` rows each; with `subjects` each one says for whom it asks."""
    write = _WRITERS[form]
    first = write(workload, _part(workload, 0, rows), path, "user-0" if subjects else None)
    count = min(_MOST, max(_FEWEST, _FILE_BYTES // len(first.http1(0))))
    return [
        write(workload, _part(workload, number, rows), path, f"user-{number}" if subjects else None)
        for number in range(count)
    ]


def expected(workload: Workload, *, rows: int, number: int) -> NDArray[np.float32]:
    """What a right answer to the request of that number holds, row after row."""
    return workload.expected(_part(workload, number, rows)).ravel()


def answer(form: Form, body: bytes, content_type: str, output: str) -> NDArray[np.float32]:
    """The numbers of an answer. Raises ValueError, KeyError or IndexError where it has another form."""
    if form is Form.V2_BINARY:
        return _binary_answer(body, output)
    if form is Form.GRPC:
        return _grpc_answer(body, output)
    if "json" not in content_type:
        raise ValueError(f"the answer is {content_type!r}, not JSON: {body[:200]!r}")
    read: Any = json.loads(body)
    if form is Form.V2_JSON:
        read = _output(read, output)["data"]
    elif isinstance(read, dict):
        read = read["predictions"]
    return np.asarray(read, dtype=np.float32).ravel()


def save(requests: Iterable[bytes], path: Path) -> None:
    """Write requests for the load generators: of each its length in decimal, a line break, and its bytes."""
    with path.open("wb") as file:
        file.writelines(b"%d\n%b" % (len(raw), raw) for raw in requests)


def load(path: Path) -> list[bytes]:
    """Read what `save` wrote. Raises ValueError where it is torn."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        end = data.index(b"\n", at)
        size = int(data[at:end])
        found.append(data[end + 1 : end + 1 + size])
        at = end + 1 + size
        if at > len(data):
            raise ValueError(f"{path} ends within a request: write it anew")
    return found


def _part(workload: Workload, number: int, rows: int) -> Rows:
    places = (np.arange(rows) + number * rows) % len(workload.rows)
    return workload.rows[places]


def _decimals(rows: Rows) -> list[list[float]]:
    """The rows as the decimals that they were rounded to."""
    return [[round(value, 4) for value in row] for row in rows.tolist()]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _plain(_: Workload, rows: Rows, path: str, subject: str | None) -> Message:
    body: dict[str, object] = {"features": _decimals(rows)}
    if subject is not None:
        body["user_id"] = subject
    return Message(path=path, content_type="application/json", body=_json(body))


def _v1_json(_: Workload, rows: Rows, path: str, subject: str | None) -> Message:
    del subject  # the protocol has no place for it
    return Message(path=path, content_type="application/json", body=_json({"instances": _decimals(rows)}))


def _v2_json(workload: Workload, rows: Rows, path: str, subject: str | None) -> Message:
    tensor = _tensor(workload, rows) | {"data": [value for row in _decimals(rows) for value in row]}
    return Message(path=path, content_type="application/json", body=_json(_v2(tensor, subject)))


def _v2_binary(workload: Workload, rows: Rows, path: str, subject: str | None) -> Message:
    data = rows.astype("<f4").tobytes()
    tensor = _tensor(workload, rows) | {"parameters": {"binary_data_size": len(data)}}
    asked = _v2(tensor, subject)
    # As tritonclient asks that names no outputs: all of them as binary data.
    asked["parameters"] = asked.get("parameters", {}) | {"binary_data_output": True}
    head = _json(asked)
    return Message(
        path=path,
        content_type="application/octet-stream",
        headers=(("Inference-Header-Content-Length", str(len(head))),),
        body=head + data,
    )


def _grpc(workload: Workload, rows: Rows, path: str, subject: str | None) -> Message:
    message = ModelInferRequest(model_name=path, raw_input_contents=[rows.astype("<f4").tobytes()])
    message.inputs.add(name=workload.input_name, datatype="FP32", shape=rows.shape)
    if subject is not None:
        message.parameters["user_id"].string_param = subject
    return Message(path=path, content_type="application/grpc", body=message.SerializeToString())


def _tensor(workload: Workload, rows: Rows) -> dict[str, object]:
    return {"name": workload.input_name, "shape": list(rows.shape), "datatype": "FP32"}


def _v2(tensor: dict[str, object], subject: str | None) -> dict[str, Any]:
    parameters = {} if subject is None else {"parameters": {"user_id": subject}}
    return {"inputs": [tensor], **parameters}


_WRITERS: dict[Form, Callable[[Workload, Rows, str, str | None], Message]] = {
    Form.PLAIN: _plain,
    Form.V2_JSON: _v2_json,
    Form.V2_BINARY: _v2_binary,
    Form.V1_JSON: _v1_json,
    Form.GRPC: _grpc,
}


def _output(read: dict[str, Any], name: str) -> dict[str, Any]:
    found = [output for output in read["outputs"] if output["name"] == name]
    if len(found) != 1:
        raise ValueError(f"the answer has {[output['name'] for output in read['outputs']]}, not one {name!r}")
    return dict(found[0])


def _binary_answer(body: bytes, output: str) -> NDArray[np.float32]:
    """The last bytes of the body are the tensor; what stands before them is JSON that gives its size."""
    head, _ = json.JSONDecoder().raw_decode(body.decode("latin-1"))
    size = _output(head, output)["parameters"]["binary_data_size"]
    return np.frombuffer(body[len(body) - size :], dtype="<f4")


def _grpc_answer(body: bytes, output: str) -> NDArray[np.float32]:
    read = ModelInferResponse.FromString(body)
    names = [one.name for one in read.outputs]
    if names.count(output) != 1:
        raise ValueError(f"the answer has {names}, not one {output!r}")
    return np.frombuffer(read.raw_output_contents[names.index(output)], dtype="<f4")
