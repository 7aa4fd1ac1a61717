"""Filters of versions: what they match, and what is said of one that cannot be read."""

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.core.verdict import Outcome
from shared.registry.documents import ModelVersion, ValidationSummary, VersionState, version_id
from shared.registry.manifest import Manifest
from shared.registry.search import MAX_COMPARISONS, MAX_FILTER_LENGTH, parse_filter

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def version(**manifest: Any) -> ModelVersion:
    summary = ValidationSummary(outcome=Outcome.PASS, verdicts=[], metrics={"accuracy": 0.9}, report_blob="r")
    return ModelVersion(
        id=version_id(7),
        model="m",
        version=7,
        state=VersionState.VALIDATED,
        drop="m/x.onnx",
        digest="d" * 64,
        artifact_digest="a" * 64,
        artifact_size_bytes=1,
        manifest=Manifest.model_validate({"task": "classification"} | manifest),
        registered_at=NOW,
        attempted_at=NOW,
        validation=summary,
    )


FOUND = version(
    author="Ann O'Hara",
    run_id="run-1",
    git_commit="abc",
    tags={"team": "fraud", "a b": "it's"},
    parameters={"depth": 6, "rate": 0.5, "kind": "tree", "balanced": True},
    metrics={"claimed": 0.99},
)


@pytest.mark.parametrize(
    "text",
    [
        "metrics.accuracy >= 0.9",
        "metrics.accuracy = .9",
        "metrics.accuracy<1e0",
        "metrics.accuracy != -1",
        "tags.team = 'fraud'",
        "tags.team != 'other'",
        "tags.`a b` = 'it''s'",
        'tags."a b" = "it\'s"',
        "parameters.depth = 6",
        "parameters.depth = 6.0",
        "parameters.depth < 7",
        "parameters.depth != '6'",
        "parameters.rate <= +0.5",
        "parameters.kind = 'tree'",
        "parameters.balanced = true",
        "parameters.balanced != 1",
        "state = 'validated'",
        "state != 'rejected'",
        "version > 6",
        "author = 'Ann O''Hara'",
        "run_id = 'run-1'",
        "git_commit = 'abc'",
        "training_data_version = ''",
        "task = 'classification'",
        f"digest = '{'d' * 64}'",
        "alias = 'champion'",
        "alias != 'staging'",
        "metrics.accuracy >= 0.9 and tags.team = 'fraud' and parameters.depth = 6 and state = 'validated'",
        "  state='validated'\n AND version=7  ",
    ],
)
def test_a_filter_that_holds_matches(text: str) -> None:
    assert parse_filter(text).matches(FOUND, ["champion", "blue"])


@pytest.mark.parametrize(
    "text",
    [
        "metrics.accuracy > 0.9",
        "metrics.claimed > 0",
        "metrics.other != 1",
        "tags.team = 'Fraud'",
        "tags.none != 'x'",
        "parameters.none != 6",
        "parameters.kind > 1",
        "parameters.depth = '6'",
        "parameters.balanced = 1",
        "parameters.depth = true",
        "state = 'registered'",
        "version < 7",
        "alias = 'staging'",
        "alias != 'blue'",
        "state = 'validated' and version = 8",
    ],
)
def test_a_filter_that_does_not_hold_does_not_match(text: str) -> None:
    assert not parse_filter(text).matches(FOUND, ["champion", "blue"])


def test_a_version_without_a_validation_has_no_metric() -> None:
    unvalidated = version().model_copy(update={"validation": None})
    assert not parse_filter("metrics.accuracy != 5").matches(unvalidated, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the filter ends, and wants a field, as in `metrics.accuracy` or `state`"),
        ("metrics.accuracy", "the filter ends, and wants one of = != > >= < <="),
        ("metrics.accuracy >", "the filter ends, and wants a number, a text in single quotes, true or false"),
        ("metrics.accuracy >> 1", "the filter has '>' at character 19, and wants a number"),
        ("metrics.accuracy 1", "the filter has '1' at character 18, and wants one of = != > >= < <="),
        ("metrics. = 1", "the filter has '=' at character 10, and wants a name"),
        ("metrics. `a b` = 1", "the filter has '`a b`' at character 10, and wants a name right after 'metrics.'"),
        ("params.depth = 6", "'params.depth' at character 1, and wants one of metrics., parameters., tags."),
        ("stat = 'x'", "'stat' at character 1, and wants one of state, version, author"),
        ("state = 'live'", "at character 9, and wants one of registered, validating, validated"),
        ("state = validated", "'validated' at character 9, and wants a value: write a text in quotes, as in"),
        ("state > 'validated'", "'>' at character 7, and wants = or !=: what is no number has no order"),
        ("tags.team = 1", "'1' at character 13, and wants a text in quotes to compare team with"),
        ("metrics.accuracy = '1'", "at character 20, and wants a number to compare accuracy with"),
        ("version = true", "'true' at character 11, and wants a number to compare version with"),
        ("parameters.x < true", "'<' at character 14, and wants = or !="),
        ("version = 7 or version = 8", "'or' at character 13, and wants `and`"),
        ("version = 7 and", "the filter ends, and wants a field"),
        ("version = 7 7", "'7' at character 13, and wants `and`"),
        ("version = 7x", "the filter has '7x' at character 11"),
        ("(version = 7)", "the filter has '(version = 7)' at character 1"),
        ("tags.x = 'open", "is its closing quote missing?"),
        ("version = 7; drop", "the filter has '; drop' at character 12"),
        ("x" * (MAX_FILTER_LENGTH + 1), f"at most {MAX_FILTER_LENGTH} are read"),
        (" and ".join(["version = 7"] * (MAX_COMPARISONS + 1)), f"use at most {MAX_COMPARISONS}"),
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_with_what_stands_where(text: str, said: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        parse_filter(text)
    assert said in str(refused.value)


@given(st.text(alphabet="metricsaccuracy.tagsparameters 'x'\"`=!<>0123456789 and state e+-\\", max_size=60))
def test_any_text_is_a_filter_or_is_refused(text: str) -> None:
    with contextlib.suppress(InvalidInputError):
        parse_filter(text).matches(FOUND, [])


@given(key=st.text(min_size=1, max_size=20).filter(lambda key: "`" not in key), value=st.text(max_size=20))
def test_every_tag_can_be_named_and_compared(key: str, value: str) -> None:
    tagged = version(tags={key: value})
    quoted = "'" + value.replace("'", "''") + "'"
    assert parse_filter(f"tags.`{key}` = {quoted}").matches(tagged, [])
    assert not parse_filter(f"tags.`{key}` != {quoted}").matches(tagged, [])


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_are_ordered_as_numbers_are(measured: float, limit: float) -> None:
    found = version(parameters={"x": measured})
    for sign, holds in (
        ("=", measured == limit),
        ("!=", measured != limit),
        ("<", measured < limit),
        ("<=", measured <= limit),
        (">", measured > limit),
        (">=", measured >= limit),
    ):
        assert parse_filter(f"parameters.x {sign} {limit!r}").matches(found, []) is holds
