"""Signed approval links: each lets one person answer, once and until a time, whether one stage of a rollout may begin.

A link's token is `<content>.<signature>`, both base64url without padding. The content is JSON with sorted keys; the
signature is HMAC-SHA256 of "slipway-approval-1", NUL and the content as it stands in the token. The first key signs and
all verify, so that a key is replaced by putting the new one first, and taking the old one out once what it signed has
expired. The token says nothing of the answer: whoever holds it approves or rejects.
Golden vectors: tests/unit/approvals/link_vectors.json.
"""

import hmac
import json
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from shared.core.errors import SlipwayError

MAX_APPROVER = 200
"""Characters of an approver's name."""

_SIGNED_FOR = b"slipway-approval-1\0"
_FORM = re.compile(r"(?P<content>[A-Za-z0-9_-]{1,4000})\.(?P<signature>[A-Za-z0-9_-]{43})")


class ApprovalLink(BaseModel):
    """What a link is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str
    rollout_id: str
    stage: int = Field(ge=0)
    """The stage that waits; the count of stages means the switch."""
    approver: str = Field(min_length=1, max_length=MAX_APPROVER)
    expires_at: AwareDatetime
    link_id: str = Field(min_length=1, max_length=64)


class LinkAlteredError(SlipwayError):
    """A token is no link of ours, or was changed on its way."""


class LinkExpiredError(SlipwayError):
    """A link's time is over."""


def sign_link(link: ApprovalLink, keys: Sequence[bytes]) -> str:
    """The token of a link, signed by the first key."""
    content = _text(json.dumps(link.model_dump(mode="json"), sort_keys=True, separators=(",", ":")).encode())
    return f"{content}.{_signature(content, keys[0])}"


def read_link(token: str, keys: Sequence[bytes]) -> ApprovalLink:
    """Verify a token. Whether its time is over is another question. Raises LinkAlteredError."""
    match = _FORM.fullmatch(token)
    if match is None:
        raise LinkAlteredError("this is no approval link: open the link whole, as it was sent to you")
    content, given = match["content"], match["signature"]
    if not any(hmac.compare_digest(_signature(content, key), given) for key in keys):
        raise LinkAlteredError("this approval link was altered, or its key was replaced since: ask for another")
    try:
        return ApprovalLink.model_validate_json(urlsafe_b64decode(content + "=" * (-len(content) % 4)))
    except (ValidationError, ValueError) as error:
        raise LinkAlteredError("this approval link is of another Slipway: ask for another") from error


def _signature(content: str, key: bytes) -> str:
    return _text(hmac.digest(key, _SIGNED_FOR + content.encode(), "sha256"))


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")
