"""Request bodies of float tables by the thousand: half of them good, the others odd in their nesting, numbers or keys.

They come of a seeded generator, and cost a fraction of what hypothesis takes for one.
"""

import random
import struct
from collections.abc import Mapping

DATATYPES = ("FP32", "FP64")
_ODD = (
    "-0 -0.0 1e-50 5e-324 2.4703282292062327e-324 1e38 3.4028234663852886e38 3.4028235677973366e38 -3.5e38 1e308 1e309 "
    "1e400 16777217 9007199254740993 9223372036854775808 -9223372036854775809 18446744073709551615 "
    "18446744073709551616 1.0 1E2 true null 01 .5 1. +1 - NaN Infinity "
    f'"1" "]" "[" "],[" [] {{}} {{"a":1,"b":2}} {"9" * 40} 0.{"0" * 330}1'
).split(" ")
_USERS = (
    *('"ada"', "5", "null", "true", '"]"', '"[["', '"features"', '"data"', '"\\"features\\":[[9,9]]"', '"\\u0066"'),
    *('"\\"data\\":[1,2]"', '"\\ud800"', '"é\\\\u0064"', '"\xff"'),
)
_BESIDE_PLAIN = (
    *('"features":[[7,7]]', '"features":[]', '"features" :[]', '"features":0', '"\\u0066eatures":[]', '"wish":[1]'),
    *('"featu\\u0072es":[[1,2]]', '"x\\"features":[[1,2]]', '"x\\"features":[]', '"timeout_ms":5', '"model":"churn"'),
    *('"model_version":3', '"timeout_ms":0', '"model":"features"'),
)
_BESIDE_TENSOR = (
    *('"data":[]', '"data" :[]', '"data":[1,2]', '"data":null', '"\\u0064ata":[]', '"dat\\u0061":[1,2]'),
    *('"x\\"data":[1,2]', '"x\\"data":[]', '"parameters":null', '"parameters":{}', '"name":"x"', '"name":"data"'),
)
_BESIDE_INPUTS = (
    *('"id":"a"', '"id":"\\"data\\":[1,2]"', '"id":"data"', '"id":null', '"id":5', '"outputs":[]', '"data":[1,2]'),
    *('"outputs":[{"name":"y"}]', '"outputs":null', '"parameters":{"data":[1,2]}', '"parameters":{"timeout":9}'),
)


def plain(draw: random.Random, widths: Mapping[str, int]) -> tuple[str, bytes]:
    """A datatype, and a body of the plain API for it."""
    datatype = draw.choice(DATATYPES)
    rows = _rows(draw, widths[datatype])
    features = f'"features":{_gap(draw)}{_array(draw, rows)}'
    fields = [features, *_some(draw, _BESIDE_PLAIN), *_user(draw)]
    return datatype, _broken(draw, _object(draw, fields))


def v2(draw: random.Random, widths: Mapping[str, int]) -> tuple[str, bytes]:
    """A datatype, and an inference request for it."""
    datatype = draw.choice(DATATYPES)
    rows = _rows(draw, widths[datatype])
    data = _array(draw, [value for row in rows for value in (row if isinstance(row, list) else [row])])
    shape = f"[{len(rows) + (draw.random() < 0.05)},{widths[datatype]}]"
    kind = f'"name":"x"{_gap(draw)},"datatype":"{datatype}"'
    tensor = [f'"data":{_gap(draw)}{data}', kind, f'"shape":{shape}', *_some(draw, _BESIDE_TENSOR)]
    said = [f'"parameters":{{{user}}}' for user in _user(draw)]
    fields = [f'"inputs":[{_object(draw, tensor)}]', *_some(draw, _BESIDE_INPUTS), *said]
    return datatype, _broken(draw, _object(draw, fields))


type _Table = list[list[str] | str]


def _rows(draw: random.Random, width: int) -> _Table:
    rows = [[_number(draw) for _ in range(width)] for _ in range(draw.choice([1, 1, 2, 3, 40]))]
    return _odd(draw, rows) if draw.random() < 0.4 else [*rows]


def _odd(draw: random.Random, rows: list[list[str]]) -> _Table:
    """The rows, odd in one place. Several keep the count of all numbers, of rows, or of what stands in each."""
    row, other = draw.choice(rows), draw.choice(rows)
    at = draw.randrange(len(row))
    match draw.randrange(9):
        case 0:
            row[at] = draw.choice(_ODD)
        case 1:
            row[at] = f"[{row[at]}]"
        case 2:
            row[:] = [f"[{','.join(row)}]", *["[]"] * draw.randrange(len(row) + 1)]
        case 3:
            row.append(draw.choice(["1", "[]", "[1]"]))
        case 4:
            other.append(row.pop(at))
        case 5:
            rows.insert(draw.randrange(len(rows) + 1), [])
        case 6:
            return [*rows, draw.choice(["1", "[]", "null", '"ab"', '{"a":1,"b":2}'])]
        case 7:
            other.extend(row)
            return [row for row in rows if row is not other] + ["1"]
        case _:
            return []
    return [*rows]


def _number(draw: random.Random) -> str:
    match draw.randrange(6):
        case 0:
            return str(draw.randrange(-(2**53), 2**53) >> draw.randrange(53))
        case 1:
            return f"{draw.uniform(-9, 9):.{draw.randrange(1, 60)}f}"
        case 2:
            return f"{draw.uniform(-9, 9):.{draw.randrange(1, 20)}e}"
        case 3:  # half way between two values of float32
            bits = draw.getrandbits(30)
            low, high = struct.unpack("<2f", struct.pack("<2I", bits, bits + 1))
            return repr((low + high) / 2)
        case 4:
            return repr(draw.choice([1e-38, 1e-45, 1e-310, 1e38]) * draw.random())
        case _:
            return str(draw.randrange(10))


def _array(draw: random.Random, items: _Table | list[str]) -> str:
    gap = _gap(draw)
    texts = [item if isinstance(item, str) else _array(draw, item) for item in items]
    return f"[{gap}{f',{gap}'.join(texts)}{_gap(draw)}]"


def _object(draw: random.Random, fields: list[str]) -> str:
    draw.shuffle(fields)
    return "{" + f",{_gap(draw)}".join(fields) + _gap(draw) + "}"


def _some(draw: random.Random, fields: tuple[str, ...]) -> list[str]:
    return draw.sample(fields, 1) if draw.random() < 0.3 else []


def _user(draw: random.Random) -> list[str]:
    return [f'"user_id":{draw.choice(_USERS)}'] if draw.random() < 0.4 else []


def _gap(draw: random.Random) -> str:
    return draw.choice(["", "", "", " ", "\n\t "])


def _broken(draw: random.Random, text: str) -> bytes:
    """The body; of some, a few bytes are others."""
    body = text.encode("utf-8") if draw.random() < 0.9 else text.encode("latin-1")
    if draw.random() < 0.9:
        return body
    start = draw.randrange(len(body))
    put = draw.choice([b"", b",", b"[", b"]", b"]]", b'"', b":", b"\x00", b"\x0c", b"\xef\xbb\xbf", b"{", b"-", b"."])
    return body[:start] + put + body[start + draw.randrange(3) :]
