"""Signed approval links: golden vectors, and that no other text passes for one."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.approvals.links import ApprovalLink, LinkAlteredError, read_link, sign_link

VECTORS = json.loads(Path(__file__).with_name("link_vectors.json").read_text())
KEY, OTHER = b"1" * 32, b"2" * 32
LINK = ApprovalLink(
    endpoint="digits",
    rollout_id="rollout-000002-0123456789ab",
    stage=1,
    approver="ann@example.com",
    expires_at=datetime(2026, 11, 22, 8, 0, tzinfo=UTC),
    link_id="0123456789abcdef",
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["link"]["approver"])
def test_a_link_signs_and_reads_as_the_vector_says(vector: dict[str, Any]) -> None:
    link, key = ApprovalLink.model_validate(vector["link"]), bytes.fromhex(vector["key"])
    assert sign_link(link, [key]) == vector["token"]
    assert read_link(vector["token"], [key]) == link


def test_the_first_key_signs_and_every_key_verifies() -> None:
    token = sign_link(LINK, [KEY, OTHER])
    assert read_link(token, [OTHER, KEY]) == LINK
    with pytest.raises(LinkAlteredError, match="was altered, or its key was replaced since"):
        read_link(token, [OTHER])


@given(st.data())
def test_a_token_of_which_any_character_is_another_is_refused(data: st.DataObject) -> None:
    token = sign_link(LINK, [KEY])
    place = data.draw(st.integers(0, len(token) - 1))
    alphabet = st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.= \0é")
    character = data.draw(alphabet.filter(lambda c: c != token[place]))
    with pytest.raises(LinkAlteredError):
        read_link(token[:place] + character + token[place + 1 :], [KEY])


@given(st.text(max_size=200))
def test_no_other_text_is_a_link(text: str) -> None:
    with pytest.raises(LinkAlteredError):
        read_link(text, [KEY])


def test_what_a_link_says_cannot_be_put_into_another() -> None:
    mine, yours = sign_link(LINK, [KEY]), sign_link(LINK.model_copy(update={"approver": "eve"}), [KEY])
    with pytest.raises(LinkAlteredError):
        read_link(f"{yours.partition('.')[0]}.{mine.partition('.')[2]}", [KEY])


def test_a_token_fits_an_address() -> None:
    # Each of these characters takes twelve in JSON.
    longest = LINK.model_copy(update={"approver": "\U0001f600" * 200, "endpoint": "m" * 63, "link_id": "f" * 64})
    assert len(sign_link(longest, [KEY])) < 4_096
    assert read_link(sign_link(longest, [KEY]), [KEY]) == longest
