"""Hostile bundles: zip bombs, paths that climb out, manifests that grow, data files that lie or unpickle."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import parquet as pq

from tests.unit.validation.drops import MANIFEST, bundle, good_bundle, npz, scorer, scorer_rows

_MODEL = scorer().SerializeToString()
_CSV_MANIFEST = b"task: classification\nvalidation: rows.csv\n"
_PARQUET_MANIFEST = b"task: classification\nvalidation: rows.parquet\n"


def flat_bomb() -> bytes:
    return bundle({"slipway.yaml": MANIFEST, "model.onnx": bytes(100_000_000), "rows.npz": b""})


def nested_bomb() -> bytes:
    """A bundle whose model is a bundle: nobody unpacks it twice."""
    inner = bundle({f"{number}.zip": bundle({"zeros": bytes(1_000_000)}) for number in range(10)})
    return good_bundle(model=inner)


def overlapping() -> bytes:
    """Two names for one member's bytes: what is unpacked would grow with the directory alone."""
    content = bytearray(bundle({"slipway.yaml": MANIFEST, "model.onnx": _MODEL, "rows.npz": npz(scorer_rows())}))
    _, second, third = _places(content, b"PK\x01\x02")
    content[third + 42 : third + 46] = content[second + 42 : second + 46]
    return bytes(content)


def _places(content: bytes | bytearray, mark: bytes) -> list[int]:
    return [at for at in range(len(content)) if content.startswith(mark, at)]


def lying_size(*, declared: int) -> bytes:
    """The model says another size than it unpacks to."""
    content = bytearray(bundle({"slipway.yaml": b"task: classification\n", "model.onnx": bytes(50_000)}))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = _places(content, mark)[1]
        content[at + offset : at + offset + 4] = struct.pack("<I", declared)
    return bytes(content)


def with_member(name: str, *, mode: int = 0o100644, content: bytes = b"x") -> bytes:
    """A good bundle with one member more."""
    info = zipfile.ZipInfo("slipway.yaml")
    more = zipfile.ZipInfo(name)
    more.filename = more.orig_filename = name
    more.external_attr = mode << 16
    return bundle([(info, b"task: classification\n"), ("model.onnx", _MODEL), (more, content)])


def many_members() -> bytes:
    return bundle({f"file-{number}": b"" for number in range(5_000)})


def other_method() -> bytes:
    """LZMA, which unpacks in one piece whatever is asked for."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("slipway.yaml", "task: classification\n")
        archive.writestr("model.onnx", _MODEL)
    return buffer.getvalue()


def encrypted() -> bytes:
    content = bytearray(good_bundle())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for at in _places(content, mark):
            content[at + offset] |= 1
    return bytes(content)


def with_manifest(text: str | bytes) -> bytes:
    return good_bundle(manifest=text.encode() if isinstance(text, str) else text)


def laughing_manifest() -> str:
    """Nine aliases a level, nine levels."""
    lines = ["a0: &a0 [lol]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return "task: classification\n" + "\n".join(lines)


def npz_of(members: Mapping[str, bytes]) -> bytes:
    """A good bundle whose data file has these members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return good_bundle(rows=buffer.getvalue())


def npy(header: str, values: bytes = b"") -> bytes:
    """An array with a header written by hand."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


def pickled() -> bytes:
    return good_bundle(rows=npz({"x": np.array([print], dtype=object), "label": [1]}, allow_pickle=True))


def npz_bomb() -> bytes:
    return good_bundle(rows=npz({"x": np.zeros((10_000_000, 3), np.float32), "label": np.zeros(10_000_000, np.int8)}))


def csv_wide() -> bytes:
    text = ",".join(f"c{number}" for number in range(20_000))
    return bundle({"slipway.yaml": _CSV_MANIFEST, "model.onnx": _MODEL, "rows.csv": f"{text}\n"})


def csv_binary() -> bytes:
    content = zlib.compress(np.random.default_rng(1).bytes(100_000))
    return bundle({"slipway.yaml": _CSV_MANIFEST, "model.onnx": _MODEL, "rows.csv": content})


def parquet(content: bytes) -> bytes:
    return bundle({"slipway.yaml": _PARQUET_MANIFEST, "model.onnx": _MODEL, "rows.parquet": content})


def parquet_dictionary_bomb() -> bytes:
    """A text of a megabyte in a dictionary, named a million times: some kilobytes that mean a terabyte."""
    column = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_000_000, np.int32)), pa.array(["x" * 1_000_000]))
    sink = io.BytesIO()
    table = pa.table({"x": column, "label": pa.array(np.zeros(1_000_000, np.int64))})
    pq.write_table(table, sink, compression="zstd", use_dictionary=["x"], store_schema=False)
    return parquet(sink.getvalue())


def parquet_of_zeros() -> bytes:
    """Two hundred million rows in some kilobytes."""
    zeros = pa.array(np.zeros(2_000_000, np.int64))
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, pa.schema({"x": pa.int64(), "label": pa.int64()}), compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(pa.table({"x": zeros, "label": zeros}))
    return parquet(sink.getvalue())


def parquet_of_a_long_footer() -> bytes:
    """Its footer says that it has two gigabytes."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1.0] * 100, "label": [1] * 100}), sink)
    content = bytearray(sink.getvalue())
    content[-8:-4] = struct.pack("<I", 2**31 - 1)
    return parquet(bytes(content))


def deep_signature(depth: int = 100_000) -> bytes:
    """A signature file of brackets within brackets."""
    content = b'{"a":' + b"[" * depth + b"]" * depth + b"}"
    return bundle({"slipway.yaml": b"task: classification\n", "model.onnx": _MODEL, "model.sig": content})


def long_signature() -> bytes:
    content = json.dumps({"payload": "A" * 40_000_000})
    return bundle({"slipway.yaml": b"task: classification\n", "model.onnx": _MODEL, "model.sig": content})


def external(model: bytes, **files: bytes) -> bytes:
    """A bundle of a model and the files that its tensors may lie in."""
    named = {name.replace("_", "."): content for name, content in files.items()}
    return bundle({"slipway.yaml": b"task: classification\n", "model.onnx": model, **named})
