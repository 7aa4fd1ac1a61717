"""What a manifest may say, and how one that says anything else is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.registry.manifest import (
    MAX_MANIFEST_BYTES,
    Manifest,
    Task,
    is_drop_path,
    manifest_from,
    parse_manifest,
    parse_mapping,
)

FULL = b"""
task: regression
model: house-prices.onnx
validation: holdout.npz
reference: usual.npz
label: price
prediction: variable
description: |
  Prices of houses,
  by what is known of them.
author: someone@example.org
tags: {team: housing, "cost centre": "4711"}
parameters: {trees: 200, rate: 0.1, warm: true, loss: squared}
metrics: {r2: 0.83, mae: 1}
"""


def test_a_full_manifest_reads_as_written() -> None:
    manifest = parse_manifest(FULL)
    assert manifest.task is Task.REGRESSION
    assert (manifest.model, manifest.validation, manifest.reference) == (
        "house-prices.onnx",
        "holdout.npz",
        "usual.npz",
    )
    assert manifest.parameters == {"trees": 200, "rate": 0.1, "warm": True, "loss": "squared"}
    assert manifest.parameters["warm"] is True
    assert manifest.metrics == {"r2": 0.83, "mae": 1.0}
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert Manifest.model_validate(manifest.model_dump(mode="json")) == manifest


def test_all_but_the_task_may_be_left_out() -> None:
    manifest = parse_manifest(b"task: classification")
    assert (manifest.model, manifest.label, manifest.validation) == ("model.onnx", "label", None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"task: classification\nlabels: y", "unknown key 'labels': the keys are task, model, validation"),
        (b"model: model.onnx", "the key 'task' is missing"),
        (b"task: clustering", "task is 'clustering'"),
        (b"task: classification\nmodel: ../model.onnx", "plain file name"),
        (b"task: classification\nmodel: a/model.onnx", "plain file name"),
        (b"task: classification\nmodel: .onnx", "plain file name"),
        (b'task: classification\nmodel: "model.onnx\\n"', "plain file name"),
        (b"task: classification\nmodel: model.pkl", "name an .onnx file"),
        (b"task: classification\nvalidation: /a.npz", "validation is '/a.npz': use letters, digits"),
        (b"task: classification\nfiles: {a: none}", "files.a is 'none': use the SHA-256 of the file"),
        (b"task: classification\nfiles: {.a: none}", "files..a.[key] is '.a': use letters, digits"),
        (b"task: classification\nvalidation: rows.pkl", "ends in .npz, .parquet, .csv"),
        (b"task: classification\nvalidation: a.npz\nreference: a.npz", "use two files"),
        (b"task: classification\nauthor: 7", "author is '7'"),
        (b"task: classification\nmetrics: {accuracy: .nan}", "metrics.accuracy is 'nan'"),
        (b"task: classification\nmetrics: {accuracy: 'high'}", "metrics.accuracy is 'high'"),
        (b"task: classification\ntags: {a: [1]}", "tags.a"),
        (b"task: classification\nparameters: {born: 2026-01-01}", "parameters.born"),
        (b"task: classification\nparameters: {seed: 9007199254740992}", "parameters.seed is '9007199254740992': whole"),
        (
            b"task: classification\nparameters: {seed: -9007199254740992}",
            "exact up to 9007199254740991: write it as text",
        ),
        (b"task: classification\ntask: regression", "the key 'task' twice"),
        (b"task: classification\ntags: {a: x, a: y}", "the key 'a' twice"),
        (b"task: classification\ntags: &t {a: x}", "anchor or alias ('t')"),
        (b"task: &t classification\ntags: {a: *t}", "anchor or alias ('t')"),
        (b"<<: {task: classification}", "merges keys"),
        (b"task: !!python/object/apply:os.system ['true']", "is not YAML"),
        (b"task: classification\n---\ntask: regression", "is not YAML"),
        (
            b"task: [",
            "line 1, column 8: while parsing a flow node, expected the node content, but found '<stream end>'",
        ),
        (b"task: 2026-99-99", "line 1, column 7: '2026-99-99' cannot be read as timestamp: put it in quotes"),
        (b"tags:\n  a: !!bool maybe", "is not YAML: line 2, column 6: 'maybe' cannot be read as bool"),
        (b"tags: [!!timestamp soon]", "is not YAML: line 1, column 8: 'soon' cannot be read as timestamp"),
        (b"!!int '': x", "is not YAML: line 1, column 1: '' cannot be read as int"),
        (
            b"author: 0x" + b"f" * 5_000,
            "line 1, column 9: '0x" + "f" * 38 + "' cannot be read as int: put it in quotes",
        ),
        (b"tags: {a: 0b" + b"1" * 20_000 + b"}", "line 1, column 11: '0b" + "1" * 38 + "' cannot be read as int"),
        (b"tags: [0" + b"7" * 6_000 + b"]", "line 1, column 8: '0" + "7" * 39 + "' cannot be read as int"),
        (b"author: 1" + b":59" * 4_000, "line 1, column 9: '1:59:59:59:59:59:59:59:59:59:59:59:59:59' cannot be read"),
        (b"metrics: {a: 1" + b":59" * 4_000 + b".5}", "line 1, column 14: '1:59:59:59:59:59:59:59:59:59:59:59:59:59"),
        (
            b"task: classification\ntolerances: {y: {rtol: yes}}",
            "tolerances.y.rtol is 'True': Input should be a num",
        ),
        (b"task: classification\nmetrics: {f1: 9e-1}", "metrics.f1 is '9e-1': Input should be a valid number; to YAML"),
        (b"tags:\n  a: b: c", "slipway.yaml is not YAML: line 2, column 7: mapping values are not allowed here"),
        (b"task: !" + b"x" * 5_000 + b" y", "line 1, column 7: could not determine a constructor for the tag '!xxx"),
        (b'task: "\\U00110000"', "is not YAML: chr() arg not in range"),
        (b"- task", "holds no mapping"),
        (b"", "holds no mapping"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"PK\x03\x04\x00", "is not YAML: line 1, column 3: the character '\\x03' may not stand there"),
        (b"task: x\nmodel: \x03", "is not YAML: line 2, column 8: the character"),
        (b"description: " + b"x" * MAX_MANIFEST_BYTES, "more than the 65536 bytes that are read"),
        (b"task: classification\ntags: " + b"[" * 30_000, "nests more than 8 levels"),
        (b"task: classification\nparameters: {n: " + b"9" * 5_000 + b"}", "is not YAML"),
        (b"task: classification\ndescription: " + b"x" * 2_001, "at most 2000 characters"),
    ],
)
def test_anything_else_is_refused_and_named(text: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 1_000


def test_a_parameter_keeps_its_type_and_the_largest_whole_number_is_kept_exactly() -> None:
    text = b"task: classification\nparameters: {a: 9007199254740991, b: 1.5, c: true, d: x, e: 1.0e+300}"
    read = Manifest.model_validate_json(parse_manifest(text).model_dump_json()).parameters
    assert [(key, type(value), value) for key, value in read.items()] == [
        ("a", int, 2**53 - 1),
        ("b", float, 1.5),
        ("c", bool, True),
        ("d", str, "x"),
        ("e", float, 1e300),
    ]


def test_an_alias_bomb_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(InvalidInputError, match="anchor or alias"):
        parse_manifest("\n".join(lines).encode())


def test_many_repeated_keys_are_found_in_little_time() -> None:
    """A quadratic search would take minutes on as many keys as the limit on the text lets through."""
    text = "\n".join(f"k{i:x}:" for i in range(9_000)).encode()
    assert len(text) < MAX_MANIFEST_BYTES
    with pytest.raises(InvalidInputError, match=r"unknown key 'k0'.*and 8998 more"):
        parse_manifest(text)


@given(st.binary(max_size=200) | st.text(alphabet="task:clonrgi-[]{}&*!|>#'\"\n ,", max_size=100).map(str.encode))
def test_no_text_gets_anything_but_a_manifest_or_a_refusal(text: bytes) -> None:
    try:
        manifest = parse_manifest(text)
    except InvalidInputError:
        return
    assert manifest.task in Task


def said_of(**values: Any) -> str:
    """What is wrong with a manifest of these values; empty where nothing is."""
    try:
        manifest_from({"task": "classification", **values})
    except InvalidInputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("key", "most", "too_much"),
    [
        ("model", "m" * 123 + ".onnx", "m" * 124 + ".onnx"),
        ("validation", "a/b/c/" + "v" * 122 + ".csv", "a/b/c/d/v.csv"),
        ("reference", "r" * 120 + ".parquet", "r" * 130 + ".parquet"),
        ("label", "l" * 100, "l" * 101),
        ("label", "l", ""),
        ("prediction", "p" * 100, "p" * 101),
        ("probability", "p" * 100, "p" * 101),
        ("feature_names", ["f"] * 10_000, ["f"] * 10_001),
        ("feature_names", ["f" * 100], ["f" * 101]),
        ("inputs", {f"x{i}": ["a"] for i in range(1_000)}, {f"x{i}": ["a"] for i in range(1_001)}),
        ("inputs", {"x": ["a"] * 10_000}, {"x": ["a"] * 10_001}),
        ("inputs", {"x": ["a"]}, {"x": []}),
        ("inputs", {"x": ["a"]}, {"x": "a"}),
        ("positive_class", "yes", 1.5),
        ("positive_class", 1, True),
        ("positive_class", 2**53 - 1, 2**53),
        ("positive_class", "y" * 200, "y" * 201),
        ("slices", ["s"] * 100, ["s"] * 101),
        ("protected", ["s"] * 20, ["s"] * 21),
        ("tolerances", {f"y{i}": {} for i in range(100)}, {f"y{i}": {} for i in range(101)}),
        ("tolerances", {"y": {"rtol": 1, "atol": 0}}, {"y": {"rtol": 1.1}}),
        ("tolerances", {"y": {"atol": 1e6}}, {"y": {"atol": -1}}),
        ("tolerances", {"y": {"atol": 1}}, {"y": {"atol": float("nan")}}),
        ("tolerances", {"y": {"atol": 1}}, {"y": {"tol": 1}}),
        ("files", {f"f{i}": "a" * 64 for i in range(1_000)}, {f"f{i}": "a" * 64 for i in range(1_001)}),
        ("files", {"a/b/c/d": "sha256:" + "0" * 64}, {"a/b/c/d": "0" * 63}),
        ("files", {"a/b/c/d": "0" * 64}, {"a/b/c/d/e": "0" * 64}),
        ("files", {"a/b..": "0" * 64}, {"a/../b": "0" * 64}),
        ("description", "d" * 2_000, "d" * 2_001),
        ("author", "a" * 200, "a" * 201),
        ("training_data_version", "t" * 200, "t" * 201),
        ("git_commit", "c" * 64, "c" * 65),
        ("run_id", "r" * 200, "r" * 201),
        ("tags", {f"t{i}": "x" for i in range(100)}, {f"t{i}": "x" for i in range(101)}),
        ("tags", {"k" * 100: "v" * 200}, {"k" * 101: "v"}),
        ("tags", {"k": "v" * 200}, {"k": "v" * 201}),
        ("parameters", {f"p{i}": i for i in range(100)}, {f"p{i}": i for i in range(101)}),
        ("parameters", {"p": "x" * 500}, {"p": "x" * 501}),
        ("metrics", {f"m{i}": 0.5 for i in range(100)}, {f"m{i}": 0.5 for i in range(101)}),
        ("metrics", {"m": -1e308}, {"m": float("inf")}),
    ],
)
def test_each_key_has_its_bound(key: str, most: Any, too_much: Any) -> None:
    assert said_of(**{key: most}) == ""
    said = said_of(**{key: too_much})
    assert key in said
    assert len(said) < 1_000


def test_every_key_has_a_bound_under_test_or_none_to_have() -> None:
    (bounds,) = (mark for mark in test_each_key_has_its_bound.pytestmark if mark.name == "parametrize")
    assert {case[0] for case in bounds.args[1]} == Manifest.model_fields.keys() - {"task"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/a",
        "a/",
        "a//b",
        "a/./b",
        "a/../b",
        "../a",
        ".a",
        "a/.b",
        "-a",
        "a b",
        "a\\b",
        "C:a",
        "a\n",
        "ä",
        "*",
    ],
)
def test_a_name_that_is_not_plain_is_no_file_of_a_drop(name: str) -> None:
    assert not is_drop_path(name)
    assert said_of(files={name: "0" * 64})


@pytest.mark.parametrize("name", ["a", "_a-b.c", "A/b/c/d.e..f", "a" * 128, "a" * 128 + "/" + "b" * 127])
def test_a_plain_name_is(name: str) -> None:
    assert is_drop_path(name)
    assert said_of(files={name: "0" * 64}) == ""
    assert not is_drop_path(name + "\n")


def test_a_message_says_where_the_values_came_from() -> None:
    with pytest.raises(InvalidInputError, match=r"^the metadata: unknown key 'x'"):
        manifest_from({"task": "regression", "x": 1}, source="the metadata")
    with pytest.raises(InvalidInputError, match="MLmodel has more than the 3 bytes"):
        parse_mapping(b"abcd", name="MLmodel", max_bytes=3)
