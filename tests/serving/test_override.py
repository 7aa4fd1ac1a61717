"""Who may name the version that answers: anybody, or the bearer of a signed override."""

import pytest
from aks_serving.override import Pinning, pinned_version

from shared.core.errors import InvalidInputError
from shared.core.ids import EndpointName
from shared.signing.override import HEADER, Override, OverrideRefusedError, sign_override

KEYS = (b"k" * 32, b"old" * 16)
NOW_S = 1_764_000_000.0


def header(*, endpoint: str = "churn", version: int = 7, lives_s: int = 60, key: bytes = KEYS[0]) -> dict[bytes, bytes]:
    override = Override(endpoint=EndpointName(endpoint), version=version, expires_s=int(NOW_S) + lives_s, by="ann")
    return {HEADER.encode(): sign_override(override, [key]).encode()}


def pinned(
    headers: dict[bytes, bytes],
    asked: int | None = None,
    *,
    keys: tuple[bytes, ...] = KEYS,
    pinning: Pinning = Pinning.OPEN,
) -> int | None:
    found = pinned_version(headers, asked, endpoint="churn", keys=keys, pinning=pinning, now_s=NOW_S)
    return None if found is None else found.version


def test_who_names_nothing_gets_what_the_plan_decides() -> None:
    for pinning in Pinning:
        assert pinned({}, pinning=pinning) is None
        assert pinned({}, pinning=pinning, keys=()) is None


def test_where_pinning_is_open_anybody_names_a_version_also_beside_keys() -> None:
    assert pinned({}, 3) == 3
    assert pinned({}, 3, keys=()) == 3


def test_where_pinning_is_signed_only_an_override_names_one() -> None:
    with pytest.raises(OverrideRefusedError, match="version 3 is named, and on this server only a signed override may"):
        pinned({}, 3, pinning=Pinning.SIGNED)
    assert pinned(header(), pinning=Pinning.SIGNED) == 7
    assert pinned(header(), 7, pinning=Pinning.SIGNED) == 7


def test_an_override_signed_with_a_key_that_is_being_replaced_holds_still() -> None:
    assert pinned(header(key=KEYS[1])) == 7


@pytest.mark.parametrize("pinning", Pinning)
def test_an_override_that_does_not_hold_is_refused_and_never_passed_over(pinning: Pinning) -> None:
    cases = [
        (header(key=b"x" * 32), KEYS, "not signed by a key that this server knows"),
        (header(lives_s=0), KEYS, "expired 0 s ago"),
        (header(lives_s=8 * 86_400), KEYS, "at most 604800 are taken"),
        (header(endpoint="fraud"), KEYS, "for endpoint fraud, and the request for churn"),
        (header(), (), "SLIPWAY_OVERRIDE_KEYS"),
        ({HEADER.encode(): b""}, KEYS, "has not the form"),
        ({HEADER.encode(): b"\xff\xfe"}, KEYS, "has not the form"),
        ({HEADER.encode(): b", ".join(header()[HEADER.encode()] for _ in range(2))}, KEYS, "has not the form"),
    ]
    for headers, keys, reason in cases:
        with pytest.raises(OverrideRefusedError, match=reason):
            pinned(headers, keys=keys, pinning=pinning)


def test_an_override_and_a_body_that_name_two_versions_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="names version 3, and its override version 7"):
        pinned(header(), 3)
