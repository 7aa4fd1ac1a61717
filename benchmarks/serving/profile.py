"""One request in microseconds by part: tight loops over the server's own functions, in the order of a request.

Run `.venv/bin/python -m benchmarks.serving.profile` (pinned to a core: `taskset -c 0`). Each part is run in rounds of
some milliseconds, and the least of the rounds' means is told: what else the machine does only ever adds. What a part
costs in the server is more (a loop keeps its code and data in the core's caches; work between socket calls has cost
about twice this), and the kernel's share is not in it: the benchmark's table has the processor's whole time for a
request.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from time import perf_counter

from aks_serving.batches import LoadedModel, Results, layout_of, run_calls
from aks_serving.counts import Kind, VersionTally
from aks_serving.exchange import Response
from aks_serving.fast import fast_reader
from aks_serving.http.answers import http1
from aks_serving.http.head import RequestHead
from aks_serving.http.limits import Limits
from aks_serving.http.reader import RequestReader
from aks_serving.model import Model
from aks_serving.plain import response
from aks_serving.serving import Face
from aks_serving.tensors import Feeds

from benchmarks.serving import wire
from benchmarks.serving.environments import cache_folder
from benchmarks.serving.wire import Form, Message
from benchmarks.serving.workloads import NAMES, Workload, workload
from shared.routing.assignment import bucket
from shared.routing.plan import Role, Route, RoutePlan

_ROUND_S, _ROUNDS = 0.01, 30
_BATCH = 64


@dataclass(slots=True, kw_only=True)
class _Call:
    """What a batch needs of a call (aks_serving.batches.Inputs, whose members can be set)."""

    packed: bytes | None
    rows: int | None = 1
    feeds: Feeds | None = None


def microseconds(part: Callable[[], object]) -> float:
    """The least mean of some rounds."""
    part()
    began_s = perf_counter()
    part()
    times = max(1, int(_ROUND_S / max(perf_counter() - began_s, 1e-7)))
    best_s = float("inf")
    for _ in range(_ROUNDS):
        began_s = perf_counter()
        for _ in range(times):
            part()
        best_s = min(best_s, (perf_counter() - began_s) / times)
    return best_s * 1e6


def parts(asked: Workload) -> dict[str, float]:
    """Microseconds of each part of a plain request of one row; what a batch shares is divided by its rows."""
    model = Model(version=1, digest=asked.digest, data=asked.path.read_bytes())
    loaded = LoadedModel(model=model, batchable=True, layout=layout_of(model.signature))
    route = Route(version=1, role=Role.STABLE, weight_bp=10_000, artifact_digest=asked.digest, size_bytes=0)
    plan = RoutePlan(endpoint=asked.name, generation=1, salt="benchmark", routes=(route,))
    face = Face(plan, route, Kind.ASSIGNED, mark="profile", signature=model.signature)
    reader = fast_reader([model.signature])
    if reader is None:
        raise ValueError(f"the model {asked.name} is not read by the fast reader: the profile would be another path's")
    messages = wire.messages(asked, Form.PLAIN, rows=1, path="/predict", subjects=True)
    packed = [read.packed for one in messages[:_BATCH] if (read := reader.plain(one.body, asked.name))]
    alone, together = _Call(packed=packed[0]), [_Call(packed=one) for one in packed]
    lone, batch = run_calls(loaded, [alone]), run_calls(loaded, together)
    if not isinstance(lone, Results) or not isinstance(batch, Results) or len(together) != _BATCH:
        raise ValueError(f"the model {asked.name} does not run: {lone} {batch}")
    tally, number, raw = VersionTally(), count(), messages[0].http1(8080)
    head, _ = _read(raw)
    body = response(face, b"1.1", batch, 0, 1, 0.5)
    answer = Response(face.head, body)
    return {
        "read head and body, anew": microseconds(lambda: _read(raw)),
        "decode and pack the plain body": microseconds(lambda: reader.plain(messages[0].body, asked.name)),
        **_v2(asked, reader.v2),
        "assign a user": microseconds(lambda: bucket(plan.salt, f"user-{next(number)}")),
        "run alone": microseconds(lambda: run_calls(loaded, [alone])),
        f"run in a batch of {_BATCH}, a row": microseconds(lambda: run_calls(loaded, together)) / _BATCH,
        "write the answer's body": microseconds(lambda: response(face, b"1.1", batch, 0, 1, 0.5)),
        "write the answer's head": microseconds(lambda: http1(answer, head, last=False)),
        "count": microseconds(lambda: tally.answered(Kind.ASSIGNED, 0.5)),
    }


def _v2(asked: Workload, read: Callable[[bytes, int | None], object]) -> dict[str, float]:
    def one(form: Form) -> Message:
        return wire.messages(asked, form, rows=1, path="/", subjects=True)[0]

    as_json, binary = one(Form.V2_JSON).body, one(Form.V2_BINARY)
    length = int(dict(binary.headers)["Inference-Header-Content-Length"])
    if read(as_json, None) is None or read(binary.body, length) is None:
        raise ValueError("the fast reader leaves the benchmark's V2 bodies to the general one")
    return {
        "(or decode and pack V2 JSON)": microseconds(lambda: read(as_json, None)),
        "(or decode V2 binary)": microseconds(lambda: read(binary.body, length)),
    }


def _read(raw: bytes) -> tuple[RequestHead, bytes]:
    reader = RequestReader(Limits())
    reader.push(raw)
    found = reader.take(lambda _raw, _head: None)
    if found is None:
        raise ValueError("the reader does not take the benchmark's requests")
    return found


def main() -> None:
    """Print the parts of a request of each model, and the sums."""
    found = {name: parts(workload(name, cache_folder(os.environ))) for name in NAMES}
    print(f"{'microseconds':34}" + "".join(f"{name:>10}" for name in NAMES))
    for part in found[NAMES[0]]:
        print(f"{part:34}" + "".join(f"{found[name][part]:>10.2f}" for name in NAMES))
    left_out = ("(", "run alone")
    sums = {name: sum(us for part, us in of.items() if not part.startswith(left_out)) for name, of in found.items()}
    print(f"{f'sum, in batches of {_BATCH}':34}" + "".join(f"{sums[name]:>10.2f}" for name in NAMES))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
