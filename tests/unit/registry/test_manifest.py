"""What a manifest may say, and how one that says anything else is refused."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.registry.manifest import MAX_MANIFEST_BYTES, Manifest, Task, parse_manifest

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
        (b"task: [", "is not YAML"),
        (b"task: 2026-99-99", "is not YAML"),
        (b"- task", "holds no mapping"),
        (b"", "holds no mapping"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"PK\x03\x04\x00", "is not YAML"),
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


def test_importing_the_manifest_loads_no_yaml_parser() -> None:
    code = "import sys, shared.registry.manifest; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
