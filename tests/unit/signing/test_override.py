"""The signed override header: its golden vectors, and that nothing but what was signed is ever read from one."""

import hashlib
import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName
from shared.signing.override import (
    CLOCKS_S,
    LONGEST_S,
    Override,
    OverrideRefusedError,
    read_override,
    read_override_keys,
    sign_override,
)

VECTORS = json.loads(Path(__file__).with_name("override_vectors.json").read_text())
KEY, OTHER = b"k" * 32, b"o" * 32
OVERRIDE = Override(endpoint=EndpointName("churn"), version=7, expires_s=2_000, by="ann@example.com")
overrides = st.builds(
    Override,
    endpoint=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True).map(EndpointName),
    version=st.integers(1, 999_999_999),
    expires_s=st.integers(1, LONGEST_S),
    by=st.from_regex(r"[A-Za-z0-9@._+-]{1,64}", fullmatch=True),
)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["header"][:30])
def test_a_header_equals_the_golden_vector(case: dict[str, Any]) -> None:
    key, override = bytes.fromhex(case["key"]), Override(**case["override"])
    assert sign_override(override, [key]) == case["header"]
    assert read_override(case["header"], [key], now_s=override.expires_s - 1) == override
    # The words of the file's `algorithm`, done by another hand than the code's.
    text, _, signature = case["header"].partition(";sig=")
    assert hmac.new(key, b"slipway-override-1\0" + text.encode(), hashlib.sha256).hexdigest() == signature


@given(override=overrides, keys=st.lists(st.binary(min_size=32, max_size=64), min_size=1, max_size=4, unique=True))
def test_what_is_signed_is_read_back_wherever_its_key_stands(override: Override, keys: list[bytes]) -> None:
    header = sign_override(override, keys)
    assert read_override(header, keys, now_s=0) == override
    assert read_override(header, [*keys[1:], keys[0]], now_s=0) == override


@given(override=overrides, data=st.data())
def test_a_header_of_which_one_character_is_another_is_refused(override: Override, data: st.DataObject) -> None:
    header = sign_override(override, [KEY])
    place = data.draw(st.integers(0, len(header) - 1))
    letter = data.draw(st.characters(codec="ascii").filter(lambda character: character != header[place]))
    with pytest.raises(OverrideRefusedError):
        read_override(header[:place] + letter + header[place + 1 :], [KEY], now_s=0)


@given(st.text(max_size=200))
def test_noise_is_refused(text: str) -> None:
    with pytest.raises(OverrideRefusedError, match="has not the form"):
        read_override(text, [KEY], now_s=0)


def test_without_the_key_nothing_is_read() -> None:
    header = sign_override(OVERRIDE, [KEY])
    for keys in ([OTHER], []):
        with pytest.raises(OverrideRefusedError, match="not signed by a key that this server knows"):
            read_override(header, keys, now_s=0)


@pytest.mark.parametrize(
    ("now_s", "reason"), [(2_000.0, "expired 0 s ago"), (2_500.0, "expired 500 s ago"), (1_999.5, ""), (-603_100.0, "")]
)
def test_an_override_holds_until_its_second(now_s: float, reason: str) -> None:
    header = sign_override(OVERRIDE, [KEY])
    if not reason:
        assert read_override(header, [KEY], now_s=now_s) == OVERRIDE
        return
    with pytest.raises(OverrideRefusedError, match=reason):
        read_override(header, [KEY], now_s=now_s)


def test_an_override_that_lives_too_long_is_refused_although_its_key_is_known() -> None:
    header = sign_override(OVERRIDE, [KEY])
    with pytest.raises(OverrideRefusedError, match="expires in 605101 s, and at most 604800 are taken"):
        read_override(header, [KEY], now_s=2_000 - LONGEST_S - CLOCKS_S - 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"endpoint": "Not A Name"}, "endpoint name: use 1 to 63"),
        ({"version": 0}, "use a version from 1"),
        ({"by": ""}, "as the name 1 to 64 letters"),
        ({"by": "a;v=9"}, "as the name 1 to 64 letters"),
        ({"by": "a\n"}, "as the name 1 to 64 letters"),
        ({"by": "é"}, "as the name 1 to 64 letters"),
        ({"by": "a" * 65}, "as the name 1 to 64 letters"),
    ],
)
def test_what_no_header_can_say_is_not_signed(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        sign_override(replace(OVERRIDE, **change), [KEY])


def test_a_key_file_holds_a_key_a_line() -> None:
    text = f"# signs from May on\n{KEY.hex()}\n\n  {OTHER.hex().upper()}  \n"
    assert read_override_keys(text) == (KEY, OTHER)


@pytest.mark.parametrize("text", ["", "# none\n", "ab" * 31, "ab" * 32 + "c", "zz" * 32, "ab" * 129, "secret"])
def test_a_key_file_without_a_good_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(InvalidInputError, match="openssl rand -hex 32") as refused:
        read_override_keys(text)
    assert not text or text not in str(refused.value)
