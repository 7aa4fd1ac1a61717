"""Names and numbers: what has the form, and what is told that it has not."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.core.ids import digest, endpoint_name, model_name, version_number

NAME_FORMS = pytest.mark.parametrize(
    ("check", "what"), [(model_name, "a model name"), (endpoint_name, "an endpoint name")], ids=["model", "endpoint"]
)


@NAME_FORMS
@pytest.mark.parametrize("text", ["a", "7", "credit-risk", "a--b", "x" * 63, "0-0"])
def test_a_dns_label_is_a_name(check: Callable[[str], str], what: str, text: str) -> None:
    del what
    assert check(text) == text


@NAME_FORMS
@pytest.mark.parametrize(
    "text", ["", "-", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a b", " a", "a\n", "é", "\u0661", "x" * 64, "a\0"]
)
def test_anything_else_is_refused_and_told_the_form(check: Callable[[str], str], what: str, text: str) -> None:
    with pytest.raises(InvalidInputError, match=f"is not {what}: use 1 to 63 lower-case letters"):
        check(text)


@given(st.text())
def test_a_name_never_needs_escaping(text: str) -> None:
    try:
        name = model_name(text)
    except InvalidInputError:
        return
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_long_text_is_cut_in_the_error() -> None:
    with pytest.raises(InvalidInputError) as caught:
        model_name("X" * 10_000)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("42", 42), ("007", 7), ("999999999", 999_999_999)])
def test_a_whole_number_from_1_is_a_version(text: str, number: int) -> None:
    assert version_number(text) == number


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "+1", "1.0", " 1", "1\n", "0x1", "1_0", "\u0661", "²", "1000000000", "v1"]
)
def test_any_other_text_is_no_version(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a version number: use a whole number from 1"):
        version_number(text)


def test_64_lower_case_hexadecimal_digits_are_a_digest() -> None:
    assert digest("0123456789abcdef" * 4) == "0123456789abcdef" * 4


@pytest.mark.parametrize("text", ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 64 + "\n", "../" + "a" * 61])
def test_any_other_text_is_no_digest(text: str) -> None:
    with pytest.raises(InvalidInputError, match="is not a SHA-256 digest"):
        digest(text)
