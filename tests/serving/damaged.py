"""Reads damaged Arrow streams, in a process of its own: one that ends the process fails the test, and not the run.

As a program it takes a seed and a number of streams, and prints how many were read and how many refused.
"""

import io
import json
import random
import sys
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from aks_serving.arrow import read_stream

from shared.core.errors import InvalidInputError

_BYTES = (0, 1, 0x7F, 0x80, 0xFF)


def stream(columns: dict[str, Any], *, batches: int = 1, **options: Any) -> bytes:
    """Columns as an Arrow stream."""
    table = pa.table(columns)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table, max_chunksize=max(1, -(-table.num_rows // batches)))
    return sink.getvalue()


def main() -> None:
    """Read so many damaged streams."""
    seed, count = map(int, sys.argv[1:])
    draw = random.Random(seed)
    whole = (
        stream({"a": np.arange(20), "b": ["x", "yz"] * 10, "c": [True, False] * 10, "d": np.arange(20) / 7}),
        stream({"a": pa.array(range(9), pa.int8()), "t": pa.array(["ä", "", "x"] * 3, pa.large_string())}, batches=3),
        stream({"c": [1.0, None, 3.0] * 50}),
        stream({"c": pa.array(["a", "b"]).dictionary_encode(), "n": [[1], [2, 3]]}),
        stream({"c": [1] * 1000}, options=pa.ipc.IpcWriteOptions(compression="zstd")),
    )
    refused = sum(_is_refused(_damaged(draw, draw.choice(whole))) for _ in range(count))
    print(json.dumps({"read": count - refused, "refused": refused}))  # noqa: T201 - a program's answer


def _damaged(draw: random.Random, whole: bytes) -> bytes:
    data = bytearray(whole)
    for _ in range(draw.randint(1, 4)):
        data[draw.randrange(len(data))] = draw.choice((*_BYTES, draw.randrange(256)))
    return bytes(data[: draw.randrange(len(data))] if draw.random() < 0.3 else data)


def _is_refused(data: bytes) -> bool:
    """Uses every value of what is read: a value outside its buffer would end the process here."""
    try:
        columns = read_stream(data)
    except InvalidInputError:
        return True
    for values in columns.values():
        values.tolist()
    return False


if __name__ == "__main__":
    main()
