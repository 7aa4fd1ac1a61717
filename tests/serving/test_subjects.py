"""Whom a request is for: which place is heard first, what is refused, and what an issued cookie comes back as."""

import contextlib
from http.cookies import SimpleCookie

import pytest
from aks_serving.subjects import MAX_SUBJECT_BYTES, Share, issue_cookie, subject_of
from hypothesis import given
from hypothesis import strategies as st

from shared.core.errors import InvalidInputError
from shared.routing.assignment import bucket
from shared.routing.plan import SubjectSource

DEFAULT = SubjectSource()
EVERYWHERE = SubjectSource(header="x-account", body=True, cookie="visitor")
HEADER, COOKIE = {b"x-account": b"by-header"}, {b"cookie": b"visitor=by-cookie"}
LONGEST = "é" * (MAX_SUBJECT_BYTES // 2)
_octets = st.characters(codec="ascii", min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='",;\\')


@pytest.mark.parametrize(
    ("headers", "body_user", "subject"),
    [
        (HEADER | COOKIE, "by-body", "by-header"),
        (COOKIE, "by-body", "by-body"),
        (COOKIE, None, "by-cookie"),
        ({b"x-account": b""} | COOKIE, "", "by-cookie"),
        ({}, 42, "42"),
        ({}, 0, "0"),
        ({}, -7, "-7"),
        ({}, None, None),
        ({b"cookie": b"visitor=", b"host": b"x"}, None, None),
        ({b"x-slipway-user": b"another header"}, None, None),
    ],
)
def test_the_first_place_that_names_a_subject_counts(
    headers: dict[bytes, bytes], body_user: str | int | None, subject: str | None
) -> None:
    assert subject_of(headers, body_user, EVERYWHERE) == subject


def test_places_that_the_plan_does_not_name_are_not_heard() -> None:
    headers = {b"x-slipway-user": b"ann"} | COOKIE
    assert subject_of(headers, None, DEFAULT) == "ann"
    assert subject_of(COOKIE, None, DEFAULT) is None
    nothing = SubjectSource(header=None, body=False, cookie=None)
    assert subject_of(headers, "by-body", nothing) is None
    assert subject_of(headers, "by-body", SubjectSource(header=None, body=False, cookie="visitor")) == "by-cookie"


@pytest.mark.parametrize(
    ("cookies", "subject"),
    [
        (b"visitor=a", "a"),
        (b"other=b; visitor=a", "a"),
        (b"visitor=a; visitor=b", "a"),
        (b"visitors=b;visitor=a", "a"),
        (b"xvisitor=b; not=visitor=c; visitor=a", "a"),
        (b'visitor="a"', "a"),
        (b'visitor="', '"'),
        (b" \tvisitor \t= a\t ;x=y", "a"),
        (b"visitor=a=b==", "a=b=="),
        (b"visitor=\xc3\xa9", "é"),
        (b"visitor", None),
        (b"; ;;visitor", None),
        (b"Visitor=a", None),
        (b"other=visitor", None),
    ],
)
def test_a_cookie_is_found_among_others(cookies: bytes, subject: str | None) -> None:
    assert subject_of({b"cookie": cookies}, None, EVERYWHERE) == subject


@given(st.dictionaries(st.text(_octets.filter(lambda c: c != "="), min_size=1), st.text(_octets, min_size=1)))
def test_each_cookie_of_a_well_formed_header_has_its_own_value(cookies: dict[str, str]) -> None:
    header = "; ".join(f"{name}={value}" for name, value in cookies.items()).encode()
    for name, value in cookies.items():
        if name.isalnum() and name.isascii():
            assert subject_of({b"cookie": header}, None, SubjectSource(header=None, cookie=name)) == value


@given(st.binary(max_size=60))
def test_no_header_raises_anything_but_an_error_for_its_sender(noise: bytes) -> None:
    for headers in ({b"cookie": noise}, {b"cookie": b"visitor=" + noise}, {b"x-account": noise}):
        with contextlib.suppress(InvalidInputError):
            subject = subject_of(headers, None, EVERYWHERE)
            assert subject is None or bucket("salt", subject) >= 0


@pytest.mark.parametrize(
    ("headers", "body_user", "reason"),
    [
        ({b"x-account": b"\xff"}, None, "the header x-account is not UTF-8"),
        ({b"cookie": b"visitor=\xff"}, None, "the cookie visitor is not UTF-8"),
        ({b"x-account": b"a" * 1025}, None, "the header x-account has 1025 bytes: a subject has at most 1024"),
        ({b"cookie": b"visitor=" + b"a" * 1025}, None, "the cookie visitor has 1025 bytes"),
        ({}, "a" * 1025, "user_id has 1025 bytes"),
        ({}, LONGEST + "a", "user_id has 1025 bytes"),
        ({}, "\ud800", "half of a surrogate pair"),
        ({}, 2**64, "more than 64 bits"),
        ({}, -(2**63) - 1, "more than 64 bits"),
        pytest.param({}, 10**5_000, "more than 64 bits", id="long"),
        ({}, True, "user_id is a bool"),
        ({}, 1.5, "user_id is a float"),
        ({}, ["a"], "user_id is a list"),
    ],
)
def test_what_cannot_be_a_subject_is_the_sender_s_error(
    headers: dict[bytes, bytes], body_user: object, reason: str
) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        subject_of(headers, body_user, EVERYWHERE)


def test_the_longest_subject_is_taken_from_each_place() -> None:
    text = LONGEST.encode()
    assert len(text) == MAX_SUBJECT_BYTES
    for headers, body_user in (({b"x-account": text}, None), ({}, LONGEST), ({b"cookie": b"visitor=" + text}, None)):
        assert subject_of(headers, body_user, EVERYWHERE) == LONGEST


def test_an_issued_cookie_comes_back_as_its_subject_and_each_is_another() -> None:
    issued = [issue_cookie("visitor", secure=False) for _ in range(1_000)]
    assert len({one.subject for one in issued}) == 1_000
    name, value = issued[0].header
    assert name == b"set-cookie"
    kept = SimpleCookie(value.decode())["visitor"]
    assert (kept.value, kept["path"], kept["samesite"]) == (issued[0].subject, "/", "Lax")
    assert kept["httponly"] is True
    assert int(kept["max-age"]) == 365 * 86_400
    assert not kept["secure"]
    assert subject_of({b"cookie": f"visitor={kept.value}".encode()}, None, EVERYWHERE) == issued[0].subject


@pytest.mark.parametrize(("name", "secure"), [("visitor", True), ("__Host-visitor", False), ("__Secure-v", False)])
def test_a_cookie_is_secure_where_that_is_wanted_or_its_name_wants_it(name: str, *, secure: bool) -> None:
    assert issue_cookie(name, secure=secure).header[1].endswith(b"; SameSite=Lax; Secure")


def test_issued_subjects_spread_over_the_buckets() -> None:
    candidate = sum(bucket("salt", issue_cookie("v", secure=False).subject) < 5_000 for _ in range(4_000))
    # 4,000 fair draws leave 2,000 +- 6 standard deviations (190) once in 10^9.
    assert abs(candidate - 2_000) < 190


@given(salt=st.text(), subject=st.text(), weight_bp=st.integers(0, 10_000))
def test_a_share_is_the_buckets_below_its_weight(salt: str, subject: str, weight_bp: int) -> None:
    place = bucket(salt, subject)
    assert Share(salt, weight_bp).holds(subject) == (place < weight_bp)
    assert not Share(salt, place).holds(subject)
    assert Share(salt, place + 1).holds(subject)
