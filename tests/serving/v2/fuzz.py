"""Requests that are wrong in every way that one can think of, made from right ones by a seeded random."""

import copy
import gzip
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from aks_serving.tensors import DATATYPES, DTYPES

from tests.serving.v2 import zoo

_JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63) - 1, 1e308, 5e-324, "", "x", "NaN",
    "Infinity", "FP32", "INT64", "BYTES", "y" * 300, "\0", "\u2028", [], {}, [[]], [None], {"a": 1}, [1, [2]], [0] * 40,
    [2**62, 0], [0, 2**62], [-1, -2], {"binary_data_size": 8}, {"shared_memory_region": "r"}, {"classification": 2},
)  # fmt: skip
_RAW = (b"NaN", b"Infinity", b"-", b"1e400", b"-1e400", b"1" * 400, b"1" * 5000, b"0x10", b"01", b"1.", b"\xff", b"'a'")
_LENGTHS = (b"", b"-1", b"x", b"0", b"1", b"1.5", b"1e3", b"+5", b" 9", b"9" * 11, b"9" * 5000, b"\xb2", b"0" * 12)
_CODINGS = (b"gzip", b"deflate", b"br", b"identity", b"gzip, gzip", b",", b"x-gzip", b"gzip" * 50, b"deflate, gzip")
_MAX_DEPTH = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request."""

    endpoint: str
    body: bytes
    headers: dict[bytes, bytes]


def cases(seed: int, count: int) -> list[Case]:
    """So many requests; the same for the same seed."""
    chance = random.Random(seed)
    return [_wrong(_right(chance), chance) for _ in range(count)]


def _right(chance: random.Random) -> tuple[str, dict[str, Any], bytes]:
    """An endpoint, the JSON of a right request, and the binary data that follows it."""
    datatype = chance.choice(DATATYPES)
    endpoint, rows, width = chance.choice(((zoo.identity_of(datatype), 2, 3), ("several", 2, 1), ("churn", 1, 2)))
    if endpoint == "several":
        inputs = [_input("age", "INT64", [2, 1]), _input("income", "FP32", [2, 1]), _input("plan", "BYTES", [2, 1])]
    else:
        inputs = [_input("x", "FP32" if endpoint == "churn" else datatype, [rows, width])]
    asked: dict[str, Any] = {"id": "a", "parameters": {"user_id": "ada", "priority": 1}, "inputs": inputs}
    if chance.random() < 0.5:
        name = "sum" if endpoint == "several" else "y"
        asked["outputs"] = [{"name": name, "parameters": {"binary_data": chance.random() < 0.5}}]
    else:
        asked["parameters"]["binary_data_output"] = chance.random() < 0.5
    binary = b""
    for tensor in inputs:
        if chance.random() < 0.5:
            raw = _binary(tensor)
            del tensor["data"]
            tensor["parameters"] = {"binary_data_size": len(raw)}
            binary += raw
    return endpoint, asked, binary


def _input(name: str, datatype: str, shape: list[int]) -> dict[str, Any]:
    count = shape[0] * shape[1]
    if datatype == "BYTES":
        data: list[Any] = ["text é" * number for number in range(count)]
    elif datatype == "BOOL":
        data = [number % 2 == 0 for number in range(count)]
    else:
        data = [number if "INT" in datatype else number + 0.5 for number in range(count)]
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def _binary(tensor: dict[str, Any]) -> bytes:
    if tensor["datatype"] == "BYTES":
        texts = [text.encode() for text in tensor["data"]]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    return np.asarray(tensor["data"]).astype(DTYPES[tensor["datatype"]]).tobytes()


def _wrong(right: tuple[str, dict[str, Any], bytes], chance: random.Random) -> Case:
    endpoint, asked, binary = right
    asked = copy.deepcopy(asked)
    for _ in range(chance.choice((0, 1, 1, 2, 4))):
        _change_value(asked, chance)
    header = json.dumps(asked).encode()
    headers = {b"inference-header-content-length": b"%d" % len(header)} if binary or chance.random() < 0.2 else {}
    case = Case(endpoint=endpoint, body=header + binary, headers=headers)
    for change in chance.choices(_CHANGES, k=chance.choice((0, 1, 1, 2))):
        case = change(case, chance)
    return case


def _change_value(asked: dict[str, Any], chance: random.Random) -> None:
    """Replace, remove, repeat or swap something somewhere in the JSON."""
    holder: Any = asked
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            return
        key = chance.choice(keys)
        inner = holder[key]
        if not isinstance(inner, dict | list) or chance.random() < 0.3:
            break
        holder = inner
    match chance.randrange(5):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.extend(copy.deepcopy(holder[: chance.randrange(1, 4)]))
        case 2 if isinstance(inner, int) and not isinstance(inner, bool):
            holder[key] = inner + chance.choice((-1, 1, 2**32, -(2**40)))
        case 3 if key == "datatype":
            holder[key] = chance.choice((*DATATYPES, "FP8", "fp32"))
        case _:
            holder[key] = copy.deepcopy(chance.choice(_JUNK))


def _cut(case: Case, chance: random.Random) -> Case:
    return replace(case, body=case.body[: chance.randrange(len(case.body) + 1)])


def _flip(case: Case, chance: random.Random) -> Case:
    body = bytearray(case.body)
    for _ in range(chance.randrange(1, 6)):
        if body:
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return replace(case, body=bytes(body))


def _splice(case: Case, chance: random.Random) -> Case:
    at = chance.randrange(len(case.body) + 1)
    until = at + chance.choice((0, 0, 1, 8))
    piece = chance.choice((*_RAW, chance.randbytes(chance.randrange(20)), case.body[at : at + 30]))
    return replace(case, body=case.body[:at] + piece + case.body[until:])


def _nest(case: Case, chance: random.Random) -> Case:
    depth = chance.choice((2, 31, 33, 64, 900, _MAX_DEPTH))
    deep = b"[" * depth + b"1" + b"]" * chance.choice((depth, depth, 0))
    if chance.random() < 0.3:
        deep = b'{"a":' * depth + b"1" + b"}" * depth
    for place in chance.sample((b'"ada"', b'"a"', b"0.5", b"1", b"null", b"false", b"x"), k=2):
        case = replace(case, body=case.body.replace(place, deep, 1))
    return case


def _mislead(case: Case, chance: random.Random) -> Case:
    near = b"%d" % max(0, len(case.body) + chance.choice((-100, -8, -1, 0, 1, 8)))
    length = chance.choice((*_LENGTHS, near))
    return replace(case, headers=case.headers | {b"inference-header-content-length": length})


def _pack(case: Case, chance: random.Random) -> Case:
    coding = chance.choice(_CODINGS)
    body = case.body
    if chance.random() < 0.1:
        body = b" " * chance.choice((1 << 16, 3 << 20))
    if chance.random() < 0.8:
        body = gzip.compress(body, 1) if chance.random() < 0.6 else zlib.compress(body, 1)
    case = replace(case, body=body, headers=case.headers | {b"content-encoding": coding})
    return chance.choice((_cut, _flip, _same, _same))(case, chance)


def _accept(case: Case, chance: random.Random) -> Case:
    accepted = chance.choice((b"gzip", b"deflate;q=x", b"*;q=0.1", b"gzip;q=2, ;;,=", b"\xff", b"," * 3000))
    return replace(case, headers=case.headers | {b"accept-encoding": accepted})


def _same(case: Case, chance: random.Random) -> Case:  # noqa: ARG001 - as the others
    return case


_CHANGES: tuple[Callable[[Case, random.Random], Case], ...] = (
    _cut, _flip, _splice, _splice, _nest, _mislead, _mislead, _pack, _accept,
)  # fmt: skip
