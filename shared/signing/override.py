"""The signed override header: lets its bearer name the version that answers, until a time and under a name.

    x-slipway-override: churn;v=7;exp=1764000000;by=ann;sig=<64 hexadecimal digits>

`sig` is HMAC-SHA256 of "slipway-override-1", NUL and all that stands before ";sig=", under a key that the servers and
whoever signs share. A key file holds a key a line, as 64 or more hexadecimal digits; the first signs, and all verify,
so that a key is replaced by putting the new one first, and taking the old one out once what it signed has expired.
An override never lives longer than LONGEST_S; where clocks differ, by up to CLOCKS_S more.
Golden vectors: tests/unit/signing/override_vectors.json.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from shared.core.errors import InvalidInputError, SlipwayError
from shared.core.ids import EndpointName, endpoint_name

HEADER = "x-slipway-override"
LONGEST_S = 7 * 86_400
"""How far ahead an override may expire, by the clock of who signs it."""
CLOCKS_S = 300
"""How far ahead of a server's clock that clock may be."""
MIN_KEY_BYTES = 32

_SIGNED_FOR = b"slipway-override-1\0"
_NAME = r"[A-Za-z0-9@._+-]{1,64}"
_FORM = re.compile(
    rf"(?P<signed>(?P<endpoint>[a-z0-9-]{{1,63}});v=(?P<version>[1-9][0-9]{{0,8}});exp=(?P<expires>[1-9][0-9]{{0,11}})"
    rf";by=(?P<by>{_NAME}));sig=(?P<signature>[0-9a-f]{{64}})"
)
_KEY = re.compile(rf"(?:[0-9a-fA-F]{{2}}){{{MIN_KEY_BYTES},128}}")


class OverrideRefusedError(SlipwayError):
    """A request names a version and may not: its override is missing, malformed, expired, or signed by no known key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """That version `version` is to answer an endpoint's requests, until `expires_s` (Unix time)."""

    endpoint: EndpointName
    version: int
    expires_s: int
    by: str
    """Who signed it, for the logs: 1 to 64 letters, digits and `@ . _ + -`."""


def sign_override(override: Override, keys: Sequence[bytes]) -> str:
    """The header's value, signed by the first key. Raises InvalidInputError for what no header can say."""
    endpoint_name(override.endpoint)
    text = f"{override.endpoint};v={override.version};exp={override.expires_s};by={override.by}"
    signed = f"{text};sig={_signature(text.encode(), keys[0])}"
    if not _FORM.fullmatch(signed):
        raise InvalidInputError(
            f"an override of version {override.version} until {override.expires_s} by {override.by[:80]!r} cannot be "
            "written: use a version from 1, and as the name 1 to 64 letters, digits and @ . _ + -"
        )
    return signed


def read_override(text: str, keys: Sequence[bytes], *, now_s: float) -> Override:
    """Verify a header's value at a time (Unix). Raises OverrideRefusedError, which says no more of it than it must."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise OverrideRefusedError(
            f"the header {HEADER} has not the form <endpoint>;v=<version>;exp=<Unix time>;by=<name>;sig=<hex>: "
            "`slipway override` makes one"
        )
    from hmac import compare_digest  # noqa: PLC0415 - as in _signature

    signed, given = match["signed"].encode(), match["signature"]
    if not any(compare_digest(_signature(signed, key), given) for key in keys):
        raise OverrideRefusedError(f"the header {HEADER} is not signed by a key that this server knows")
    expires_s = int(match["expires"])
    if expires_s <= now_s:
        raise OverrideRefusedError(f"the override expired {now_s - expires_s:.0f} s ago: sign another")
    if expires_s > now_s + LONGEST_S + CLOCKS_S:
        raise OverrideRefusedError(
            f"the override expires in {expires_s - now_s:.0f} s, and at most {LONGEST_S} are taken: sign another"
        )
    return Override(
        endpoint=EndpointName(match["endpoint"]), version=int(match["version"]), expires_s=expires_s, by=match["by"]
    )


def read_override_keys(text: str) -> tuple[bytes, ...]:
    """The keys of a key file; empty lines and those that begin with # are left out. Raises InvalidInputError."""
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    keys = []
    for number, line in lines:
        if not line or line.startswith("#"):
            continue
        if not _KEY.fullmatch(line):
            # The line may be most of a key: the error must not repeat it.
            raise InvalidInputError(
                f"line {number} of the key file is no key: use {MIN_KEY_BYTES * 2} to 256 hexadecimal digits, as "
                f"`openssl rand -hex {MIN_KEY_BYTES}` gives"
            )
        keys.append(bytes.fromhex(line))
    if not keys:
        raise InvalidInputError(
            f"the key file holds no key: use one a line, as `openssl rand -hex {MIN_KEY_BYTES}` gives"
        )
    return tuple(keys)


def _signature(signed: bytes, key: bytes) -> str:
    import hmac  # noqa: PLC0415 - loads OpenSSL: not where only the header's form is wanted

    return hmac.digest(key, _SIGNED_FOR + signed, "sha256").hex()
